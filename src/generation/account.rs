//! Who answers a request, and under whose names it is counted.
use super::ServedAdapter;
use crate::{
    adapter::{AdapterLease, AdapterName, Ledger},
    telemetry::Metrics,
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Where one prompt and its answers are counted: in the metrics, and in the ledger of each adapter. Clones count
/// in the same place.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) metrics: Metrics,
    adapters: Arc<[(AdapterName, Arc<Ledger>)]>,
}

impl Account {
    /// The account of a prompt that these adapters answer. Nothing is counted yet.
    pub(super) fn new(metrics: Metrics, leases: &[(AdapterLease, f32)]) -> Self {
        let counted = |(lease, _): &(AdapterLease, f32)| (lease.name.clone(), lease.ledger.clone());
        let mut adapters: Vec<_> = leases.iter().map(counted).collect();
        // A name counts once, however many of its versions a mix has.
        adapters.sort_by(|a, b| a.0.cmp(&b.0));
        adapters.dedup_by(|a, b| a.0 == b.0);
        Self { metrics, adapters: adapters.into() }
    }

    /// The engine took the prompt.
    pub(super) fn accepted(&self, prompt_tokens: usize) {
        self.metrics.request_started(self.adapters.iter().map(|(name, _)| name.as_str()));
        let now = SystemTime::now();
        self.each(|_, ledger| ledger.begin(prompt_tokens, now));
    }

    pub(super) fn cached(&self, tokens: usize) {
        self.each(|_, ledger| ledger.cached(tokens));
    }

    pub(super) fn first_token(&self, waited: Duration) {
        self.metrics.first_token(waited);
    }

    pub(super) fn generated(&self, tokens: usize) {
        self.each(|_, ledger| ledger.generated(tokens));
    }

    pub(super) fn failed(&self) {
        self.each(|_, ledger| ledger.failed());
    }

    fn each(&self, count: impl Fn(&str, &Ledger)) {
        self.adapters.iter().for_each(|(name, ledger)| count(name.as_str(), ledger));
    }
}

/// What changes the base: each version of a name once, in the request's order, without those that come to nothing.
pub(super) fn served(leases: &[(AdapterLease, f32)]) -> Vec<(AdapterLease, f32)> {
    let mut served: Vec<(AdapterLease, f32)> = Vec::with_capacity(leases.len());
    for (lease, weight) in leases {
        let same = |(other, _): &&mut (AdapterLease, f32)| {
            other.name == lease.name && other.id == lease.id
        };
        match served.iter_mut().find(same) {
            Some((_, sum)) => *sum += weight,
            None => served.push((lease.clone(), *weight)),
        }
    }
    served.retain(|(_, weight)| *weight != 0.0);
    served
}

/// The same, as clients are told.
pub(super) fn told(served: &[(AdapterLease, f32)]) -> Vec<ServedAdapter> {
    let told = |(lease, weight): &(AdapterLease, f32)| ServedAdapter {
        name: lease.name.clone(),
        version: lease.id,
        weight: *weight,
    };
    served.iter().map(told).collect()
}
