//! How an adapter is published, and what came of it.
use super::Source;
use crate::adapter::{AdapterDescription, AdapterName, VersionId};
use std::{sync::Arc, time::Duration};

/// When a publication may take effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PublishRule {
    /// The name is free.
    Create,
    /// Always.
    Replace,
    /// The name is at this version.
    ReplaceIf(VersionId),
}

/// What becomes of the running requests of a version that a name ceases to mean.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SwapPolicy {
    /// They finish on the version they began with.
    #[default]
    Pin,
    /// They have this long to finish; then they fail.
    Drain(Duration),
    /// They fail now.
    Cancel,
}

/// Who changes what a name means, and what becomes of requests on the former version.
#[derive(Clone, Debug)]
pub struct Change {
    /// As the history and the event log name them; empty for nobody in particular.
    pub by: String,
    /// What becomes of running requests.
    pub policy: SwapPolicy,
}

impl From<SwapPolicy> for Change {
    fn from(policy: SwapPolicy) -> Self {
        Self { by: String::new(), policy }
    }
}

impl From<(String, SwapPolicy)> for Change {
    fn from((by, policy): (String, SwapPolicy)) -> Self {
        Self { by, policy }
    }
}

/// How to publish.
#[derive(Clone, Debug)]
pub struct PublishOptions {
    /// When it may take effect.
    pub rule: PublishRule,
    /// What becomes of requests on the former version.
    pub policy: SwapPolicy,
    /// Who does it, as the history names them.
    pub by: String,
    /// Where the files came from.
    pub source: Source,
}

impl From<PublishRule> for PublishOptions {
    /// An upload by nobody in particular, which disturbs no running request.
    fn from(rule: PublishRule) -> Self {
        Self { rule, policy: SwapPolicy::Pin, by: String::new(), source: Source::Upload }
    }
}

/// What a publication did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PublishOutcome {
    /// The name is new.
    Created,
    /// The name meant this version before.
    Replaced(VersionId),
    /// The name has this very content already; nothing was done, whatever the rule.
    Unchanged,
}

/// Answer to a publication.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The content's identity.
    pub version: VersionId,
    /// What happened.
    pub outcome: PublishOutcome,
    /// Whether the adapter survives a restart.
    pub durable: bool,
    /// What was published.
    pub description: Arc<AdapterDescription>,
}

/// A name that ceased to mean a version.
#[derive(Clone, Debug)]
pub struct Departure {
    /// The name.
    pub name: AdapterName,
    /// What it meant.
    pub version: VersionId,
    /// What becomes of requests that run on it.
    pub policy: SwapPolicy,
    /// No other name means it either.
    pub last: bool,
}
