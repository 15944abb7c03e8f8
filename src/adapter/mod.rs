//! Adapters as users know them: names, versions, files.
//!
//! Knows files and layouts. Knows no device memory, no slots, no sequences.
pub mod alias;
mod catalogue;
mod config;
mod convert;
mod describe;
mod error;
pub mod format;
mod gate;
mod inspect;
mod lease;
mod ledger;
mod name;
mod registry;
mod store;
mod terms;

pub use config::{AdapterConfig, AdapterLimits};
pub use convert::{ConvertBase, to_gguf, to_peft, write};
pub use describe::{AdapterDescription, ProjectionSummary};
pub use error::AdapterError;
pub use format::{AdapterFiles, ParsedAdapter};
pub use gate::{Gate, Permit, Wanted};
pub use inspect::{Inspection, inspect};
pub use lease::{AdapterLease, AdapterVersion};
pub use ledger::{AdapterUsage, Ledger};
pub use name::{AdapterName, AdapterRef, VersionId};
pub use registry::{
    AdapterEntry, AdapterRegistry, LoadReport, Publication, PublishOutcome, PublishRule,
};
pub use store::{
    AdapterStore, Content, DirectoryObjects, LocalStore, ObjectInfo, Objects, RemoteObjects, Stamp,
    StoredAdapter, WriteRule, drop_ins, hub, open as open_store,
};
pub use terms::AdapterTerms;
