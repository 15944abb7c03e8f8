//! The right to use one version of an adapter.
use super::{AdapterName, VersionId};
use crate::lora::LoraWeights;
use std::{ops::Deref, sync::Arc};

/// One immutable version, parsed and in host memory.
#[derive(Debug)]
pub struct AdapterVersion {
    /// Its name when published.
    pub name: AdapterName,
    /// Content hash; also the salt of the prefix cache.
    pub id: VersionId,
    /// The factors.
    pub weights: LoraWeights,
}

/// While any lease lives, the version does; dropping it is the release.
#[derive(Clone, Debug)]
pub struct AdapterLease(Arc<AdapterVersion>);

impl AdapterLease {
    /// A lease on `version`.
    pub fn new(version: Arc<AdapterVersion>) -> Self {
        Self(version)
    }
}

impl Deref for AdapterLease {
    type Target = AdapterVersion;

    fn deref(&self) -> &AdapterVersion {
        &self.0
    }
}
