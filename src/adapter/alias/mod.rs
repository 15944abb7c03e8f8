//! Model names that stand for several targets: splits, shadows, and the way back.
//!
//! Knows names, weights and counts. Knows no weights of adapters, no requests and no texts.
mod aliases;
mod change;
mod error;
mod form;
mod guard;
mod live;
mod record;
mod split;
mod stored;
mod target;
#[cfg(test)]
mod tests;
mod upkeep;
mod watch;
mod window;

pub use aliases::Aliases;
pub use change::{AliasEvent, AliasOutcome, AliasRule, Author};
pub use error::AliasError;
pub use form::{AliasDraft, AliasForm, Sticky, StickyDraft, TargetDraft, WeightedTarget};
pub use guard::Guard;
pub use live::{Alias, Drawn};
pub use record::{AliasAction, AliasRecord, Revision};
pub use target::Target;
pub use watch::{Observation, Trip};
pub use window::Counts;
