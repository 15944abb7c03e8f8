//! The right to use one version of an adapter.
use super::{AdapterName, AdapterTerms, Ledger, VersionId};
use crate::lora::LoraWeights;
use std::{ops::Deref, sync::Arc};

/// One immutable version, parsed and in host memory. Names that mean the same content share it.
#[derive(Debug)]
pub struct AdapterVersion {
    /// Content hash; also the salt of the prefix cache.
    pub id: VersionId,
    /// The factors.
    pub weights: LoraWeights,
}

/// While any lease lives, the version does; dropping it is the release.
#[derive(Clone, Debug)]
pub struct AdapterLease {
    /// The name that was asked for.
    pub name: AdapterName,
    /// On which terms that name is served.
    pub terms: Arc<AdapterTerms>,
    /// Where what it answers is counted.
    pub ledger: Arc<Ledger>,
    version: Arc<AdapterVersion>,
}

impl AdapterLease {
    /// A lease on `version` under `name`, on the usual terms.
    pub fn new(name: AdapterName, version: Arc<AdapterVersion>) -> Self {
        Self::on_terms(name, version, Arc::default())
    }

    /// A lease on `version` under `name`, on its own terms.
    pub fn on_terms(
        name: AdapterName,
        version: Arc<AdapterVersion>,
        terms: Arc<AdapterTerms>,
    ) -> Self {
        Self { name, terms, ledger: Arc::default(), version }
    }

    /// The same lease, counted in the name's ledger.
    #[must_use]
    pub fn counted_in(self, ledger: Arc<Ledger>) -> Self {
        Self { ledger, ..self }
    }

    /// What is leased.
    pub fn version(&self) -> &Arc<AdapterVersion> {
        &self.version
    }
}

impl Deref for AdapterLease {
    type Target = AdapterVersion;

    fn deref(&self) -> &AdapterVersion {
        &self.version
    }
}
