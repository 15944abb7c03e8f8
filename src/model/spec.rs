//! A dense decoder-only transformer, described.
use crate::{kernel::Activation, lora::Projection};
use candle_transformers::models::llama::Llama3RopeConfig;

/// Everything in which two architectures differ. Every number in it is checked: sizes are not zero, heads divide.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ArchSpec {
    /// Sizes of the whole.
    pub dims: Dims,
    /// Added to the mean square in every norm.
    pub norm_eps: f32,
    /// Attention.
    pub attention: AttentionSpec,
    /// Feed-forward.
    pub mlp: MlpSpec,
    /// Rotary embedding.
    pub rope: RopeSpec,
    /// Which linear layers a block has.
    pub projections: Projections,
    /// Where the logits come from.
    pub head: Head,
}

/// Sizes, in elements.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dims {
    /// Tokens.
    pub vocab: usize,
    /// Residual stream.
    pub hidden: usize,
    /// Blocks.
    pub layers: usize,
    /// Positions the model was trained for.
    pub max_positions: usize,
}

/// Attention.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Elements of a head, even.
    pub head_dim: usize,
    /// Which projections have a bias.
    pub bias: AttentionBias,
    /// Norm of each query and key head.
    pub head_norm: HeadNorm,
    /// How far back a layer looks.
    pub window: Window,
}

/// Which attention projections have a bias.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AttentionBias {
    /// None of them.
    None,
    /// Queries, keys and values (Qwen2).
    Qkv,
    /// The output too (Llama's and Qwen3's `attention_bias`).
    All,
}

/// What happens to a query or key head before it is rotated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HeadNorm {
    /// Nothing.
    None,
    /// RMS norm over the head (Qwen3).
    Rms,
}

/// Sliding window.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Window {
    /// All layers see everything.
    None,
    /// All layers see this many tokens, the present one included.
    Every(usize),
    /// Some layers do.
    Layers {
        /// How many tokens those see.
        tokens: usize,
        /// `[layers]`: which they are.
        slides: Vec<bool>,
    },
}

impl Window {
    /// Tokens `layer` sees, the present one included; `None` for all.
    pub(crate) fn at(&self, layer: usize) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Every(tokens) => Some(*tokens),
            Self::Layers { tokens, slides } => slides[layer].then_some(*tokens),
        }
    }
}

/// `down(activation(gate(x)) · up(x))`
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MlpSpec {
    /// Width between.
    pub intermediate: usize,
    /// Whether its projections have a bias.
    pub bias: MlpBias,
    /// The gate's.
    pub activation: Activation,
}

/// Which feed-forward projections have a bias.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MlpBias {
    /// None of them.
    None,
    /// All three (Llama's `mlp_bias`).
    All,
}

/// Rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RopeSpec {
    /// Base of the frequencies.
    pub theta: f64,
    /// What was done to them to reach further.
    pub scaling: RopeScaling,
}

/// How the published frequencies are changed.
#[derive(Clone, Debug)]
pub(crate) enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// Stretch, at least 1.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a ramp between.
    Llama3(Llama3RopeConfig),
    /// `[head_dim / 2]`: each frequency divided by its own number, as GGUF files have it.
    Divisors(Vec<f64>),
}

impl PartialEq for RopeScaling {
    fn eq(&self, other: &Self) -> bool {
        // candle-transformers' struct has no equality of its own.
        let bands = |c: &Llama3RopeConfig| {
            let Llama3RopeConfig { factor, low_freq_factor, high_freq_factor, .. } = *c;
            (factor, low_freq_factor, high_freq_factor, c.original_max_position_embeddings)
        };
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Linear { factor: a }, Self::Linear { factor: b }) => a == b,
            (Self::Llama3(a), Self::Llama3(b)) => bands(a) == bands(b),
            (Self::Divisors(a), Self::Divisors(b)) => a == b,
            _ => false,
        }
    }
}

/// Which linear layers a block has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Projections {
    /// Each by itself.
    Separate,
    /// Queries, keys and values as one, and gate and up as one (Phi-3).
    Fused,
}

impl Projections {
    /// Their names.
    pub(crate) fn names(self) -> &'static [Projection] {
        match self {
            Self::Separate => &Projection::SEPARATE,
            Self::Fused => &Projection::FUSED,
        }
    }
}

/// Where the logits come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Head {
    /// The embedding table, used twice.
    Tied,
    /// `lm_head.weight`.
    Own,
}
