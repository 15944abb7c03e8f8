//! The base model: weights in, logits out.
//!
//! Knows adapter slots. Knows no adapter names, no sequences, no scheduling.
mod arch;
mod base_weights;
mod batch;
mod checkpoint;
mod config;
mod decoder;
mod error;
mod hub;
mod layers;
mod layout;
mod load;
mod source;
mod spec;
mod text;

pub use crate::hub::HubId;
pub use base_weights::BaseWeights;
pub use batch::ForwardBatch;
pub use config::ModelConfig;
pub use error::ModelError;
pub use load::{LoadOptions, LoadedModel, ModelFacts, Outline, Progress, layout, load, outline};
pub use source::ModelSource;
pub use text::{SamplingDefaults, TextAssets};

use crate::{
    kernel::{Act, Kernels, KvCache, KvPrecision, Precision, Result},
    lora::{LoraLayout, LoraSlots},
};

/// What one token costs in the KV cache.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KvDims {
    /// Decoder layers.
    pub layers: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// How they are kept.
    pub precision: KvPrecision,
}

/// What one step needs besides the weights. Passed down, never global.
pub struct StepContext<'a> {
    /// The tokens and where they are.
    pub batch: &'a ForwardBatch,
    /// Their keys and values.
    pub kv: &'a mut KvCache,
    /// Their adapters.
    pub lora: &'a LoraSlots,
    /// The device's operations.
    pub kernels: &'a dyn Kernels,
}

/// A causal language model.
pub trait CausalLm: Send {
    /// Logits `[batch.logit_rows, vocab]`, f32.
    ///
    /// # Errors
    /// When a device operation fails.
    fn forward(&self, step: StepContext<'_>) -> Result<Act>;

    /// The sites adapters may change.
    fn lora_layout(&self) -> &LoraLayout;

    /// What one token costs in the KV cache.
    fn kv_dims(&self) -> KvDims;

    /// How its base weights are stored.
    fn precision(&self) -> Precision;

    /// Tokens the vocabulary has: the width of the logits.
    fn vocab_size(&self) -> usize;

    /// Positions the model was made for.
    fn max_positions(&self) -> usize;
}
