//! Gated feed-forward.
use super::linear::LoraLinear;
use crate::{
    kernel::{Act, Activation, Result},
    lora::{LoraLayout, Projection, Site},
    model::{
        ModelError, StepContext,
        checkpoint::Weights,
        spec::{ArchSpec, MlpBias},
    },
};

/// `down(activation(gate(x)) · up(x))`
pub(super) struct Mlp {
    gate: LoraLinear,
    up: LoraLinear,
    down: LoraLinear,
    activation: Activation,
}

impl Mlp {
    /// Takes the weights of `layer`.
    pub(super) fn load(
        weights: &mut Weights<'_>,
        spec: &ArchSpec,
        layout: &LoraLayout,
        layer: usize,
    ) -> Result<Self, ModelError> {
        let biased = spec.mlp.bias == MlpBias::All;
        let mut linear = |projection| {
            let site = Site { layer, projection };
            let shape = layout.shape(site).expect("the layout has every site of every layer");
            LoraLinear::load(weights, site, shape, biased)
        };
        Ok(Self {
            gate: linear(Projection::Gate)?,
            up: linear(Projection::Up)?,
            down: linear(Projection::Down)?,
            activation: spec.mlp.activation,
        })
    }

    /// `[T, hidden]` → `[T, hidden]`
    pub(super) fn forward(&self, x: &Act, step: &StepContext<'_>) -> Result<Act> {
        let gate = self.gate.forward(x, step)?;
        let up = self.up.forward(x, step)?;
        let inner = step.kernels.gated(&gate, &up, self.activation)?;
        self.down.forward(&inner, step)
    }
}
