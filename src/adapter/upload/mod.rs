//! An upload on its way in: bytes of any form → staged on disk → the files of an adapter.
//!
//! Knows archives, limits and a directory of its own. Knows no HTTP, no names and no base. Nothing of an upload is
//! held whole in memory before it is known to be an adapter's files, and nothing of it stays on disk.
mod copy;
mod form;
mod incoming;
mod names;
mod pack;
mod plan;
mod staged;
mod staging;
mod tar;
mod zip;

pub(super) use form::recognise;
pub use incoming::Incoming;
pub use pack::packed;
pub use staged::{Part, Staged};
pub use staging::Staging;
