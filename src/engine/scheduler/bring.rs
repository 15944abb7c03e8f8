//! Adapters for sequences that wait: on their way before the batch has room for whoever needs them.
use super::super::{residency::Readiness, schedule::Schedule, sequence::Sequence};
use super::Scheduler;
use crate::adapter::VersionId;
use std::collections::HashSet;

impl Scheduler {
    /// Enough to keep a loader busy; the rest are chosen when it is their turn.
    const MAX_LOADING: usize = 2;

    /// For an overdue sequence: its adapters are put on their way, whatever else waits. Where no slot is free for
    /// them, these versions take no new sequences until one is.
    pub(super) fn bring_overdue(&mut self, schedule: &mut Schedule) -> Vec<VersionId> {
        let Some(first) = self.waiting.turn().overdue() else { return Vec::new() };
        if self.residency.readiness(&first.adapters) != Readiness::Missing {
            return Vec::new();
        }
        match self.residency.bring_or_hold(&first.adapters) {
            Ok(loads) => {
                schedule.loads.extend(loads);
                Vec::new()
            }
            Err(kept_free) => kept_free,
        }
    }

    /// In the order of turns. Nothing is evicted that can start now, is on its way, or that somebody with an earlier
    /// turn needs: whose adapters are there goes first, and an adapter that is loaded again and again serves nobody.
    pub(super) fn bring_waiting(&mut self, early: bool, schedule: &mut Schedule) {
        let Self { waiting, residency, accounts, totals, .. } = self;
        if !residency.has_unused() || residency.loading() >= Self::MAX_LOADING {
            return;
        }
        let (mut missing, mut kept): (Vec<&Sequence>, HashSet<VersionId>) = Default::default();
        for sequence in waiting.turn().iter() {
            if residency.readiness(&sequence.adapters) == Readiness::Missing {
                missing.push(sequence);
            } else {
                kept.extend(sequence.versions().iter());
            }
        }
        missing.sort_by(|a, b| accounts.turn(a.account).cmp(&accounts.turn(b.account)));
        for sequence in missing {
            if residency.loading() >= Self::MAX_LOADING {
                return;
            }
            let is_missing = residency.readiness(&sequence.adapters) == Readiness::Missing;
            let parts = &sequence.adapters;
            let loads = is_missing.then(|| residency.bring(parts, |v| kept.contains(&v))).flatten();
            let loads = loads.unwrap_or_default();
            totals.adapter_prefetches += if early { loads.len() as u64 } else { 0 };
            schedule.loads.extend(loads);
            kept.extend(sequence.versions().iter());
        }
    }
}
