//! Adapters as users know them: names, versions, files.
//!
//! Knows files and layouts. Knows no device memory, no slots, no sequences.
mod error;
mod lease;
mod name;

pub use error::AdapterError;
pub use lease::{AdapterLease, AdapterVersion};
pub use name::{AdapterName, AdapterRef, VersionId};
