//! One adapter's factors in host memory, in the only form the hot path knows.
use super::{LowRank, Site};
use std::collections::BTreeMap;

/// A whole adapter, checked against the model's layout: only the sites it changes, each at its own rank.
#[derive(Clone, Debug, Default)]
pub struct LoraWeights {
    sites: BTreeMap<Site, LowRank>,
}

impl LoraWeights {
    /// The factors at `site`.
    pub fn at(&self, site: Site) -> Option<&LowRank> {
        self.sites.get(&site)
    }

    /// Every site the adapter changes.
    pub fn sites(&self) -> impl Iterator<Item = (Site, &LowRank)> {
        self.sites.iter().map(|(site, pair)| (*site, pair))
    }

    /// How many sites it changes.
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// Largest rank of any site; 0 for none.
    pub fn max_rank(&self) -> usize {
        self.sites.values().map(LowRank::rank).max().unwrap_or(0)
    }

    /// Host bytes of all factors.
    pub fn bytes(&self) -> usize {
        self.sites.values().map(LowRank::bytes).sum()
    }
}

impl FromIterator<(Site, LowRank)> for LoraWeights {
    fn from_iter<I: IntoIterator<Item = (Site, LowRank)>>(sites: I) -> Self {
        Self { sites: sites.into_iter().collect() }
    }
}
