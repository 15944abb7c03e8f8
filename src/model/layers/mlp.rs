//! Feed-forward, with a gate or without.
use super::linear::LoraLinear;
use crate::{
    kernel::{Act, FeedForward, Result},
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
    between: FeedForward,
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
        let (up, between) = match spec.shape {
            MlpShape::Gated => {
                let gate_up = (layer, Projection::GateUp);
                let gate_up = LoraLinear::load(weights, layout, gate_up, biased)?;
                (Up::Gated(gate_up), FeedForward::Gated(spec.activation))
            }
            MlpShape::Plain => {
                let up = LoraLinear::load(weights, layout, (layer, Projection::Up), biased)?;
                (Up::Plain(up), FeedForward::Plain(spec.activation))
            }
        };
        let down = LoraLinear::load(weights, layout, (layer, Projection::Down), biased)?;
        Ok(Self { up, down, between })
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

    /// The output of its first layer, for `x` `[T, hidden]`.
    pub(super) fn widen(&self, x: &Act, step: &StepContext<'_>) -> Result<Act> {
        let segments = step.batch.lora.segments();
        match &self.up {
            Up::Gated(gate_up) => gate_up.forward(x, segments, step),
            Up::Plain(up) => up.forward(x, segments, step),
        }
    }

    /// Adds the output, `wide` that of the first layer, to `y`, `[T, hidden]`.
    pub(super) fn add_to(&self, y: &mut Act, wide: Act, step: &StepContext<'_>) -> Result<()> {
        self.down.add_inner_to(y, (wide, self.between), step)
    }
}
