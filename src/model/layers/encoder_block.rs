//! A block of an encoder.
use super::{LayerNorm, attention::Attention, mlp::Mlp};
use crate::{
    kernel::{Act, Result, RopeTable},
    lora::{LoraLayout, NormSite, Site},
    model::{
        ModelError, StepContext,
        base_weights::BaseSite,
        checkpoint::Weights,
        spec::{EncoderSpec, NormOrder},
    },
};

/// Attention and feed-forward with their norms, after each of them or before.
pub(in crate::model) struct EncoderBlock {
    order: NormOrder,
    /// `None` for the first block of those whose norms stand before: the embedding's does its work.
    attention_norm: Option<LayerNorm>,
    attention: Attention,
    mlp_norm: LayerNorm,
    mlp: Mlp,
}

impl EncoderBlock {
    /// Takes the weights of `layer`.
    pub(in crate::model) fn load(
        weights: &mut Weights<'_>,
        spec: &EncoderSpec,
        layout: &LoraLayout,
        layer: usize,
    ) -> Result<Self, ModelError> {
        let (order, eps) = (spec.norms.order, spec.norms.eps);
        let mut norm = |site| LayerNorm::load(weights, layout, site, eps);
        let attention_norm = match order {
            NormOrder::Before if layer == 0 => None,
            NormOrder::Before | NormOrder::After => Some(norm(NormSite::Attention(layer))?),
        };
        let mlp_norm = norm(NormSite::Mlp(layer))?;
        let attention = Attention::load(weights, (&spec.attention, eps), layout, layer)?;
        let mlp = Mlp::load(weights, &spec.mlp, layout, layer)?;
        Ok(Self { order, attention_norm, attention, mlp_norm, mlp })
    }

    /// Its linear layers in the base.
    pub(in crate::model) fn base_sites(&self) -> impl Iterator<Item = (Site, BaseSite)> {
        self.attention.base_sites().chain(self.mlp.base_sites())
    }

    /// `x` `[T, hidden]` after both halves.
    pub(in crate::model) fn forward(
        &self,
        x: Act,
        rope: Option<&RopeTable>,
        step: &mut StepContext<'_>,
    ) -> Result<Act> {
        match self.order {
            NormOrder::After => self.norms_after(x, rope, step),
            NormOrder::Before => self.norms_before(x, rope, step),
        }
    }

    fn norms_after(
        &self,
        mut x: Act,
        rope: Option<&RopeTable>,
        step: &mut StepContext<'_>,
    ) -> Result<Act> {
        let segments = step.batch.lora.segments();
        let heads = self.attention.heads(&x, rope, step)?;
        self.attention.add_to(&mut x, &heads, step)?;
        if let Some(norm) = &self.attention_norm {
            x = norm.forward(&x, segments, step)?;
        }
        let wide = self.mlp.widen(&x, step)?;
        self.mlp.add_to(&mut x, wide, step)?;
        self.mlp_norm.forward(&x, segments, step)
    }

    fn norms_before(
        &self,
        mut x: Act,
        rope: Option<&RopeTable>,
        step: &mut StepContext<'_>,
    ) -> Result<Act> {
        let segments = step.batch.lora.segments();
        let heads = match &self.attention_norm {
            Some(norm) => {
                let normed = norm.forward(&x, segments, step)?;
                self.attention.heads(&normed, rope, step)?
            }
            None => self.attention.heads(&x, rope, step)?,
        };
        self.attention.add_to(&mut x, &heads, step)?;
        let normed = self.mlp_norm.forward(&x, segments, step)?;
        let wide = self.mlp.widen(&normed, step)?;
        self.mlp.add_to(&mut x, wide, step)?;
        Ok(x)
    }
}
