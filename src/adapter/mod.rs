//! Adapters as users know them: names, versions, files.
//!
//! Knows files and layouts. Knows no device memory, no slots, no sequences.
pub mod alias;
mod config;
mod convert;
mod describe;
mod error;
mod events;
pub mod format;
mod gate;
mod inspect;
mod lease;
mod ledger;
mod locate;
mod modules;
mod name;
mod registry;
pub mod store;
mod terms;
pub mod upload;
mod warnings;

pub use config::{AdapterConfig, AdapterLimits};
pub use convert::{ConvertBase, to_gguf, to_peft, write};
pub use describe::{AdapterDescription, ProjectionSummary};
pub use error::AdapterError;
pub use events::{Event, EventLog};
pub use format::{AdapterFiles, GGUF_FILE, ParsedAdapter};
pub use gate::{Gate, Permit, Wanted};
pub use inspect::{Inspection, inspect};
pub use lease::{AdapterLease, AdapterVersion};
pub use ledger::{AdapterUsage, Ledger};
pub use locate::AdapterPaths;
pub use modules::{LoraModule, LoraModuleError, LoraModules};
pub use name::{AdapterName, AdapterRef, VersionId};
pub use registry::{
    AdapterEntry, AdapterRegistry, Candidate, Change, Departure, LoadReport, NameKeeper,
    Publication, PublishOptions, PublishOutcome, PublishRule, Source, SwapPolicy, VersionEntry,
    WarmUsage,
};
pub use store::{
    Content, DirectoryObjects, MemoryObjects, ObjectInfo, Objects, RemoteObjects, Stamp, WriteRule,
    drop_ins, hub, open as open_store,
};
pub use terms::AdapterTerms;
