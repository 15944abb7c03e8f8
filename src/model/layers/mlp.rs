//! Feed-forward, with a gate or without.
use super::linear::LoraLinear;
use crate::{
    kernel::{Act, Activation, Result},
    lora::{LoraLayout, Projection, Site},
    model::{
        ModelError, StepContext,
        base_weights::BaseSite,
        checkpoint::Weights,
        spec::{MlpShape, MlpSpec},
    },
};

/// `down(activation(gate(x)) · up(x))`, or `down(activation(up(x)))`
pub(super) struct Mlp {
    up: Up,
    down: LoraLinear<1>,
    activation: Activation,
}

/// What widens.
enum Up {
    /// `[T, hidden]` → rows `[gate | up]`
    Gated(LoraLinear<2>),
    /// `[T, hidden]` → `[T, inner]`
    Plain(LoraLinear<1>),
}

impl Mlp {
    /// Takes the weights of `layer`.
    pub(super) fn load(
        weights: &mut Weights<'_>,
        spec: &MlpSpec,
        layout: &LoraLayout,
        layer: usize,
    ) -> Result<Self, ModelError> {
        let biased = spec.bias.is_some();
        let up = match spec.shape {
            MlpShape::Gated => {
                let gate_up = (layer, Projection::GateUp);
                Up::Gated(LoraLinear::load(weights, layout, gate_up, biased)?)
            }
            MlpShape::Plain => {
                Up::Plain(LoraLinear::load(weights, layout, (layer, Projection::Up), biased)?)
            }
        };
        let down = LoraLinear::load(weights, layout, (layer, Projection::Down), biased)?;
        Ok(Self { up, down, activation: spec.activation })
    }

    /// Its linear layers in the base.
    pub(super) fn base_sites(&self) -> impl Iterator<Item = (Site, BaseSite)> {
        let (gated, plain) = match &self.up {
            Up::Gated(gate_up) => (Some(gate_up), None),
            Up::Plain(up) => (None, Some(up)),
        };
        let gated = gated.into_iter().flat_map(LoraLinear::base_sites);
        let plain = plain.into_iter().flat_map(LoraLinear::base_sites);
        gated.chain(plain).chain(self.down.base_sites())
    }

    /// What stands between its layers, for `x` `[T, hidden]`: `[T, inner]`.
    pub(super) fn inner(&self, x: &Act, step: &StepContext<'_>) -> Result<Act> {
        let segments = step.batch.lora.segments();
        match &self.up {
            Up::Gated(gate_up) => {
                let gate_up = gate_up.forward(x, segments, step)?;
                step.kernels.gated(&gate_up, self.activation)
            }
            Up::Plain(up) => {
                let mut inner = up.forward(x, segments, step)?;
                step.kernels.activate(&mut inner, self.activation)?;
                Ok(inner)
            }
        }
    }

    /// Adds the output of `inner` to `y`, `[T, hidden]`.
    pub(super) fn add_to(&self, y: &mut Act, inner: &Act, step: &StepContext<'_>) -> Result<()> {
        self.down.add_to(y, inner, step)
    }
}
