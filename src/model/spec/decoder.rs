//! A dense decoder-only transformer, described.
use super::{AttentionSpec, Dims, MlpSpec, Projections, RopeSpec};
use crate::lora::Labels;

/// Everything in which two decoders differ.
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
    /// What `score.weight` scores, where the model classifies texts.
    pub labels: Option<Labels>,
}

/// Where the logits come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Head {
    /// The embedding table, used twice.
    Tied,
    /// `lm_head.weight`.
    Own,
    /// Nowhere: the model does not generate.
    None,
}
