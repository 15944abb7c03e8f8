//! Who runs next. Pure bookkeeping: no tensors, no clocks, no channels but the sequences' own.
use super::{
    EngineError, EngineSnapshot,
    kv::BlockAllocator,
    names::rename,
    residency::{AdapterResidency, Claim},
    sampler::Choice,
    schedule::{Limits, Schedule},
    sequence::{Arrival, Sequence},
    waiting::{RunningCounts, WaitingQueue},
};
use crate::{
    adapter::{AdapterLease, VersionId},
    lora::AdapterSlot,
};
use std::{collections::HashSet, sync::Arc, time::Instant};

/// Every sequence, and who of them holds which blocks and slots.
#[derive(Debug)]
pub(super) struct Scheduler {
    limits: Limits,
    eos: Arc<[u32]>,
    arrivals: u64,
    waiting: WaitingQueue,
    /// In the order in which they started.
    running: Vec<Sequence>,
    blocks: BlockAllocator,
    residency: AdapterResidency,
    totals: EngineSnapshot,
}

/// Why a waiting sequence did not start.
enum Held {
    /// Every slot is in use; others may go on.
    NoSlot(VersionId),
    /// Too few blocks; whoever comes next would take them away from it.
    NoBlocks,
}

impl Scheduler {
    /// Nothing runs; `eos` are the model's end-of-sequence tokens.
    pub(super) fn new(limits: Limits, eos: Vec<u32>) -> Self {
        Self {
            // Every running sequence gets at least one token a step, or decoding would keep prompts waiting.
            limits: Limits {
                max_sequences: limits.max_sequences.min(limits.max_batched_tokens),
                ..limits
            },
            eos: eos.into(),
            arrivals: 0,
            waiting: WaitingQueue::default(),
            running: Vec::new(),
            blocks: BlockAllocator::new(limits.kv_blocks),
            residency: AdapterResidency::new(limits.adapter_slots),
            totals: EngineSnapshot::default(),
        }
    }

    /// Whether there is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.len() == 0 && self.running.is_empty()
    }

    /// One more that waits.
    pub(super) fn add(&mut self, arrival: Arrival) {
        let mut sequence = Sequence::new(self.arrivals, arrival, &self.eos);
        self.arrivals += 1;
        sequence.reserve(self.limits.max_positions, self.limits.block_size);
        if self.limits.prefix_cache {
            sequence.prefix.extend(&sequence.tokens, self.limits.block_size);
        }
        self.waiting.push(sequence);
    }

    /// Nobody can ask for `version` any more.
    pub(super) fn forget(&mut self, version: VersionId) {
        self.residency.forget(version);
        self.blocks.forget(version);
    }

    /// What the runner reads; [`Schedule::work`] points into it.
    pub(super) fn running(&self) -> &[Sequence] {
        &self.running
    }

    /// Plans one step: running sequences first, then waiting ones while budget, blocks and slots allow.
    pub(super) fn schedule(&mut self, schedule: &mut Schedule, now: Instant) {
        self.drop_over();
        schedule.clears = self.residency.sweep();
        schedule.loads.clear();
        let mut budget = self.limits.max_batched_tokens;
        if self.grant_running(&mut budget) {
            self.start_waiting(&mut budget, schedule, now);
        }
        self.guess(budget);
        schedule.work.clear();
        schedule.work.extend((0..self.running.len()).filter(|&i| self.running[i].granted > 0));
    }

    /// Answers first, so that nobody's next token waits for somebody's long prompt. `false`: blocks
    /// ran out, and somebody was put back.
    fn grant_running(&mut self, budget: &mut usize) -> bool {
        for answers in [true, false] {
            for index in 0..self.running.len() {
                let pending = self.running[index].pending();
                let granted = pending.min(*budget);
                let turn = (pending == 1) == answers;
                if turn && granted > 0 && self.reserve(index, granted, budget) {
                    self.running[index].granted = granted;
                    *budget -= granted;
                }
            }
        }
        let preempted: Vec<Sequence> =
            self.running.extract_if(.., |s| s.block_table.is_empty()).collect();
        let nobody = preempted.is_empty();
        self.put_back(preempted);
        nobody
    }

    /// What nobody needs of the step's tokens goes to guesses, where free blocks hold them.
    fn guess(&mut self, mut budget: usize) {
        let Limits { draft_tokens, block_size, max_positions, .. } = self.limits;
        for sequence in self.running.iter_mut().filter(|s| (s.granted, s.pending()) == (1, 1)) {
            let guessed = sequence.guess(draft_tokens.min(budget), max_positions);
            let needed = (sequence.computed + 1 + guessed).div_ceil(block_size);
            let missing = needed.saturating_sub(sequence.block_table.len());
            if !self.blocks.allocate(missing, &mut sequence.block_table) {
                sequence.draft.clear();
                continue;
            }
            sequence.granted += guessed;
            budget -= guessed;
            self.totals.draft_tokens += guessed as u64;
        }
    }

    /// Blocks for `more` tokens, taken from the youngest where none are free. `false`: it was the
    /// youngest itself.
    fn reserve(&mut self, index: usize, more: usize, budget: &mut usize) -> bool {
        let sequence = &self.running[index];
        if sequence.block_table.is_empty() {
            return false;
        }
        let needed = (sequence.computed + more).div_ceil(self.limits.block_size);
        let missing = needed.saturating_sub(sequence.block_table.len());
        loop {
            if self.blocks.allocate(missing, &mut self.running[index].block_table) {
                return true;
            }
            let holders =
                self.running.iter().enumerate().filter(|(_, s)| !s.block_table.is_empty());
            let Some((youngest, _)) = holders.max_by_key(|(_, s)| s.id) else { return false };
            self.preempt(youngest, budget);
            if youngest == index {
                return false;
            }
        }
    }

    /// Takes its blocks away; the empty block table marks it until the step's places are given out.
    fn preempt(&mut self, index: usize, budget: &mut usize) {
        let sequence = &mut self.running[index];
        *budget += std::mem::take(&mut sequence.granted);
        sequence.computed = 0;
        self.blocks.release(&sequence.block_table);
        sequence.block_table.clear();
        self.totals.preemptions += 1;
    }

    fn put_back(&mut self, mut preempted: Vec<Sequence>) {
        for sequence in &mut preempted {
            if let Some(slot) = sequence.slot.take() {
                self.residency.release(slot);
            }
        }
        preempted.sort_by_key(|sequence| sequence.id);
        self.waiting.put_back(preempted);
    }

    fn start_waiting(&mut self, budget: &mut usize, schedule: &mut Schedule, now: Instant) {
        if self.waiting.len() == 0 {
            return;
        }
        let mut without_slot = HashSet::new();
        let mut counts = RunningCounts::new();
        for sequence in &self.running {
            *counts.entry(sequence.version()).or_default() += 1;
        }
        while *budget > 0 && self.running.len() < self.limits.max_sequences {
            let Some(index) = self.waiting.next(&without_slot, &counts) else { break };
            match self.start(index, *budget, now) {
                Ok(load) => schedule.loads.extend(load),
                Err(Held::NoSlot(version)) => {
                    without_slot.insert(version);
                    continue;
                }
                Err(Held::NoBlocks) => break,
            }
            if let Some(sequence) = self.running.last() {
                *budget -= sequence.granted;
                *counts.entry(sequence.version()).or_default() += 1;
            }
        }
    }

    /// Moves the waiting sequence at `index` into the batch; the adapter to load for it, if any.
    ///
    /// It starts only when all its tokens find blocks, or long prompts would throw each other out.
    fn start(
        &mut self,
        index: usize,
        budget: usize,
        now: Instant,
    ) -> Result<Option<(AdapterSlot, AdapterLease)>, Held> {
        let block_size = self.limits.block_size;
        let sequence = self.waiting.get(index);
        let length = sequence.tokens.len();
        // At least one token is computed, or there would be no logits.
        let table = self.blocks.lookup(&sequence.prefix, (length - 1) / block_size);
        let missing = length.div_ceil(block_size) - table.len();
        if self.blocks.available() - self.blocks.free_among(&table) < missing {
            return Err(Held::NoBlocks);
        }
        let lease = sequence.adapter.clone();
        let claim = self.claim(lease.as_ref())?;

        let cached = table.len() * block_size;
        let granted = (length - cached).min(budget);
        self.blocks.share(&table);
        let fresh = (cached + granted).div_ceil(block_size) - table.len();
        let mut sequence = self.waiting.take(index);
        sequence.block_table.extend(table);
        let allocated = self.blocks.allocate(fresh, &mut sequence.block_table);
        assert!(allocated, "no more than `missing`");
        if sequence.start(cached, now) {
            self.totals.prefix_queries += sequence.prompt_len as u64;
            self.totals.prefix_hits += cached as u64;
        }
        sequence.granted = granted;
        sequence.slot = claim.map(|claim| claim.slot);
        self.running.push(sequence);
        let load = claim.filter(|claim| claim.load).map(|claim| claim.slot);
        Ok(load.zip(lease))
    }

    fn claim(&mut self, lease: Option<&AdapterLease>) -> Result<Option<Claim>, Held> {
        let Some(lease) = lease else { return Ok(None) };
        self.residency.claim(lease).map(Some).ok_or(Held::NoSlot(lease.id))
    }

    /// The adapter could not be copied to `slot`: whoever needs it there fails, the others go on.
    pub(super) fn fail_slot(&mut self, slot: AdapterSlot, schedule: &mut Schedule) {
        self.residency.discard(slot);
        for sequence in self.running.iter_mut().filter(|s| s.slot == Some(slot)) {
            sequence.fail(EngineError::Step);
        }
        schedule.work.retain(|&index| self.running[index].slot != Some(slot));
    }

    /// The step failed: so do the sequences that were in it.
    pub(super) fn fail_step(&mut self, work: &[usize]) {
        self.totals.failed_steps += 1;
        for &index in work {
            self.running[index].fail(EngineError::Step);
        }
        self.drop_over();
    }

    /// Nothing will run any more.
    pub(super) fn fail_all(&mut self, error: &EngineError) {
        for mut sequence in self.running.drain(..).chain(self.waiting.drain()) {
            sequence.fail(error.clone());
        }
    }

    /// Books the step's choices, in the order of `work` as many as each wants, and tells the callers.
    pub(super) fn commit(
        &mut self,
        work: &[usize],
        choices: impl IntoIterator<Item = Option<Choice>>,
    ) {
        let mut choices = choices.into_iter();
        for &index in work {
            let sequence = &mut self.running[index];
            let (rows, pending) = (sequence.choices(), sequence.pending());
            let granted = std::mem::take(&mut sequence.granted);
            if rows == 0 {
                self.book_computed(index, granted);
                continue;
            }
            let mut wanted = choices.by_ref().take(rows);
            // Behind a row without a choice nothing is chosen; if the answer really gets there, that row is
            // computed again and fails then.
            let chosen = wanted.by_ref().map_while(|choice| choice);
            let taken = sequence.accept_all(chosen, self.limits.max_positions);
            wanted.for_each(drop);
            if taken == 0 {
                sequence.fail(EngineError::Step);
                continue;
            }
            self.totals.generated_tokens += taken as u64;
            self.totals.accepted_draft_tokens += taken as u64 - 1;
            // Behind a wrong guess nothing counts as computed: those positions are written again.
            self.book_computed(index, pending + taken - 1);
        }
        self.totals.steps += 1;
        self.drop_over();
    }

    fn book_computed(&mut self, index: usize, more: usize) {
        let block_size = self.limits.block_size;
        let sequence = &mut self.running[index];
        let before = sequence.computed;
        sequence.computed += more;
        let (after, prompt) = (sequence.computed, sequence.prompt_len);
        self.totals.prompt_tokens += (after.min(prompt) - before.min(prompt)) as u64;
        if !self.limits.prefix_cache {
            return;
        }
        sequence.prefix.extend(&sequence.tokens, block_size);
        for full in before / block_size..after / block_size {
            self.blocks.register(sequence.block_table[full], &sequence.prefix, full);
        }
    }

    /// Takes blocks and slots back from those who ended or whose callers have gone.
    fn drop_over(&mut self) {
        self.waiting.drop_over();
        for sequence in self.running.extract_if(.., |s| s.is_over()) {
            self.blocks.release(&sequence.block_table);
            if let Some(slot) = sequence.slot {
                self.residency.release(slot);
            }
        }
    }

    /// Brings `snapshot` up to date; bytes and the like are the runner's to add.
    pub(super) fn report(&self, snapshot: &mut EngineSnapshot) {
        let leases = self.waiting.iter().filter_map(|sequence| sequence.adapter.as_ref());
        rename(&mut snapshot.resident_adapters, self.residency.names());
        rename(&mut snapshot.waiting_adapters, leases.map(|lease| &lease.name));
        *snapshot = EngineSnapshot {
            running: self.running.len(),
            waiting: self.waiting.len(),
            kv_blocks_used: self.blocks.used(),
            kv_blocks: self.limits.kv_blocks,
            block_size: self.limits.block_size,
            kv_bytes: snapshot.kv_bytes,
            resident_adapters: std::mem::take(&mut snapshot.resident_adapters),
            waiting_adapters: std::mem::take(&mut snapshot.waiting_adapters),
            adapter_slots: self.residency.capacity(),
            ..self.totals.clone()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        Event, EventStream, FinishReason,
        sampler::Choice,
        testing::{arrival, lease, said},
    };
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        max_sequences: 4,
        max_batched_tokens: 8,
        adapter_slots: 2,
        block_size: 2,
        kv_blocks: 16,
        max_positions: 100,
        draft_tokens: 0,
        prefix_cache: true,
    };

    fn scheduler(limits: Limits) -> Scheduler {
        Scheduler::new(limits, vec![0])
    }

    fn add(
        scheduler: &mut Scheduler,
        prompt: &[u32],
        adapter: Option<&str>,
        n: usize,
    ) -> EventStream {
        let (arrival, stream) = arrival(prompt.to_vec(), adapter.map(lease), n);
        scheduler.add(arrival);
        stream
    }

    /// The next token of a model that looks at everything before.
    fn next_token(tokens: &[u32]) -> u32 {
        tokens.iter().fold(7, |sum: u32, token| sum.wrapping_mul(31).wrapping_add(*token)) % 50 + 1
    }

    /// One step of that model: how many tokens each sequence computed, by arrival.
    fn step(scheduler: &mut Scheduler) -> Vec<(u64, usize)> {
        step_of(scheduler, next_token)
    }

    /// One step of any model.
    fn step_of(scheduler: &mut Scheduler, next_token: fn(&[u32]) -> u32) -> Vec<(u64, usize)> {
        let mut schedule = Schedule::default();
        scheduler.schedule(&mut schedule, Instant::now());
        let worked = |&index: &usize| &scheduler.running()[index];
        let granted = schedule.work.iter().map(worked).map(|s| (s.id, s.granted)).collect();
        let choices = schedule.work.iter().map(worked).flat_map(|sequence| {
            assert!(
                sequence.block_table.len() * LIMITS.block_size
                    >= sequence.computed + sequence.granted
            );
            let mut known = sequence.tokens.clone();
            let choices = (0..sequence.choices()).map(|ahead| {
                let id = next_token(&known);
                known.extend(sequence.draft.tokens().get(ahead));
                Some(Choice { id, logprobs: None })
            });
            choices.collect::<Vec<_>>()
        });
        let choices: Vec<_> = choices.collect();
        scheduler.commit(&schedule.work, choices);
        granted
    }

    fn snapshot(scheduler: &Scheduler) -> EngineSnapshot {
        let mut snapshot = EngineSnapshot::default();
        scheduler.report(&mut snapshot);
        snapshot
    }

    fn tokens(events: &[Event]) -> Vec<u32> {
        let token = |event: &Event| match event {
            Event::Token { id, .. } => Some(*id),
            _ => None,
        };
        events.iter().filter_map(token).collect()
    }

    fn expected(prompt: &[u32], n: usize) -> Vec<u32> {
        let mut all = prompt.to_vec();
        (0..n).for_each(|_| all.push(next_token(&all)));
        all.split_off(prompt.len())
    }

    #[test]
    fn answers_go_on_while_a_long_prompt_comes_in_pieces() {
        let mut scheduler = scheduler(LIMITS);
        let _short = add(&mut scheduler, &[1], None, 9);
        step(&mut scheduler);
        let mut long = add(&mut scheduler, &[2; 17], None, 1);
        assert_eq!(step(&mut scheduler), [(0, 1), (1, 7)]);
        assert_eq!(step(&mut scheduler), [(0, 1), (1, 7)]);
        assert!(tokens(&said(&mut long)).is_empty());
        assert_eq!(step(&mut scheduler), [(0, 1), (1, 3)]);
        assert_eq!(tokens(&said(&mut long)), expected(&[2; 17], 1));
    }

    #[test]
    fn a_known_beginning_is_not_computed_again() {
        let mut scheduler = scheduler(LIMITS);
        let prompt = [1, 2, 3, 4, 5];
        for (adapter, computed) in [(None, 5), (None, 1), (Some("a"), 5), (Some("a"), 1)] {
            let mut stream = add(&mut scheduler, &prompt, adapter, 1);
            let granted = step(&mut scheduler);
            assert_eq!(granted[0].1, computed);
            let events = said(&mut stream);
            assert_eq!(tokens(&events), expected(&prompt, 1));
            let [Event::Started { cached_tokens, .. }, .., Event::Finished { reason }] =
                &events[..]
            else {
                panic!("{events:?}")
            };
            assert_eq!((*cached_tokens, *reason), (5 - computed, FinishReason::Length));
        }
        let snapshot = snapshot(&scheduler);
        assert_eq!((snapshot.prefix_queries, snapshot.prefix_hits), (20, 8));
        assert_eq!((snapshot.prompt_tokens, snapshot.generated_tokens), (12, 4));
        assert_eq!(snapshot.kv_blocks_used, 0);
    }

    #[test]
    fn the_youngest_gives_way_and_says_the_same_afterwards() {
        let mut scheduler = scheduler(Limits { kv_blocks: 6, prefix_cache: false, ..LIMITS });
        let mut streams: Vec<_> = (1..4).map(|t| add(&mut scheduler, &[t; 3], None, 8)).collect();
        while !scheduler.is_idle() {
            step(&mut scheduler);
        }
        assert!(snapshot(&scheduler).preemptions > 0);
        for (stream, t) in streams.iter_mut().zip(1..) {
            let events = said(stream);
            assert_eq!(tokens(&events), expected(&[t; 3], 8));
            let starts = events.iter().filter(|event| matches!(event, Event::Started { .. }));
            assert_eq!(starts.count(), 1, "however often it began again");
        }
    }

    #[test]
    fn guesses_change_how_fast_an_answer_comes_and_nothing_else() {
        // Counts to six over and over, and stumbles now and then.
        let next: fn(&[u32]) -> u32 =
            |tokens| (tokens.len() as u32 + tokens.len() as u32 / 23) % 6 + 1;
        let mut runs = Vec::new();
        for draft_tokens in [0, 1, 4] {
            let mut scheduler = scheduler(Limits { draft_tokens, kv_blocks: 99, ..LIMITS });
            let mut stream = add(&mut scheduler, &[1, 2, 3], None, 80);
            let mut steps = 0;
            while !scheduler.is_idle() {
                step_of(&mut scheduler, next);
                steps += 1;
            }
            let totals = snapshot(&scheduler);
            assert_eq!(totals.generated_tokens, 80);
            assert_eq!(steps + totals.accepted_draft_tokens, 80, "one for each that was guessed");
            assert!(totals.accepted_draft_tokens <= totals.draft_tokens);
            runs.push((steps, tokens(&said(&mut stream))));
        }
        assert!(runs.iter().all(|run| run.1 == runs[0].1), "{runs:?}");
        assert!(runs[0].0 > runs[1].0 + 20 && runs[1].0 > runs[2].0 + 10, "{runs:?}");
    }

    #[test]
    fn one_without_a_slot_lets_others_pass() {
        let mut scheduler = scheduler(Limits { adapter_slots: 1, ..LIMITS });
        let _first = add(&mut scheduler, &[1], Some("a"), 5);
        let _second = add(&mut scheduler, &[1], Some("b"), 5);
        let _third = add(&mut scheduler, &[1], None, 5);
        assert_eq!(step(&mut scheduler), [(0, 1), (2, 1)]);
    }

    #[test]
    fn a_failed_load_fails_only_its_own() {
        let mut scheduler = scheduler(LIMITS);
        let mut failed = add(&mut scheduler, &[1], Some("a"), 5);
        let mut fine = add(&mut scheduler, &[1], None, 5);
        let mut schedule = Schedule::default();
        scheduler.schedule(&mut schedule, Instant::now());
        let (slot, _) = schedule.loads[0];
        scheduler.fail_slot(slot, &mut schedule);
        assert_eq!(schedule.work.len(), 1);
        while !scheduler.is_idle() {
            step(&mut scheduler);
        }
        assert!(matches!(
            said(&mut failed)[..],
            [Event::Started { .. }, Event::Failed(EngineError::Step)]
        ));
        assert_eq!(tokens(&said(&mut fine)).len(), 5);
    }

    proptest! {
        #[test]
        fn every_sequence_ends_right_and_all_blocks_return(
            arrivals in prop::collection::vec(
                (0_usize..4, prop::collection::vec(1_u32..3, 1..14), 0_usize..5, 1_usize..10),
                1..30,
            ),
            (kv_blocks, max_batched_tokens, draft_tokens) in (12_usize..20, 1_usize..9, 0_usize..4),
            cancel_every in 2_usize..6,
        ) {
            let mut scheduler = scheduler(Limits { max_batched_tokens, kv_blocks, draft_tokens, ..LIMITS });
            let mut streams = Vec::new();
            for (at, (steps, prompt, adapter, n)) in arrivals.into_iter().enumerate() {
                let adapter = ["a", "b", "c", "d"].get(adapter).copied();
                let stream = add(&mut scheduler, &prompt, adapter, n);
                (0..steps).for_each(|_| drop(step(&mut scheduler)));
                let stays = at % cancel_every != 0;
                streams.extend(stays.then_some((stream, prompt, n)));
            }
            let mut steps = 0;
            while !scheduler.is_idle() {
                let granted: usize = step(&mut scheduler).iter().map(|(_, n)| n).sum();
                prop_assert!(granted <= max_batched_tokens);
                steps += 1;
                prop_assert!(steps < 10_000, "nothing moves");
            }
            for (mut stream, prompt, n) in streams {
                let events = said(&mut stream);
                let finished = matches!(events.last(), Some(Event::Finished { .. }));
                prop_assert!(finished, "{:?}", events);
                prop_assert_eq!(tokens(&events), expected(&prompt, n));
            }
            prop_assert_eq!(scheduler.blocks.available(), kv_blocks);
            let unused = |name| scheduler.residency.claim(&lease(name)).is_some();
            prop_assert!(["x", "y"].into_iter().all(unused), "a slot is still in use");
        }
    }
}
