//! Norms.
use crate::{
    kernel::{Act, NormWeights, Result, RowSegment},
    lora::{LoraLayout, NormSite},
    model::{ModelError, StepContext, checkpoint::Weights},
};
use std::ops::Range;

/// `x / sqrt(mean(x²) + eps) · weight` over the whole row, or over each head where the weight is as long as a head;
/// a row whose adapter has a weight of its own for it uses that.
pub(in crate::model) struct RmsNorm {
    weight: Act,
    eps: f32,
    site: NormSite,
}

impl RmsNorm {
    /// Takes `{site}.weight`, `[len]`.
    pub(in crate::model) fn load(
        weights: &mut Weights<'_>,
        site: NormSite,
        len: usize,
        eps: f32,
    ) -> Result<Self, ModelError> {
        let (weight, _) = weights.joined(&[(format!("{site}.weight"), len)])?;
        Ok(Self { weight, eps, site })
    }

    /// Same shape out as in; `segments` say which rows of `x` use which adapter slot.
    pub(in crate::model) fn forward(
        &self,
        x: &Act,
        segments: &[RowSegment],
        step: &StepContext<'_>,
    ) -> Result<Act> {
        step.kernels.rms_norm(x, self.weights(segments, step), self.eps)
    }

    /// Over each head in `columns` of `x`, in place.
    pub(super) fn apply(
        &self,
        x: &mut Act,
        columns: Range<usize>,
        step: &StepContext<'_>,
    ) -> Result<()> {
        step.kernels.head_norm(x, columns, self.weights(step.batch.lora.segments(), step), self.eps)
    }

    fn weights<'a>(
        &'a self,
        segments: &'a [RowSegment],
        step: &StepContext<'a>,
    ) -> NormWeights<'a> {
        NormWeights { base: &self.weight, slots: step.lora.norm(self.site), segments }
    }
}

/// `(x − mean(x)) / sqrt(var(x) + eps) · weight + bias` over the whole row; a row whose adapter has a weight or a bias of its
/// own for it uses that.
pub(in crate::model) struct LayerNorm {
    weight: Act,
    bias: Option<Act>,
    eps: f32,
    site: NormSite,
}

impl LayerNorm {
    /// Takes the norm's weight, and its bias where norms have one.
    pub(in crate::model) fn load(
        weights: &mut Weights<'_>,
        layout: &LoraLayout,
        site: NormSite,
        eps: f32,
    ) -> Result<Self, ModelError> {
        let (name, len) = place(layout, site);
        let (weight, _) = weights.joined(&[(format!("{name}.weight"), len)])?;
        let bias = if layout.norms_have_biases() {
            Some(weights.joined(&[(format!("{name}.bias"), len)])?.0)
        } else {
            None
        };
        Ok(Self { weight, bias, eps, site })
    }

    /// The same, or one that changes nothing but the scale, where the checkpoint has none.
    pub(in crate::model) fn load_or_ones(
        weights: &mut Weights<'_>,
        layout: &LoraLayout,
        site: NormSite,
        eps: f32,
    ) -> Result<Self, ModelError> {
        let (name, len) = place(layout, site);
        if weights.holds(&format!("{name}.weight")) {
            return Self::load(weights, layout, site, eps);
        }
        let weight = weights.upload(&vec![1.0; len])?;
        let bias =
            if layout.norms_have_biases() { Some(weights.upload(&vec![0.0; len])?) } else { None };
        Ok(Self { weight, bias, eps, site })
    }

    /// Same shape out as in; `segments` say which rows of `x` use which adapter slot.
    pub(in crate::model) fn forward(
        &self,
        x: &Act,
        segments: &[RowSegment],
        step: &StepContext<'_>,
    ) -> Result<Act> {
        let slots = step.lora.norm(self.site);
        let weights = NormWeights { base: &self.weight, slots, segments };
        let slots = step.lora.norm_bias(self.site);
        let biases = self.bias.as_ref().map(|base| NormWeights { base, slots, segments });
        step.kernels.layer_norm(x, weights, biases, self.eps)
    }
}

/// A norm's path and the length of its weight.
fn place(layout: &LoraLayout, site: NormSite) -> (String, usize) {
    let len = layout.norm(site).expect("the layout has every norm");
    (layout.names().norm(site).expect("the layout has no norm without a name"), len)
}
