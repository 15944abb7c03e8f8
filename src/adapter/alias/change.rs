//! How an alias is changed, and what is told of it.
use super::{AliasAction, Revision};
use crate::adapter::AdapterName;
use std::time::SystemTime;

/// When a change may take effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AliasRule {
    /// Always.
    Always,
    /// There is no such alias.
    Create,
    /// The alias is at this revision.
    ReplaceIf(Revision),
}

/// Who changes an alias, and when.
#[derive(Clone, Debug)]
pub struct Author {
    /// As it is stored and logged.
    pub by: String,
    /// By this server's clock.
    pub at: SystemTime,
}

/// What a change did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AliasOutcome {
    /// The alias is new.
    Created,
    /// It did something else before.
    Replaced,
    /// It did that already; nothing was done.
    Unchanged,
}

/// A change, for whoever keeps a record of them.
#[derive(Clone, Debug)]
pub struct AliasEvent {
    /// Which alias.
    pub alias: AdapterName,
    /// What was done.
    pub action: AliasAction,
    /// By whom.
    pub by: String,
    /// Its revision since then; none when it is gone.
    pub revision: Option<Revision>,
    /// Its revision before.
    pub previous: Option<Revision>,
    /// What it does now, or why it changed.
    pub detail: String,
}
