//! The base model: weights in, logits, hidden states and scores out.
//!
//! Knows adapter slots. Knows no adapter names, no sequences, no scheduling.
mod arch;
mod base_weights;
mod batch;
mod checkpoint;
mod config;
mod decoder;
mod encoder;
mod error;
mod hub;
mod layers;
mod layout;
mod load;
mod outputs;
mod sentence;
mod source;
mod spec;
mod text;

pub use crate::hub::HubId;
pub use base_weights::BaseWeights;
pub use batch::{ForwardBatch, Output, Pooling, WantedOutput};
pub use config::ModelConfig;
pub use error::ModelError;
pub use load::{LoadOptions, LoadedModel, ModelFacts, Outline, Progress, layout, load, outline};
pub use sentence::EmbeddingFacts;
pub use source::ModelSource;
pub use text::{SamplingDefaults, TextAssets};

use crate::{
    kernel::{Act, Kernels, KvCache, KvPrecision, Precision, Result},
    lora::{LoraLayout, LoraSlots},
};

/// What one token costs in the KV cache.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KvDims {
    /// Layers that keep keys and values: all of a decoder's, one for all of an encoder's.
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

/// What a step gives.
pub struct StepOutput {
    /// `[batch.logit_rows, vocab]`, f32; no rows from a model that does not generate.
    pub logits: Act,
    /// What each of `batch.outputs` asks for, in that order; how long each is says [`Output`].
    pub outputs: Vec<Vec<f32>>,
}

/// A base model: a decoder, or an encoder.
pub trait BaseModel: Send {
    /// One step.
    ///
    /// # Errors
    /// When a device operation fails, or a row asks for what the model and its adapters do not have.
    fn forward(&self, step: StepContext<'_>) -> Result<StepOutput>;

    /// Whether a token depends on those before it alone. Where not, all of a sequence's tokens are computed in one step,
    /// and its keys and values are of no use after it.
    fn is_causal(&self) -> bool {
        true
    }

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
