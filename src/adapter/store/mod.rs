//! Where published adapters outlive the process.
//!
//! Knows names, and which files are an adapter. Knows nothing in them, no versions and no models.
mod cause;
mod contract;
mod directory;
pub mod drop_ins;
pub mod hub;
mod local;
mod objects;
mod open;
mod place;
mod remote;
#[cfg(test)]
mod tests;

pub use contract::{AdapterStore, StoredAdapter};
pub use directory::DirectoryObjects;
pub use local::LocalStore;
pub use objects::{Content, ObjectInfo, Objects, Stamp, WriteRule};
pub use open::open;
pub(super) use place::replace_directory;
pub use remote::RemoteObjects;
