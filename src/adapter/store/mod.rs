//! Where published adapters outlive the process.
//!
//! Knows names, and which files are an adapter. Knows nothing in them, no versions and no models.
mod contract;
mod local;
mod objects;
mod place;

pub use contract::{AdapterStore, StoredAdapter};
pub use local::LocalStore;
pub use objects::{Content, ObjectInfo, Objects, Stamp, WriteRule};
pub(super) use place::replace_directory;
