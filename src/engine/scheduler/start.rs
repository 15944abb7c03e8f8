//! From the queue into the batch.
use super::super::{
    accounts::PROMPT_TOKEN, residency::Readiness, schedule::Schedule, sequence::Sequence,
};
use super::Scheduler;
use crate::adapter::VersionId;
use std::time::Instant;

impl Scheduler {
    /// Moves waiting sequences into the batch, as many as budget, places and blocks allow, and brings adapters for
    /// those that lack them. Those hold up nobody.
    pub(super) fn start_waiting(
        &mut self,
        budget: &mut usize,
        schedule: &mut Schedule,
        now: Instant,
    ) {
        if self.waiting.len() == 0 {
            return;
        }
        let kept_free = self.bring_overdue(schedule);
        let room = self.start_ready(budget, &kept_free, now);
        if kept_free.is_empty() {
            self.bring_waiting(!room, schedule);
        }
    }

    /// Starts those whose adapters are there, but for the versions of `kept_free`. `false`: there is no room for more.
    fn start_ready(&mut self, budget: &mut usize, kept_free: &[VersionId], now: Instant) -> bool {
        // Where sequences are computed whole: the one whose turn had come and that did not fit into the rest of the step
        // is first in the next, and those that do fit fill this one.
        let mut holds = false;
        while *budget > 0 {
            let can_start = |sequence: &Sequence| {
                self.residency.readiness(&sequence.adapters) == Readiness::Ready
                    && (self.prompt_rows > 0 || !sequence.reads_prompt())
                    && !(holds && sequence.tokens.len() > *budget)
                    && !sequence.versions().iter().any(|version| kept_free.contains(version))
            };
            let Some(index) = self.waiting.turn().next(&self.accounts, can_start) else {
                return self.running.len() < self.limits.max_sequences;
            };
            if self.limits.whole && self.waiting.turn().get(index).tokens.len() > *budget {
                self.waiting.hold(index);
                holds = true;
                continue;
            }
            let full = self.running.len() >= self.limits.max_sequences;
            if !full && self.start(index, *budget, now) {
                *budget -= self.running.last().map_or(0, |sequence| sequence.granted);
            } else if !self.make_way(index, budget) {
                // Whoever comes next would take away from it what is there.
                return false;
            }
        }
        false
    }

    /// Puts the youngest of the lowest sequences back where a higher one lacks its place. `false`: there is none.
    fn make_way(&mut self, index: usize, budget: &mut usize) -> bool {
        let own = self.waiting.turn().get(index).priority;
        let lower = self.running.iter().enumerate().filter(|(_, s)| s.priority > own);
        let Some((youngest, _)) = lower.max_by_key(|(_, s)| (s.priority, s.id)) else {
            return false;
        };
        self.preempt(youngest, budget);
        let sequence = self.running.remove(youngest);
        self.put_back(vec![sequence]);
        true
    }

    /// Moves the waiting sequence at `index`, whose adapters are there, into the batch. `false`: too few blocks.
    ///
    /// It starts only when all its tokens find blocks, or long prompts would throw each other out.
    fn start(&mut self, index: usize, budget: usize, now: Instant) -> bool {
        let block_size = self.limits.block_size;
        let sequence = self.waiting.turn().get(index);
        let length = sequence.tokens.len();
        let table = self.blocks.lookup(&sequence.prefix, sequence.skippable() / block_size);
        let missing = length.div_ceil(block_size) - table.len();
        if self.blocks.available() - self.blocks.free_among(&table) < missing {
            return false;
        }
        let cached = table.len() * block_size;
        let most = sequence.most_with(cached, self.prompt_rows);
        let granted = (length - cached).min(budget).min(most);
        self.blocks.share(&table);
        let fresh = (cached + granted).div_ceil(block_size) - table.len();
        let mut sequence = self.waiting.take(index);
        sequence.block_table.extend(table);
        let allocated = self.blocks.allocate(fresh, &mut sequence.block_table);
        assert!(allocated, "no more than `missing`");
        let claimed = self.residency.claim(&sequence.adapters, &mut sequence.slots);
        assert!(claimed, "only sequences whose adapters are there start");
        if sequence.start(cached, now) {
            self.totals.prefix_queries += sequence.prompt_len as u64;
            self.totals.prefix_hits += cached as u64;
            let tokens = PROMPT_TOKEN * (sequence.prompt_len - cached) as f64;
            self.accounts.charge(sequence.account, tokens, sequence.share);
        }
        self.accounts.start(sequence.account);
        sequence.granted = granted;
        self.prompt_rows -= sequence.prompt_rows().len();
        self.running.push(sequence);
        true
    }
}
