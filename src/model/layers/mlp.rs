//! Gated feed-forward.
use super::linear::LoraLinear;
use crate::{
    kernel::{Act, Activation, Result},
    lora::{LoraLayout, Projection, Site},
    model::{
        ModelError, StepContext,
        base_weights::BaseSite,
        checkpoint::Weights,
        spec::{ArchSpec, MlpBias},
    },
};

/// `down(activation(gate(x)) · up(x))`
pub(super) struct Mlp {
    /// `[T, hidden]` → rows `[gate | up]`
    gate_up: LoraLinear<2>,
    down: LoraLinear<1>,
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
        Ok(Self {
            gate_up: LoraLinear::load(weights, layout, (layer, Projection::GateUp), biased)?,
            down: LoraLinear::load(weights, layout, (layer, Projection::Down), biased)?,
            activation: spec.mlp.activation,
        })
    }

    /// Its linear layers in the base.
    pub(super) fn base_sites(&self) -> impl Iterator<Item = (Site, BaseSite)> {
        self.gate_up.base_sites().chain(self.down.base_sites())
    }

    /// Adds the output for `x` to `y`, both `[T, hidden]`.
    pub(super) fn add_to(&self, y: &mut Act, x: &Act, step: &StepContext<'_>) -> Result<()> {
        let gate_up = self.gate_up.forward(x, step.batch.lora.segments(), step)?;
        let inner = step.kernels.gated(&gate_up, self.activation)?;
        self.down.add_to(y, &inner, step)
    }
}
