//! Where published adapters outlive the process.
//!
//! Knows names and bytes. Knows no formats, no versions and no models.
mod contract;
mod local;
mod place;

pub use contract::{AdapterStore, StoredAdapter};
pub use local::LocalStore;
