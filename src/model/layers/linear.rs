//! Linear layers. The only place where LoRA meets the model.
use crate::{
    kernel::{Act, BaseWeight, Kernels, LoraTarget, Precision, Result},
    lora::{LoraLayout, Projection, Site},
    model::{ModelError, StepContext, checkpoint::Weights},
};
use std::{ops::Range, sync::Arc};

/// `y = x · Wᵀ + bias`
pub(in crate::model) struct Linear {
    weight: Arc<BaseWeight>,
    bias: Option<Act>,
}

impl Linear {
    /// Shares a weight that is loaded already, or has one to itself, without a bias.
    pub(in crate::model) fn plain(weight: Arc<BaseWeight>) -> Self {
        Self { weight, bias: None }
    }

    /// Layers that share their input as one, their outputs side by side; `parts` are names and widths.
    fn load_stack(
        weights: &mut Weights<'_>,
        parts: &[(String, usize)],
        in_features: usize,
        biased: bool,
    ) -> Result<Self, ModelError> {
        let tensors = |kind: &str| -> Vec<(String, usize)> {
            parts.iter().map(|(name, width)| (format!("{name}.{kind}"), *width)).collect()
        };
        let weight = weights.stack(&tensors("weight"), in_features)?;
        let bias = if biased { Some(weights.joined(&tensors("bias"))?) } else { None };
        Ok(Self { weight, bias })
    }

    /// How the weight is stored.
    pub(in crate::model) fn precision(&self) -> Precision {
        self.weight.precision()
    }

    /// `[T, in]` → `[T, out]`
    pub(in crate::model) fn forward(&self, x: &Act, kernels: &dyn Kernels) -> Result<Act> {
        kernels.linear(x, &self.weight, self.bias.as_ref())
    }
}

/// `N` linear layers that share their input, computed as one, their outputs side by side; each adds its
/// rows' adapter deltas: `y = x · Wᵀ + bias + x · aᵀ · b`.
pub(super) struct LoraLinear<const N: usize> {
    base: Linear,
    sites: [Site; N],
    /// The columns of each site's output.
    columns: [Range<usize>; N],
}

impl<const N: usize> LoraLinear<N> {
    /// Takes the weights of these projections of `layer`.
    pub(super) fn load(
        weights: &mut Weights<'_>,
        layout: &LoraLayout,
        (layer, projections): (usize, [Projection; N]),
        biased: bool,
    ) -> Result<Self, ModelError> {
        let sites = projections.map(|projection| Site { layer, projection });
        let shapes =
            sites.map(|site| layout.shape(site).expect("the layout has every site of every layer"));
        let mut end = 0;
        let columns = shapes.map(|shape| {
            end += shape.out_features;
            end - shape.out_features..end
        });
        let named = |site: &Site| format!("model.{site}");
        let parts: Vec<_> =
            sites.iter().map(named).zip(shapes.map(|shape| shape.out_features)).collect();
        let in_features = shapes.first().map_or(0, |shape| shape.in_features);
        let base = Linear::load_stack(weights, &parts, in_features, biased)?;
        Ok(Self { base, sites, columns })
    }

    /// `[T, in]` → `[T, out of all]`
    pub(super) fn forward(&self, x: &Act, step: &StepContext<'_>) -> Result<Act> {
        let mut y = self.base.forward(x, step.kernels)?;
        self.add_deltas(&mut y, x, step)?;
        Ok(y)
    }

    /// Adds the output to `y`, `[T, out of all]`.
    pub(super) fn add_to(&self, y: &mut Act, x: &Act, step: &StepContext<'_>) -> Result<()> {
        step.kernels.add_linear(y, x, &self.base.weight, self.base.bias.as_ref())?;
        self.add_deltas(y, x, step)
    }

    fn add_deltas(&self, y: &mut Act, x: &Act, step: &StepContext<'_>) -> Result<()> {
        let segments = step.batch.lora.segments();
        if segments.is_empty() {
            return Ok(());
        }
        let targets: [LoraTarget<'_>; N] = std::array::from_fn(|i| LoraTarget {
            columns: self.columns[i].clone(),
            slots: step.lora.at(self.sites[i]),
        });
        step.kernels.add_lora(y, x, &targets, segments)
    }
}
