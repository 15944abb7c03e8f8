//! Where published adapters outlive the process.
//!
//! Knows names, and which files are an adapter. Knows nothing in them, no versions and no models.
mod cause;
mod directory;
pub mod drop_ins;
pub mod hub;
mod memory;
mod objects;
mod open;
mod place;
mod remote;
#[cfg(test)]
mod tests;

pub use directory::DirectoryObjects;
pub use drop_ins::{DropIn, DropInKind};
pub use memory::MemoryObjects;
pub use objects::{Content, ObjectInfo, Objects, Stamp, WriteRule};
pub use open::open;
pub(super) use place::replace_directory;
pub use remote::RemoteObjects;
