//! RMS norm.
use crate::{
    kernel::{Act, Kernels, Result},
    model::{ModelError, checkpoint::Weights},
};
use std::ops::Range;

/// `x / sqrt(mean(x²) + eps) · weight` over the whole row, or over each head where the weight is as long as a head.
pub(in crate::model) struct RmsNorm {
    weight: Act,
    eps: f32,
}

impl RmsNorm {
    /// Takes `{name}.weight`, `[len]`.
    pub(in crate::model) fn load(
        weights: &mut Weights<'_>,
        name: &str,
        len: usize,
        eps: f32,
    ) -> Result<Self, ModelError> {
        let (weight, _) = weights.joined(&[(format!("{name}.weight"), len)])?;
        Ok(Self { weight, eps })
    }

    /// Same shape out as in.
    pub(in crate::model) fn forward(&self, x: &Act, kernels: &dyn Kernels) -> Result<Act> {
        kernels.rms_norm(x, &self.weight, self.eps)
    }

    /// Over each head in `columns` of `x`, in place.
    pub(super) fn apply(
        &self,
        x: &mut Act,
        columns: Range<usize>,
        kernels: &dyn Kernels,
    ) -> Result<()> {
        kernels.head_norm(x, columns, &self.weight, self.eps)
    }
}
