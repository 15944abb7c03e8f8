//! RMS norm.
use crate::{
    kernel::{Act, Kernels, Result},
    model::{ModelError, checkpoint::Weights},
};

/// `x / sqrt(mean(x²) + eps) · weight` over the whole row, or over each head of it where the weight is as long as a head.
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
        Ok(Self { weight: weights.vector(&format!("{name}.weight"), len)?, eps })
    }

    /// Same shape out as in.
    pub(in crate::model) fn forward(&self, x: &Act, kernels: &dyn Kernels) -> Result<Act> {
        kernels.rms_norm(x, &self.weight, self.eps)
    }
}
