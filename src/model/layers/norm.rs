//! RMS norm.
use crate::{
    kernel::{Act, NormWeights, Result, RowSegment},
    lora::NormSite,
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
