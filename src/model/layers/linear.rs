//! Linear layers. The only place where LoRA meets the model.
use crate::{
    kernel::{Act, BaseWeight, Kernels, Result},
    lora::{Site, SiteShape},
    model::{ModelError, StepContext, checkpoint::Weights},
};
use std::sync::Arc;

/// `y = x · Wᵀ + bias`
pub(in crate::model) struct Linear {
    weight: Arc<BaseWeight>,
    bias: Option<Act>,
}

impl Linear {
    /// Shares a weight that is loaded already.
    pub(in crate::model) fn tied(weight: Arc<BaseWeight>) -> Self {
        Self { weight, bias: None }
    }

    /// Takes `{name}.weight`, and `{name}.bias` if there is one.
    pub(in crate::model) fn load(
        weights: &mut Weights<'_>,
        name: &str,
        shape: SiteShape,
        biased: bool,
    ) -> Result<Self, ModelError> {
        let SiteShape { in_features, out_features } = shape;
        let weight = weights.matrix(&format!("{name}.weight"), out_features, in_features)?;
        let bias = if biased {
            Some(weights.vector(&format!("{name}.bias"), out_features)?)
        } else {
            None
        };
        Ok(Self { weight, bias })
    }

    /// `[T, in]` → `[T, out]`
    pub(in crate::model) fn forward(&self, x: &Act, kernels: &dyn Kernels) -> Result<Act> {
        kernels.linear(x, &self.weight, self.bias.as_ref())
    }
}

/// A linear layer that adds each row's adapter delta: `y = x · Wᵀ + bias + x · aᵀ · b`.
pub(super) struct LoraLinear {
    base: Linear,
    site: Site,
}

impl LoraLinear {
    /// Takes the weight of `site`.
    pub(super) fn load(
        weights: &mut Weights<'_>,
        site: Site,
        shape: SiteShape,
        biased: bool,
    ) -> Result<Self, ModelError> {
        let base = Linear::load(weights, &format!("model.{site}"), shape, biased)?;
        Ok(Self { base, site })
    }

    /// `[T, in]` → `[T, out]`
    pub(super) fn forward(&self, x: &Act, step: &StepContext<'_>) -> Result<Act> {
        let mut y = self.base.forward(x, step.kernels)?;
        let (slots, segments) = (step.lora.at(self.site), step.batch.lora.segments());
        if !slots.is_empty() && !segments.is_empty() {
            step.kernels.add_lora(&mut y, x, slots, segments)?;
        }
        Ok(y)
    }
}
