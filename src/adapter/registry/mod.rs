//! Which adapters exist, and which version each name means now.
//!
//! Knows names, versions, their files and host memory. Knows no device, no requests.
mod catalogue;
mod change;
mod entry;
mod handle;
mod prepare;
mod publication;
mod record;
mod sync;
mod upkeep;
mod vault;
mod warm;

pub use entry::{AdapterEntry, LoadReport, VersionEntry, WarmUsage};
pub use handle::{AdapterRegistry, NameKeeper};
pub use prepare::Candidate;
pub use publication::{
    Change, Departure, Publication, PublishOptions, PublishOutcome, PublishRule, SwapPolicy,
};
pub use record::Source;
