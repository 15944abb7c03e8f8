//! What an adapter may change, whatever its model calls it.
use crate::lora::{LoraLayout, NormSite, Site};

/// A module that an adapter may change. What it is called says [`Paths`](super::paths::Paths).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Module {
    Linear(Site),
    Embedding,
    Norm(NormSite),
    /// What scores labels.
    Classifier,
    /// A pooler that nothing here reads: `RoBERTa`'s, of the model without a head.
    Pooler,
}

impl Module {
    pub(super) const HEAD: Self = Self::Linear(Site::Head);
    pub(super) const HEAD_DENSE: Self = Self::Linear(Site::HeadDense);

    /// Whether the model has it, as a layer of its own or as part of a fused one, or takes it from an adapter.
    pub(super) fn is_in(self, layout: &LoraLayout) -> bool {
        match self {
            Self::HEAD_DENSE => layout.shape(Site::HeadDense).is_some() || lacks_dense(layout),
            Self::Linear(site) => layout.shape(site).is_some(),
            Self::Embedding => layout.embedding().is_some(),
            Self::Norm(NormSite::Head) => {
                layout.norm(NormSite::Head).is_some() || lacks_dense(layout)
            }
            Self::Norm(norm) => layout.norm(norm).is_some(),
            Self::Classifier => layout.class_head().is_some(),
            Self::Pooler => true,
        }
    }

    /// Everything the model has under its own names.
    pub(super) fn all(layout: &LoraLayout) -> impl Iterator<Item = Self> + '_ {
        let linear = layout.sites().map(|(site, _)| Self::Linear(site));
        let embedding = layout.embedding().map(|_| Self::Embedding);
        linear.chain(embedding).chain(layout.norms().map(|(norm, _)| Self::Norm(norm)))
    }
}

/// Whether the model's layer before the head is for adapters to bring.
pub(super) fn lacks_dense(layout: &LoraLayout) -> bool {
    layout.class_head().is_some_and(|head| !head.has_dense)
}
