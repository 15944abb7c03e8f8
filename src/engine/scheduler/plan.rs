//! The scheduler's books, and the order in which a step is planned.
use super::super::{
    EngineError, EngineSnapshot,
    accounts::{Accounts, PROMPT_TOKEN},
    kv::BlockAllocator,
    names::rename,
    residency::{AdapterResidency, Readiness},
    schedule::{Limits, Schedule},
    sequence::{Arrival, Sequence},
    waiting::WaitingQueue,
};
use crate::{
    adapter::{AdapterLease, AdapterName, VersionId},
    lora::{AdapterSlot, ResidentForm},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Every sequence, and who of them holds which blocks and slots.
#[derive(Debug)]
pub(in crate::engine) struct Scheduler {
    pub(super) limits: Limits,
    eos: Arc<[u32]>,
    arrivals: u64,
    pub(super) waiting: WaitingQueue,
    pub(super) accounts: Accounts,
    /// Versions whose sequences, under that name, fail then.
    ends: Vec<(AdapterName, VersionId, Instant)>,
    /// In the order in which they started.
    pub(super) running: Vec<Sequence>,
    pub(super) blocks: BlockAllocator,
    pub(super) residency: AdapterResidency,
    /// Rows of prompts' logits that are left in the step being planned.
    pub(super) prompt_rows: usize,
    /// What adapters become in their slots.
    form: ResidentForm,
    pub(super) totals: EngineSnapshot,
}

impl Scheduler {
    /// Nothing runs; `eos` are the model's end-of-sequence tokens.
    pub(in crate::engine) fn new(limits: Limits, eos: Vec<u32>, form: ResidentForm) -> Self {
        Self {
            // Every running sequence gets at least one token a step, or decoding would keep prompts waiting.
            limits: Limits {
                max_sequences: limits.max_sequences.min(limits.max_batched_tokens),
                ..limits
            },
            eos: eos.into(),
            arrivals: 0,
            waiting: WaitingQueue::default(),
            accounts: Accounts::default(),
            ends: Vec::new(),
            running: Vec::new(),
            blocks: BlockAllocator::new(limits.kv_blocks),
            residency: AdapterResidency::new(limits.adapter_slots, limits.adapter_bytes),
            prompt_rows: limits.prompt_rows,
            form,
            totals: EngineSnapshot::default(),
        }
    }

    /// Whether there is nothing to do.
    pub(in crate::engine) fn is_idle(&self) -> bool {
        self.waiting.len() == 0 && self.running.is_empty()
    }

    /// One more that waits.
    pub(in crate::engine) fn add(&mut self, arrival: Arrival) {
        let parts = arrival.submission.adapters.parts().iter();
        let account = self.accounts.arrive(parts.map(|part| &part.lease));
        let mut sequence = Sequence::new(self.arrivals, arrival, &self.eos);
        sequence.account = account;
        for part in &mut sequence.adapters {
            part.bytes = self.form.estimate(&part.lease.weights);
        }
        self.arrivals += 1;
        sequence.reserve(self.limits.max_positions, self.limits.block_size);
        if self.limits.prefix_cache {
            sequence.prefix.extend(&sequence.tokens, self.limits.block_size);
        }
        self.waiting.push(sequence);
    }

    /// Nobody can ask for `version` any more.
    pub(in crate::engine) fn forget(&mut self, version: VersionId) {
        self.residency.forget(version);
        self.blocks.forget(version);
    }

    /// Sequences of `version` under `name` fail: those of now at once, or those that were there before a given time and
    /// still are.
    pub(in crate::engine) fn end(
        &mut self,
        name: AdapterName,
        version: VersionId,
        at: Option<Instant>,
    ) {
        match at {
            Some(at) => self.ends.push((name, version, at)),
            None => self.replace(&name, version, None),
        }
    }

    fn replace(&mut self, name: &AdapterName, version: VersionId, before: Option<Instant>) {
        self.fail_those(|sequence, lease| {
            let is_meant = lease.id == version
                && lease.name == *name
                && before.is_none_or(|before| sequence.submitted <= before);
            is_meant.then(|| EngineError::AdapterReplaced { name: name.to_string() })
        });
    }

    /// Ends every sequence that has an adapter which `error` says so of.
    fn fail_those(&mut self, error: impl Fn(&Sequence, &AdapterLease) -> Option<EngineError>) {
        for sequence in self.running.iter_mut().chain(self.waiting.iter_mut()) {
            let found = sequence.adapters.iter().find_map(|part| error(sequence, &part.lease));
            if let Some(error) = found {
                sequence.fail(error);
            }
        }
    }

    /// When the next sequences have to fail.
    pub(in crate::engine) fn next_end(&self) -> Option<Instant> {
        self.ends.iter().map(|(_, _, at)| *at).min()
    }

    fn end_due(&mut self, now: Instant) {
        while let Some(due) = self.ends.iter().position(|(_, _, at)| *at <= now) {
            let (name, version, at) = self.ends.swap_remove(due);
            self.replace(&name, version, Some(at));
        }
    }

    /// Whether each sequence is computed in one step.
    pub(in crate::engine) fn reads_whole(&self) -> bool {
        self.limits.whole
    }

    /// What the runner reads; [`Schedule::work`] points into it.
    pub(in crate::engine) fn running(&self) -> &[Sequence] {
        &self.running
    }

    /// Plans one step: running sequences first, then waiting ones while budget, blocks and slots allow.
    pub(in crate::engine) fn schedule(&mut self, schedule: &mut Schedule, now: Instant) {
        self.prompt_rows = self.limits.prompt_rows;
        self.end_due(now);
        self.drop_over();
        self.residency.sweep();
        schedule.loads.clear();
        let mut budget = self.limits.max_batched_tokens;
        if self.grant_running(&mut budget) {
            self.start_waiting(&mut budget, schedule, now);
        }
        self.residency.take_vacated(&mut schedule.clears);
        self.guess(budget);
        schedule.work.clear();
        schedule.work.extend((0..self.running.len()).filter(|&i| self.running[i].granted > 0));
    }

    /// Whether adapters are on their way.
    pub(in crate::engine) fn awaits_adapters(&self) -> bool {
        self.residency.loading() > 0
    }

    /// What was on its way to `slot` is there, with so many bytes.
    pub(in crate::engine) fn loaded(&mut self, slot: AdapterSlot, bytes: usize, took: Duration) {
        let version = self.residency.version(slot);
        for sequence in self.waiting.iter_mut() {
            let parts = sequence.adapters.iter_mut();
            parts.filter(|p| Some(p.lease.id) == version).for_each(|part| part.bytes = bytes);
        }
        let waiting = self.waiting.iter();
        let needed = |version| waiting.clone().any(|s| s.versions().contains(&version));
        self.residency.loaded(slot, bytes, needed);
        self.totals.adapter_loads += 1;
        self.totals.adapter_load_time += took;
    }

    /// What was on its way to `slot` does not come: whoever waits for it fails, the others go on.
    pub(in crate::engine) fn load_failed(&mut self, slot: AdapterSlot) {
        self.totals.failed_adapter_loads += 1;
        if let Some(version) = self.residency.failed(slot) {
            self.fail_those(|_, lease| {
                let name = || lease.name.to_string();
                (lease.id == version).then(|| EngineError::AdapterLoad { name: name() })
            });
        }
    }

    /// The step failed: so do the sequences that were in it.
    pub(in crate::engine) fn fail_step(&mut self, work: &[usize]) {
        self.totals.failed_steps += 1;
        for &index in work {
            self.running[index].fail(EngineError::Step);
        }
        self.drop_over();
    }

    /// Nothing will run any more.
    pub(in crate::engine) fn fail_all(&mut self, error: &EngineError) {
        for mut sequence in self.running.drain(..).chain(self.waiting.drain()) {
            sequence.fail(error.clone());
        }
        self.accounts = Accounts::default();
    }

    /// Takes blocks and slots back from those who ended or whose callers have gone.
    pub(super) fn drop_over(&mut self) {
        let Self { waiting, accounts, .. } = self;
        waiting.drop_over(|sequence| accounts.leave(sequence.account));
        for sequence in self.running.extract_if(.., |s| s.is_over()) {
            // Of a prompt that is not wanted any more, what was not computed was booked too early.
            let rest = sequence.prompt_len.saturating_sub(sequence.computed);
            accounts.charge(sequence.account, -PROMPT_TOKEN * rest as f64, sequence.share);
            accounts.end(sequence.account);
            self.blocks.release(&sequence.block_table);
            sequence.slots.iter().for_each(|slot| self.residency.release(*slot));
        }
    }

    fn is_ready(&self, sequence: &Sequence) -> bool {
        self.residency.readiness(&sequence.adapters) == Readiness::Ready
    }

    /// Brings `snapshot` up to date; bytes and the like are the runner's to add.
    pub(in crate::engine) fn report(&self, snapshot: &mut EngineSnapshot) {
        let waiting = self.waiting.iter().flat_map(|sequence| &sequence.adapters);
        rename(&mut snapshot.resident_adapters, self.residency.names());
        if !self.residency.versions().eq(snapshot.resident_versions.iter().copied()) {
            snapshot.resident_versions.clear();
            snapshot.resident_versions.extend(self.residency.versions());
        }
        rename(&mut snapshot.waiting_adapters, waiting.map(|part| &part.lease.name));
        *snapshot = EngineSnapshot {
            running: self.running.len(),
            waiting: self.waiting.len(),
            waiting_for_adapters: self.waiting.iter().filter(|one| !self.is_ready(one)).count(),
            kv_blocks_used: self.blocks.used(),
            kv_blocks: self.limits.kv_blocks,
            block_size: self.limits.block_size,
            kv_bytes: snapshot.kv_bytes,
            resident_adapters: std::mem::take(&mut snapshot.resident_adapters),
            waiting_adapters: std::mem::take(&mut snapshot.waiting_adapters),
            resident_versions: std::mem::take(&mut snapshot.resident_versions),
            adapter_slots: self.residency.capacity(),
            adapter_slots_used: self.residency.used(),
            adapter_bytes: self.residency.bytes(),
            adapter_evictions: self.residency.evictions(),
            ..self.totals.clone()
        };
    }
}
