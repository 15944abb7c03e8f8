//! A decoder block with its norms before its halves.
use super::{RmsNorm, attention::Attention, mlp::Mlp};
use crate::{
    kernel::{Act, Result, RopeTable},
    lora::{LoraLayout, NormSite, Site},
    model::{ModelError, StepContext, base_weights::BaseSite, checkpoint::Weights, spec::ArchSpec},
};

/// norm → attention → add → norm → feed-forward → add
pub(in crate::model) struct Block {
    attention_norm: RmsNorm,
    attention: Attention,
    mlp_norm: RmsNorm,
    mlp: Mlp,
}

impl Block {
    /// Takes the weights of `layer`.
    pub(in crate::model) fn load(
        weights: &mut Weights<'_>,
        spec: &ArchSpec,
        layout: &LoraLayout,
        layer: usize,
    ) -> Result<Self, ModelError> {
        let mut norm = |site| RmsNorm::load(weights, site, spec.dims.hidden, spec.norm_eps);
        let (attention_norm, mlp_norm) =
            (norm(NormSite::Attention(layer))?, norm(NormSite::Mlp(layer))?);
        let attention = Attention::load(weights, (&spec.attention, spec.norm_eps), layout, layer)?;
        let mlp = Mlp::load(weights, &spec.mlp, layout, layer)?;
        Ok(Self { attention_norm, attention, mlp_norm, mlp })
    }

    /// Its linear layers in the base.
    pub(in crate::model) fn base_sites(&self) -> impl Iterator<Item = (Site, BaseSite)> {
        self.attention.base_sites().chain(self.mlp.base_sites())
    }

    /// Adds both halves to `x`, `[T, hidden]`.
    pub(in crate::model) fn forward(
        &self,
        x: &mut Act,
        rope: &RopeTable,
        step: &mut StepContext<'_>,
    ) -> Result<()> {
        let segments = step.batch.lora.segments();
        let normed = self.attention_norm.forward(x, segments, step)?;
        let heads = self.attention.heads(&normed, Some(rope), step)?;
        self.attention.add_to(x, &heads, step)?;
        let normed = self.mlp_norm.forward(x, segments, step)?;
        let wide = self.mlp.widen(&normed, step)?;
        self.mlp.add_to(x, wide, step)
    }
}
