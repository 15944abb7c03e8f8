//! From a plan to tokens: builds the flat batch, runs the model, chooses.
use super::{
    EngineConfig,
    loader::Workshop,
    offer::Offer,
    samplers::Samplers,
    schedule::{Chosen, Limits},
    sequence::{Row, Sequence},
};
use crate::{
    kernel::{KernelError, Kernels, KvCache, KvShape, Result},
    lora::{AdapterSlot, LoraSlots, PreparedAdapter},
    model::{BaseModel, ForwardBatch, KvDims, StepContext, StepOutput, WantedOutput},
};
use std::sync::Arc;

/// Owns the model and every device buffer of the running sequences.
pub struct ModelRunner {
    model: Box<dyn BaseModel>,
    kernels: Arc<dyn Kernels>,
    kv: KvCache,
    lora: LoraSlots,
    batch: ForwardBatch,
    samplers: Samplers,
    /// For each row of logits, whose it is and what it is for.
    rows: Vec<(usize, Row)>,
}

/// Memory of one step for the logits of prompts.
const PROMPT_LOGIT_BYTES: usize = 64 << 20;

impl ModelRunner {
    /// Allocates the KV cache and room for the adapters.
    ///
    /// # Errors
    /// When the KV cache is too small for one block or too large for a block table, or the device is
    /// out of memory.
    pub fn new(
        model: Box<dyn BaseModel>,
        kernels: Arc<dyn Kernels>,
        config: &EngineConfig,
    ) -> Result<Self> {
        let kv = kernels.new_kv(kv_shape(model.as_ref(), kernels.as_ref(), config)?)?;
        let lora = LoraSlots::new(config.adapter_slots, model.precision(), model.lora_layout());
        let (mut batch, samplers, rows): (ForwardBatch, _, _) = Default::default();
        // It grows while answers do: only sequences that share many blocks need more.
        batch.block_tables.reserve(kv.shape().blocks);
        Ok(Self { model, kernels, kv, lora, batch, samplers, rows })
    }

    /// What the scheduler may plan with.
    pub(super) fn limits(&self, config: &EngineConfig) -> Limits {
        let (shape, causal) = (self.kv.shape(), self.model.is_causal());
        Limits {
            max_sequences: config.max_sequences,
            max_batched_tokens: step_tokens(self.model.as_ref(), config),
            adapter_slots: self.lora.capacity(),
            adapter_bytes: match config.adapter_device_bytes.0 {
                0 => usize::MAX,
                bytes => bytes,
            },
            block_size: shape.block_size,
            kv_blocks: shape.blocks,
            max_positions: self.model.max_positions(),
            draft_tokens: if causal { config.draft_tokens } else { 0 },
            prompt_rows: (PROMPT_LOGIT_BYTES / size_of::<f32>() / self.vocab_size().max(1)).max(1),
            prefix_cache: causal && !config.no_prefix_cache,
            whole: !causal,
        }
    }

    /// What may be asked for.
    pub(super) fn offer(&self) -> Offer {
        Offer::of(self.model.as_ref())
    }

    /// Tokens of the model's vocabulary.
    pub(super) fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    /// Bytes of the KV cache.
    pub(super) fn kv_bytes(&self) -> usize {
        self.kv.shape().blocks * self.kernels.kv_block_bytes(self.kv.shape())
    }

    /// What it takes to prepare adapters for this model.
    pub(super) fn workshop(&self) -> Workshop {
        Workshop { form: self.lora.form().clone(), kernels: self.kernels.clone() }
    }

    /// Moves an adapter into `slot`.
    pub(super) fn put(&mut self, slot: AdapterSlot, adapter: PreparedAdapter) {
        self.lora.put(slot, adapter);
    }

    /// Lets the memory of what lies in `slot` go.
    pub(super) fn clear(&mut self, slot: AdapterSlot) {
        self.lora.clear(slot);
    }

    /// Computes the granted tokens of `sequences[i]` for each `i` in `work`, which it sorts by adapters.
    /// `choices` become those of this step, in the order of `work` as many as each sequence wants, and `outputs` one of
    /// each that wants it.
    pub(super) fn run(
        &mut self,
        work: &mut [usize],
        sequences: &[Sequence],
        (choices, outputs): (&mut Vec<Chosen>, &mut Vec<Vec<f32>>),
    ) -> Result<()> {
        // Rows of one adapter side by side: one segment, one pass over its factors.
        work.sort_unstable_by(|&a, &b| sequences[a].cmp_adapters(&sequences[b]).then(a.cmp(&b)));
        let scheduled = || work.iter().map(|&index| &sequences[index]);
        fill(&mut self.batch, scheduled(), self.kv.shape().block_size);
        want_outputs(&mut self.batch, scheduled(), self.model.is_causal());
        let StepOutput { logits, outputs: given } = self.model.forward(StepContext {
            batch: &self.batch,
            kv: &mut self.kv,
            lora: &self.lora,
            kernels: self.kernels.as_ref(),
        })?;
        if given.len() != self.batch.outputs.len() {
            let detail = format!("{}, not {}", given.len(), self.batch.outputs.len());
            return Err(KernelError::mismatch("outputs", detail));
        }
        *outputs = given;
        choices.clear();
        let (wanted, vocab) = (self.batch.logit_rows.len(), self.model.vocab_size());
        if wanted == 0 {
            return Ok(());
        }
        if (logits.rows(), logits.cols()) != (wanted, vocab) {
            let shape = (logits.rows(), logits.cols());
            return Err(KernelError::mismatch(
                "logits",
                format!("{shape:?}, not {:?}", (wanted, vocab)),
            ));
        }
        let values = self.kernels.read(&logits)?;
        let rows = &mut self.rows;
        rows.clear();
        for &index in work.iter() {
            rows.extend(sequences[index].rows().map(|row| (index, row)));
        }
        let draw = |row: usize, logits, best| {
            let (index, row) = rows[row];
            sequences[index].draw((logits, best), row)
        };
        choices.extend(self.samplers.sample(self.kernels.as_ref(), (&values, vocab), &draw)?);
        Ok(())
    }
}

/// Tokens of the largest step: a sequence that is computed in one must fit.
fn step_tokens(model: &dyn BaseModel, config: &EngineConfig) -> usize {
    let least = if model.is_causal() { 0 } else { model.max_positions() };
    config.max_batched_tokens.max(least)
}

/// As many blocks as the configured memory holds, or as one step needs where none outlives it.
fn kv_shape(
    model: &dyn BaseModel,
    kernels: &dyn Kernels,
    config: &EngineConfig,
) -> Result<KvShape> {
    let block_size = config.block_size.max(1);
    let KvDims { layers, kv_heads, head_dim, precision } = model.kv_dims();
    let shape = KvShape { layers, blocks: 0, block_size, kv_heads, head_dim, precision };
    let (bytes, block_bytes) = (config.kv_cache_bytes.0, kernels.kv_block_bytes(shape).max(1));
    let most = u32::MAX as usize / block_size;
    if !model.is_causal() {
        // Every sequence's last block may be all but empty.
        let blocks = step_tokens(model, config).div_ceil(block_size) + config.max_sequences;
        return Ok(KvShape { blocks: blocks.min(most), ..shape });
    }
    let blocks = (bytes / block_bytes).min(most);
    if blocks == 0 {
        return Err(KernelError::Unsupported(format!(
            "the KV cache has {bytes} bytes, one block of {block_size} tokens takes {block_bytes}; \
             raise --kv-cache-bytes or lower --block-size"
        )));
    }
    Ok(KvShape { blocks, ..shape })
}

/// Lays the granted tokens of `sequences` one after the other.
fn fill<'a>(
    batch: &mut ForwardBatch,
    sequences: impl Iterator<Item = &'a Sequence> + Clone,
    block_size: usize,
) {
    clear(batch);
    for sequence in sequences.clone() {
        let (start, end) = (sequence.computed, sequence.computed + sequence.granted);
        batch.token_ids.extend(sequence.scheduled());
        batch.positions.extend(start as u32..end as u32);
        batch.slot_mapping.extend((start..end).map(|position| {
            let block = sequence.block_table[position / block_size].0 as usize;
            (block * block_size + position % block_size) as u32
        }));
        let blocks = &sequence.block_table[..end.div_ceil(block_size)];
        batch.block_tables.extend(blocks.iter().map(|block| block.0));
        batch.block_starts.push(batch.block_tables.len() as u32);
        batch.query_starts.push(batch.token_ids.len() as u32);
        batch.context_lens.push(end as u32);
        let first = batch.token_ids.len() - sequence.granted;
        let wanted = sequence.logit_positions();
        batch.logit_rows.extend(wanted.map(|position| (first + position - start) as u32));
    }
    let rows = |sequence: &'a Sequence| (sequence.granted, sequence.slot_uses(sequence.computed));
    let logits = |sequence: &'a Sequence| {
        let wanted = sequence.logit_positions();
        (wanted.len(), sequence.slot_uses(wanted.start))
    };
    batch.lora.set(sequences.clone().map(rows));
    batch.logit_lora.set(sequences.map(logits));
}

/// What is wanted besides logits, and which of a sequence's texts each token belongs to.
fn want_outputs<'a>(
    batch: &mut ForwardBatch,
    sequences: impl Iterator<Item = &'a Sequence> + Clone,
    causal: bool,
) {
    if sequences.clone().any(|sequence| sequence.second_text.is_some()) {
        batch.token_types.extend(sequences.clone().flat_map(|sequence| {
            let second = sequence.second_text.unwrap_or(usize::MAX);
            let positions = sequence.computed..sequence.computed + sequence.granted;
            positions.map(move |position| u32::from(position >= second))
        }));
    }
    let mut start = 0;
    for sequence in sequences.clone() {
        let end = start + sequence.granted as u32;
        // Of a causal model the last token has seen all of the text.
        let first = if causal { end - 1 } else { start };
        let wanted = sequence.wanted_output();
        batch.outputs.extend(wanted.map(|output| WantedOutput { rows: first..end, output }));
        start = end;
    }
    let ends = sequences.filter_map(|sequence| {
        let rows = if causal { 1 } else { sequence.granted };
        let width = sequence.wanted_output()?.width(rows);
        // One row for all of them is changed by whatever has begun by its end.
        Some((width, sequence.slot_uses(sequence.computed + sequence.granted - width)))
    });
    batch.output_lora.set(ends);
}

fn clear(batch: &mut ForwardBatch) {
    let ForwardBatch {
        token_ids,
        positions,
        token_types,
        slot_mapping,
        block_tables,
        block_starts,
        query_starts,
        context_lens,
        logit_rows,
        lora: _,
        logit_lora: _,
        outputs,
        output_lora: _,
    } = batch;
    outputs.clear();
    let lists = [token_ids, positions, token_types, slot_mapping, block_tables, context_lens];
    for list in lists.into_iter().chain([logit_rows]) {
        list.clear();
    }
    for starts in [block_starts, query_starts] {
        starts.clear();
        starts.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{AdapterMix, kv::BlockId, testing};
    use crate::kernel::RowSegment;
    use crate::lora::LoraRouting;

    #[test]
    fn sequences_are_laid_out_flat_with_their_blocks() {
        let mut decoding = testing::sequence(0, AdapterMix::default()).0;
        decoding.block_table = vec![BlockId(5), BlockId(1)];
        (decoding.computed, decoding.granted) = (2, 1);
        let mut prompt = testing::sequence(1, testing::lease("a").into()).0;
        prompt.block_table = vec![BlockId(3)];
        prompt.slots = vec![AdapterSlot(7)];
        prompt.granted = 2;

        let mut batch = ForwardBatch { token_ids: vec![9; 9], ..ForwardBatch::default() };
        fill(&mut batch, [&decoding, &prompt].into_iter(), 2);
        let expected = ForwardBatch {
            token_ids: vec![3, 1, 2],
            positions: vec![2, 0, 1],
            slot_mapping: vec![2, 6, 7],
            block_tables: vec![5, 1, 3],
            block_starts: vec![0, 2, 3],
            query_starts: vec![0, 1, 3],
            context_lens: vec![3, 2],
            logit_rows: vec![0],
            lora: LoraRouting::new([(1, None), (2, Some(AdapterSlot(7)))]),
            ..ForwardBatch::default()
        };
        assert_eq!(format!("{batch:?}"), format!("{expected:?}"));
        assert_eq!(batch.lora.segments(), [RowSegment { rows: 1..3, slot: 7, weight: 1.0 }]);
    }

    #[test]
    fn an_adapter_begins_where_its_prompt_invokes_it() {
        let parts = [(testing::invoked("late", &[3]), 0.5), (testing::lease("plain"), 2.0)];
        let mix = AdapterMix::new(parts).expect("valid");
        let mut prompt = testing::sequence(0, mix).0;
        prompt.block_table = vec![BlockId(0), BlockId(1)];
        prompt.slots = vec![AdapterSlot(4), AdapterSlot(4)];
        let of = |prompt: &Sequence, weight: f32| {
            let mut batch = ForwardBatch::default();
            fill(&mut batch, [prompt].into_iter(), 2);
            let of_it =
                batch.lora.segments().iter().filter(|s| s.weight.to_bits() == weight.to_bits());
            of_it.map(|s| (s.rows.start, s.rows.end)).collect::<Vec<_>>()
        };
        prompt.granted = 3;
        assert_eq!((of(&prompt, 2.0), of(&prompt, 0.5)), (vec![(0, 3)], vec![(2, 3)]));
        prompt.granted = 2;
        assert_eq!((of(&prompt, 2.0), of(&prompt, 0.5)), (vec![(0, 2)], vec![]), "a first piece");
        (prompt.computed, prompt.granted) = (2, 1);
        assert_eq!((of(&prompt, 2.0), of(&prompt, 0.5)), (vec![(0, 1)], vec![(0, 1)]), "the rest");
    }
    #[test]
    fn equal_weights_of_one_adapter_lie_side_by_side() {
        let weighted = |slot, weight| {
            let mix = AdapterMix::new([(testing::lease("a"), weight)]).expect("valid");
            let mut sequence = testing::sequence(0, mix).0;
            sequence.slots = vec![AdapterSlot(slot)];
            sequence
        };
        let mut all = [weighted(1, 0.7), weighted(1, 0.5), weighted(0, 0.9), weighted(1, 0.7)];
        all.sort_by(Sequence::cmp_adapters);
        let order = all.map(|sequence| (sequence.slots[0].0, sequence.adapters[0].weight));
        assert_eq!(order, [(0, 0.9), (1, 0.5), (1, 0.7), (1, 0.7)]);
    }
}
