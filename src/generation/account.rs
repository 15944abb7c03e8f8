//! Who answers a request, and under whose names it is counted.
use super::ServedAdapter;
use crate::{
    adapter::{AdapterLease, Ledger},
    telemetry::{AdapterCounts, Metrics},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

/// Where one prompt and its answers are counted: in the metrics, and in the ledger of each adapter. Clones count
/// in the same place.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) metrics: Metrics,
    adapters: Arc<[(AdapterCounts, Arc<Ledger>)]>,
    /// None of texts that are only read.
    longest: Option<Arc<Longest>>,
}

/// The length of the longest answer, which goes to the metrics with the last one.
struct Longest {
    metrics: Metrics,
    tokens: AtomicUsize,
}

impl Drop for Longest {
    fn drop(&mut self) {
        self.metrics.longest_answer(*self.tokens.get_mut());
    }
}

impl Account {
    /// The account of a prompt that these adapters answer. Nothing is counted yet.
    pub(super) fn new(metrics: Metrics, leases: &[(AdapterLease, f32)]) -> Self {
        let longest = Longest { metrics: metrics.clone(), tokens: AtomicUsize::new(0) };
        Self { longest: Some(Arc::new(longest)), ..Self::of_reading(metrics, leases) }
    }

    /// The account of texts that these adapters read. Nothing is counted yet.
    pub(super) fn of_reading(metrics: Metrics, leases: &[(AdapterLease, f32)]) -> Self {
        let mut leases: Vec<&AdapterLease> = leases.iter().map(|(lease, _)| lease).collect();
        // A name counts once, however many of its versions a mix has.
        leases.sort_by(|a, b| a.name.cmp(&b.name));
        leases.dedup_by(|a, b| a.name == b.name);
        let counted = |lease: &AdapterLease| {
            (metrics.of_adapter(lease.name.as_str()), Arc::clone(&lease.ledger))
        };
        let mut adapters: Vec<_> = leases.into_iter().map(counted).collect();
        if adapters.is_empty() {
            adapters.push((metrics.of_adapter(""), Arc::default()));
        }
        Self { adapters: adapters.into(), longest: None, metrics }
    }

    /// The engine took the prompt; it is to have so many answers of at most so many tokens.
    pub(super) fn accepted(&self, prompt_tokens: usize, answers: usize, max_tokens: usize) {
        self.metrics.asked(answers, max_tokens);
        self.reads(prompt_tokens);
    }

    /// The engine took a text to read, or a prompt.
    pub(super) fn reads(&self, prompt_tokens: usize) {
        let now = SystemTime::now();
        for (counts, ledger) in self.adapters.iter() {
            counts.accepted(prompt_tokens);
            ledger.begin(prompt_tokens, now);
        }
    }

    pub(super) fn cached(&self, tokens: usize) {
        self.adapters.iter().for_each(|(_, ledger)| ledger.cached(tokens));
    }

    pub(super) fn first_token(&self, waited: Duration) {
        self.metrics.first_token(waited);
        self.adapters.iter().for_each(|(counts, _)| counts.first_token(waited));
    }

    pub(super) fn generated(&self, tokens: usize) {
        if let Some(longest) = &self.longest {
            longest.tokens.fetch_max(tokens, Ordering::Relaxed);
        }
        for (counts, ledger) in self.adapters.iter() {
            counts.generated(tokens);
            ledger.generated(tokens);
        }
    }

    pub(super) fn failed(&self) {
        for (counts, ledger) in self.adapters.iter() {
            counts.failed();
            ledger.failed();
        }
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
