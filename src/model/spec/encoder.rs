//! An encoder, described: BERT and its kin.
use super::{AttentionSpec, Bias, Dims, MlpShape, MlpSpec, Projections, RopeSpec};
use crate::{
    kernel::Activation,
    lora::{Labels, ModuleNames},
    model::Pooling,
};

/// Everything in which two encoders differ.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EncoderSpec {
    /// What its tensors are called.
    pub names: ModuleNames,
    /// Sizes of the whole.
    pub dims: Dims,
    /// Its norms.
    pub norms: NormSpec,
    /// Attention.
    pub attention: AttentionSpec,
    /// Feed-forward.
    pub mlp: MlpSpec,
    /// Which linear layers a block has.
    pub projections: Projections,
    /// How a token knows where it stands.
    pub positions: Positions,
    /// Texts that it can tell apart; 0 where it has no table for them.
    pub token_types: usize,
    /// What stands between the hidden states and a classifier.
    pub class_head: ClassHeadSpec,
    /// What `classifier` scores, where the checkpoint has one.
    pub labels: Option<Labels>,
}

/// Layer norms.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NormSpec {
    /// Added to the variance.
    pub eps: f32,
    /// Whether they have biases beside their weights.
    pub bias: Bias,
    /// Where they stand.
    pub order: NormOrder,
}

/// Where a block's norms stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NormOrder {
    /// After each half and the sum with its input: `x ← norm(x + half(x))`.
    After,
    /// Before each half, and one after the last block: `x ← x + half(norm(x))`. The first block has none before its
    /// attention: the embedding's stands there.
    Before,
}

/// How a token knows where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Positions {
    /// A table with a row for each place.
    Table {
        /// The row of the first token.
        first: usize,
        /// A token that stands on the row before `first` wherever it is, and has no place among the others.
        padding: Option<u32>,
    },
    /// Rotary, with frequencies of its own for layers with a window.
    Rotary {
        /// Of layers that see everything.
        whole: RopeSpec,
        /// Of layers with a window.
        windowed: RopeSpec,
    },
}

/// From hidden states to what a classifier reads.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClassHeadSpec {
    /// Which hidden state stands for a text.
    pub pooling: Pooling,
    /// Whether the dense layer has a bias.
    pub bias: Bias,
    /// After it.
    pub activation: Activation,
    /// And after that.
    pub after: AfterDense,
    /// What a head that labels tokens reads.
    pub tokens: TokenHead,
}

/// What stands after a head's activation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AfterDense {
    /// Nothing.
    Nothing,
    /// A layer norm (`ModernBERT`).
    Norm,
}

/// What a head that labels tokens reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TokenHead {
    /// Hidden states.
    Hidden,
    /// What a text's head reads: the dense layer's outputs (`ModernBERT`).
    Dense,
}

impl EncoderSpec {
    /// Tensors that models of this kind are saved with and that nothing here reads, by the beginnings of their names:
    /// heads that guess masked tokens, and `RoBERTa`'s pooler, which its own classifiers do not use.
    pub(crate) fn unread(&self) -> &'static [&'static str] {
        match self.names {
            ModuleNames::Bert => &["cls."],
            ModuleNames::Roberta => &["lm_head.", "roberta.pooler."],
            ModuleNames::DistilBert => {
                &["vocab_transform.", "vocab_layer_norm.", "vocab_projector."]
            }
            ModuleNames::ModernBert => &["decoder."],
            ModuleNames::Decoder => &[],
        }
    }

    /// Whether the feed-forward half has a gate.
    pub(crate) fn is_gated(&self) -> bool {
        self.mlp.shape == MlpShape::Gated
    }
}
