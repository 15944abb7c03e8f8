//! What is published, as people and machines list it.
use super::Source;
use crate::adapter::{
    AdapterDescription, AdapterError, AdapterName, AdapterTerms, AdapterUsage, VersionId,
};
use std::{sync::Arc, time::SystemTime};

/// A published adapter.
#[derive(Clone, Debug)]
pub struct AdapterEntry {
    /// Its name.
    pub name: AdapterName,
    /// The name's number since it was first published: kept when it is replaced, never another name's.
    pub number: u64,
    /// What the name means now.
    pub version: VersionId,
    /// What that is.
    pub description: Arc<AdapterDescription>,
    /// When the name came to mean it, by this server or before its start.
    pub published_at: SystemTime,
    /// Who made it so; empty where nobody said.
    pub published_by: String,
    /// Where its files came from.
    pub source: Source,
    /// Whether it survives a restart.
    pub durable: bool,
    /// Whether it is in host memory; else the store has it.
    pub warm: bool,
    /// Leases on this version that are held now, under any name.
    pub leases: usize,
    /// How many versions are kept, this one included.
    pub versions: usize,
    /// On which terms it is served.
    pub terms: Arc<AdapterTerms>,
    /// What it has answered since the server started.
    pub usage: AdapterUsage,
}

/// One version of a name.
#[derive(Clone, Debug)]
pub struct VersionEntry {
    /// Which.
    pub version: VersionId,
    /// When the name came to mean it.
    pub published_at: SystemTime,
    /// Who made it so; empty where nobody said.
    pub published_by: String,
    /// Where its files came from.
    pub source: Source,
    /// Whether the name means it now.
    pub current: bool,
    /// Whether it is in host memory.
    pub warm: bool,
    /// What it is.
    pub description: Arc<AdapterDescription>,
}

/// What was found in the store at start.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Served from now on.
    pub loaded: Vec<AdapterName>,
    /// Left out: directory and reason.
    pub skipped: Vec<(String, AdapterError)>,
}

/// What host memory holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WarmUsage {
    /// Versions.
    pub versions: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Read from the store since the start.
    pub reads: u64,
    /// Let go for others since the start.
    pub evictions: u64,
}
