//! Tokens and blocks for the sequences that run.
use super::super::{
    Priority::{Low, Normal, Shadow},
    schedule::Limits,
    sequence::Sequence,
};
use super::Scheduler;

impl Scheduler {
    /// Answers first, so that nobody's next token waits for somebody's long prompt, and normal ones before low ones.
    /// `false`: blocks ran out, and somebody was put back.
    pub(super) fn grant_running(&mut self, budget: &mut usize) -> bool {
        let turns = [true, false].map(|answers| [Normal, Low, Shadow].map(|who| (answers, who)));
        for turn in turns.into_iter().flatten() {
            for index in 0..self.running.len() {
                let sequence = &self.running[index];
                let pending = sequence.pending();
                let most = sequence.most_with(sequence.computed, self.prompt_rows);
                let granted = pending.min(*budget).min(most);
                if turn == (pending == 1, sequence.priority)
                    && granted > 0
                    && self.reserve(index, granted, budget)
                {
                    self.running[index].granted = granted;
                    *budget -= granted;
                    self.prompt_rows -= self.running[index].prompt_rows().len();
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
    pub(super) fn guess(&mut self, mut budget: usize) {
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

    /// Blocks for `more` tokens, taken from the youngest of low priority, or else the youngest, where none are free.
    /// `false`: it was that one itself.
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
            let Some((youngest, _)) = holders.max_by_key(|(_, s)| (s.priority, s.id)) else {
                return false;
            };
            self.preempt(youngest, budget);
            if youngest == index {
                return false;
            }
        }
    }

    /// Takes its blocks away; the empty block table marks it until the step's places are given out.
    pub(super) fn preempt(&mut self, index: usize, budget: &mut usize) {
        let sequence = &mut self.running[index];
        *budget += std::mem::take(&mut sequence.granted);
        sequence.computed = 0;
        self.blocks.release(&sequence.block_table);
        sequence.block_table.clear();
        self.totals.preemptions += 1;
    }

    /// To the front of the queue.
    pub(super) fn put_back(&mut self, mut preempted: Vec<Sequence>) {
        for sequence in &mut preempted {
            self.accounts.put_back(sequence.account);
            sequence.slots.drain(..).for_each(|slot| self.residency.release(slot));
        }
        preempted.sort_by_key(|sequence| sequence.id);
        self.waiting.put_back(preempted);
    }
}
