//! Models, described: everything in which two architectures differ. Every number is checked: sizes are not zero, heads
//! divide.
mod decoder;
mod encoder;
mod parts;

pub(crate) use decoder::{ArchSpec, Head};
pub(crate) use encoder::{
    AfterDense, ClassHeadSpec, EncoderSpec, NormOrder, NormSpec, Positions, TokenHead,
};
pub(crate) use parts::{
    AttentionBias, AttentionSpec, Bias, Dims, HeadNorm, MlpShape, MlpSpec, Projections,
    RopeScaling, RopeSpec, Sides, Window,
};

/// What `config.json` describes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Spec {
    /// A model whose tokens see those before them.
    Decoder(ArchSpec),
    /// A model whose tokens see both sides.
    Encoder(EncoderSpec),
}

impl Spec {
    /// Sizes of the whole.
    pub(crate) fn dims(&self) -> &Dims {
        match self {
            Self::Decoder(spec) => &spec.dims,
            Self::Encoder(spec) => &spec.dims,
        }
    }
}
