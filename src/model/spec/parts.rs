//! What decoders and encoders have in common.
use crate::{
    kernel::{Activation, Reach},
    lora::Projection,
};
use candle_transformers::models::llama::Llama3RopeConfig;

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
    /// Which sides of a token it sees.
    pub sides: Sides,
    /// How far a layer looks.
    pub window: Window,
}

impl AttentionSpec {
    /// What a token of `layer` sees.
    pub(crate) fn reach(&self, layer: usize) -> Reach {
        match self.sides {
            Sides::Before => Reach::Back(self.window.at(layer)),
            Sides::Both => Reach::Around(self.window.at(layer)),
        }
    }
}

/// Which tokens of its sequence a token sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sides {
    /// Itself and those before it.
    Before,
    /// All.
    Both,
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

/// Sliding window, in tokens: as many as are seen, the present one included, or where both sides are seen, how far away
/// the farthest one is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Window {
    /// All layers see everything.
    None,
    /// All layers see this many tokens.
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
    /// The window of `layer`; `None` where it sees everything.
    pub(crate) fn at(&self, layer: usize) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Every(tokens) => Some(*tokens),
            Self::Layers { tokens, slides } => slides[layer].then_some(*tokens),
        }
    }
}

/// Feed-forward.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MlpSpec {
    /// Its projections.
    pub shape: MlpShape,
    /// Width between.
    pub intermediate: usize,
    /// Whether its projections have a bias (Llama's `mlp_bias`).
    pub bias: Bias,
    /// The gate's, or where there is none, what stands between.
    pub activation: Activation,
}

/// Which projections a feed-forward half has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MlpShape {
    /// `down(activation(gate(x)) · up(x))`
    Gated,
    /// `down(activation(up(x)))`
    Plain,
}

/// Whether layers of a kind have biases.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Bias {
    /// None of them.
    None,
    /// All of them.
    All,
}

impl Bias {
    /// From a configuration's truth value.
    pub(crate) fn from_flag(flag: bool) -> Self {
        if flag { Self::All } else { Self::None }
    }

    /// Whether there are some.
    pub(crate) fn is_some(self) -> bool {
        self == Self::All
    }
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
