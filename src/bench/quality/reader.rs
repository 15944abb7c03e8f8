//! A model at one precision that reads windows of text.
use crate::{
    bench::BenchError,
    kernel::{Kernels, KvCache, KvChoice, KvPrecision, KvShape, Precision},
    lora::LoraSlots,
    model::{
        self, ForwardBatch, KvDims, LoadOptions, LoadedModel, ModelSource, Progress, StepContext,
    },
};
use std::sync::Arc;

/// Tokens a block of the cache holds.
const BLOCK_SIZE: usize = 16;

pub(super) struct Reader {
    model: LoadedModel,
    kernels: Arc<dyn Kernels>,
    lora: LoraSlots,
    /// As large as the longest window so far.
    kv: Option<KvCache>,
}

impl Reader {
    pub(super) fn open(
        source: &ModelSource,
        kernels: &Arc<dyn Kernels>,
        (precision, kv): (Precision, KvPrecision),
    ) -> Result<Self, BenchError> {
        let options = LoadOptions {
            precision,
            kv_precision: KvChoice::Fixed(kv),
            max_positions: None,
            kv_cache_bytes: None,
            pooling: None,
            progress: Progress::Shown,
        };
        let model = model::load(source, kernels.as_ref(), &options)?;
        let lora = LoraSlots::new(0, model.lm.precision(), model.lm.lora_layout());
        let kernels = Arc::clone(kernels);
        Ok(Self { model, kernels, lora, kv: None })
    }

    pub(super) fn precision(&self) -> Precision {
        self.model.facts.precision
    }

    pub(super) fn kv_precision(&self) -> KvPrecision {
        self.model.facts.kv_precision
    }

    /// Bytes of a token's keys and values.
    pub(super) fn kv_bytes(&self) -> usize {
        self.kernels.kv_block_bytes(self.kv_shape(1)) / BLOCK_SIZE
    }

    /// Bytes of the packed weights.
    pub(super) fn weight_bytes(&self) -> usize {
        self.model.facts.weight_bytes
    }

    pub(super) fn max_positions(&self) -> usize {
        self.model.lm.max_positions()
    }

    pub(super) fn vocab(&self) -> usize {
        self.model.lm.vocab_size()
    }

    /// The text's tokens, without any that mark a beginning or an end.
    pub(super) fn tokens(&self, text: &str) -> Result<Vec<u32>, BenchError> {
        let encoding = self.model.text.tokenizer.encode(text, false);
        let encoding = encoding.map_err(|error| {
            BenchError::Usage(format!("the tokenizer does not take this text: {error}"))
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The logits after each token of `tokens`, `[tokens, vocab]`, from an empty context.
    pub(super) fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, BenchError> {
        let blocks = tokens.len().div_ceil(BLOCK_SIZE);
        let mut kv = match self.kv.take() {
            Some(kv) if kv.shape().blocks >= blocks => kv,
            _ => self.new_kv(blocks)?,
        };
        let batch = one_sequence(tokens);
        let kernels = self.kernels.as_ref();
        let step = StepContext { batch: &batch, kv: &mut kv, lora: &self.lora, kernels };
        let logits = self.model.lm.forward(step)?.logits;
        let values = kernels.read(&logits)?.into_owned();
        self.kv = Some(kv);
        Ok(values)
    }

    fn new_kv(&self, blocks: usize) -> Result<KvCache, BenchError> {
        Ok(self.kernels.new_kv(self.kv_shape(blocks))?)
    }

    fn kv_shape(&self, blocks: usize) -> KvShape {
        let KvDims { layers, kv_heads, head_dim, precision } = self.model.lm.kv_dims();
        let block_size = BLOCK_SIZE;
        KvShape { layers, blocks, block_size, kv_heads, head_dim, precision }
    }
}

/// All of `tokens` in one step, every row's logits wanted.
fn one_sequence(tokens: &[u32]) -> ForwardBatch {
    let len = tokens.len() as u32;
    let blocks = len.div_ceil(BLOCK_SIZE as u32);
    ForwardBatch {
        token_ids: tokens.to_vec(),
        positions: (0..len).collect(),
        slot_mapping: (0..len).collect(),
        block_tables: (0..blocks).collect(),
        block_starts: vec![0, blocks],
        query_starts: vec![0, len],
        context_lens: vec![len],
        logit_rows: (0..len).collect(),
        ..ForwardBatch::default()
    }
}
