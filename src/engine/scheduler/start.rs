//! From the queue into the batch.
use super::super::{residency::Claim, schedule::Schedule, waiting::RunningCounts};
use super::Scheduler;
use crate::{
    adapter::{AdapterLease, VersionId},
    lora::AdapterSlot,
};
use std::{collections::HashSet, time::Instant};

/// Why a waiting sequence did not start.
enum Held {
    /// Every slot is in use; others may go on.
    NoSlot(VersionId),
    /// Too few blocks; whoever comes next would take them away from it.
    NoBlocks,
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
}
