//! From the queue into the batch.
use super::super::{
    Priority, accounts::PROMPT_TOKEN, mix::Versions, schedule::Schedule, sequence::Sequence,
};
use super::Scheduler;
use crate::{adapter::AdapterLease, lora::AdapterSlot};
use std::{collections::HashSet, time::Instant};

/// Why a waiting sequence did not start.
enum Held {
    /// Too many slots are in use; others may go on.
    NoSlot(Versions),
    /// Too few blocks, or the batch is full; whoever comes next would take away from it what is there.
    NoPlace,
}

impl Scheduler {
    /// Moves waiting sequences into the batch, as many as budget, blocks and slots allow.
    pub(super) fn start_waiting(
        &mut self,
        budget: &mut usize,
        schedule: &mut Schedule,
        now: Instant,
    ) {
        if self.waiting.len() == 0 {
            return;
        }
        let mut without_slot: HashSet<Versions> = HashSet::new();
        while *budget > 0 {
            let can_start = |s: &Sequence| !without_slot.contains(s.versions());
            let Some(index) = self.waiting.turn().next(&self.accounts, can_start) else { break };
            let full = self.running.len() >= self.limits.max_sequences;
            let held = if full { Err(Held::NoPlace) } else { self.start(index, *budget, now) };
            match held {
                Ok(loads) => schedule.loads.extend(loads),
                Err(Held::NoSlot(versions)) => {
                    without_slot.insert(versions);
                    continue;
                }
                Err(Held::NoPlace) if self.make_way(index, budget) => continue,
                Err(Held::NoPlace) => break,
            }
            if let Some(sequence) = self.running.last() {
                *budget -= sequence.granted;
            }
        }
    }

    /// Puts the youngest low sequence back where a normal one lacks its place. `false`: there is none.
    fn make_way(&mut self, index: usize, budget: &mut usize) -> bool {
        if self.waiting.turn().get(index).priority == Priority::Low {
            return false;
        }
        let low = self.running.iter().enumerate().filter(|(_, s)| s.priority == Priority::Low);
        let Some((youngest, _)) = low.max_by_key(|(_, s)| s.id) else { return false };
        self.preempt(youngest, budget);
        let sequence = self.running.remove(youngest);
        self.put_back(vec![sequence]);
        true
    }

    /// Moves the waiting sequence at `index` into the batch; the adapters to load for it.
    ///
    /// It starts only when all its tokens find blocks, or long prompts would throw each other out.
    fn start(
        &mut self,
        index: usize,
        budget: usize,
        now: Instant,
    ) -> Result<Vec<(AdapterSlot, AdapterLease)>, Held> {
        let block_size = self.limits.block_size;
        let sequence = self.waiting.turn().get(index);
        let length = sequence.tokens.len();
        // At least one token is computed, or there would be no logits.
        let table = self.blocks.lookup(&sequence.prefix, (length - 1) / block_size);
        let missing = length.div_ceil(block_size) - table.len();
        if self.blocks.available() - self.blocks.free_among(&table) < missing {
            return Err(Held::NoPlace);
        }
        let claims = self.residency.claim(sequence.adapters.iter().map(|part| &part.lease));
        let claims = claims.ok_or_else(|| Held::NoSlot(sequence.versions().clone()))?;

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
            let tokens = PROMPT_TOKEN * (sequence.prompt_len - cached) as f64;
            self.accounts.charge(sequence.account, tokens, sequence.share);
        }
        self.accounts.start(sequence.account);
        sequence.granted = granted;
        sequence.slots.extend(claims.iter().map(|claim| claim.slot));
        let claimed = claims.iter().zip(&sequence.adapters).filter(|(claim, _)| claim.load);
        let loads = claimed.map(|(claim, part)| (claim.slot, part.lease.clone())).collect();
        self.running.push(sequence);
        Ok(loads)
    }
}
