//! Linear layers. The only place where LoRA meets the model.
use crate::{
    kernel::{Act, BaseWeight, FeedForward, LoraTarget, Result, RowSegment},
    lora::{LoraLayout, Projection, Site},
    model::{ModelError, StepContext, base_weights::BaseSite, checkpoint::Weights},
};
use std::{ops::Range, sync::Arc};

/// `y = x · Wᵀ + bias`
pub(super) struct Linear {
    weight: Arc<BaseWeight>,
    bias: Option<Bias>,
}

/// On the device for the product, and as it was read.
struct Bias {
    /// `[1, out]`
    act: Act,
    values: Arc<[f32]>,
}

impl Linear {
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
        let bias = if biased {
            let (act, values) = weights.joined(&tensors("bias"))?;
            Some(Bias { act, values: values.into() })
        } else {
            None
        };
        Ok(Self { weight, bias })
    }

    fn bias(&self) -> Option<&Act> {
        self.bias.as_ref().map(|bias| &bias.act)
    }
}

/// `N` linear layers that share their input, computed as one, their outputs side by side; each adds its
/// rows' adapter deltas.
pub(in crate::model) struct LoraLinear<const N: usize> {
    base: Linear,
    sites: [Site; N],
    /// The columns of each site's output.
    columns: [Range<usize>; N],
    /// All of them as one, where the base has them as one.
    fused: Option<Site>,
}

impl<const N: usize> LoraLinear<N> {
    /// Takes the weights of `fused` of `layer`, or of its parts where the base has those by themselves.
    pub(super) fn load(
        weights: &mut Weights<'_>,
        layout: &LoraLayout,
        (layer, fused): (usize, Projection),
        biased: bool,
    ) -> Result<Self, ModelError> {
        let sites: [Site; N] = std::array::from_fn(|part| Site::block(layer, fused.parts()[part]));
        let shapes =
            sites.map(|site| layout.shape(site).expect("the layout has every site of every layer"));
        let mut end = 0;
        let columns = shapes.map(|shape| {
            end += shape.out_features;
            end - shape.out_features..end
        });
        let fused =
            Some(Site::block(layer, fused)).filter(|fused| N > 1 && layout.shape(*fused).is_some());
        let parts: Vec<_> = match fused {
            Some(fused) => vec![(name(layout, fused), end)],
            None => sites.iter().zip(&columns).map(|(s, c)| (name(layout, *s), c.len())).collect(),
        };
        let in_features = shapes.first().map_or(0, |shape| shape.in_features);
        let base = Linear::load_stack(weights, &parts, in_features, biased)?;
        Ok(Self { base, sites, columns, fused })
    }

    /// One layer whose weight is loaded already, without a bias.
    pub(in crate::model) fn plain(weight: Arc<BaseWeight>, site: Site) -> Self {
        Self::alone(Linear { weight, bias: None }, site)
    }

    fn alone(base: Linear, site: Site) -> Self {
        let (sites, out) = ([site; N], base.weight.out_features());
        let columns = std::array::from_fn(|_| 0..out);
        Self { base, sites, columns, fused: None }
    }

    /// Each site's place in the base.
    pub(in crate::model) fn base_sites(&self) -> impl Iterator<Item = (Site, BaseSite)> {
        let all = self.fused.map(|site| (site, 0..self.base.weight.out_features()));
        let parts = self.sites.into_iter().zip(self.columns.clone());
        all.into_iter().chain(parts).map(|(site, rows)| {
            let bias = self.base.bias.as_ref().map(|bias| bias.values[rows.clone()].into());
            (site, BaseSite { weight: Arc::clone(&self.base.weight), rows, bias })
        })
    }

    /// `[T, in]` → `[T, out of all]`
    pub(in crate::model) fn forward(
        &self,
        x: &Act,
        segments: &[RowSegment],
        step: &StepContext<'_>,
    ) -> Result<Act> {
        let base = (&*self.base.weight, self.base.bias());
        if segments.is_empty() {
            return step.kernels.linear(x, base.0, base.1);
        }
        let mut y = step.kernels.adapted_linear(x, base, &self.targets(step), segments)?;
        self.add_fused(&mut y, x, segments, step)?;
        Ok(y)
    }

    /// Adds the output to `y`, `[T, out of all]`.
    pub(super) fn add_to(&self, y: &mut Act, x: &Act, step: &StepContext<'_>) -> Result<()> {
        let (base, segments) = ((&*self.base.weight, self.base.bias()), step.batch.lora.segments());
        if segments.is_empty() {
            return step.kernels.add_linear(y, x, base.0, base.1);
        }
        step.kernels.add_adapted(y, x, base, &self.targets(step), segments)?;
        self.add_fused(y, x, segments, step)
    }

    fn targets<'a>(&self, step: &StepContext<'a>) -> [LoraTarget<'a>; N] {
        std::array::from_fn(|i| LoraTarget {
            columns: self.columns[i].clone(),
            slots: step.lora.at(self.sites[i]),
        })
    }

    /// After the parts: what is left at a fused layer only ever adds (see `LoraSlots::load`).
    fn add_fused(
        &self,
        y: &mut Act,
        x: &Act,
        segments: &[RowSegment],
        step: &StepContext<'_>,
    ) -> Result<()> {
        let Some(fused) = self.fused else { return Ok(()) };
        let target = LoraTarget { columns: 0..y.cols(), slots: step.lora.at(fused) };
        step.kernels.add_lora(y, x, &[target], segments)
    }
}

impl LoraLinear<1> {
    /// Adds the output for what a feed-forward layer makes of its first layer's to `y`, `[T, out]`.
    pub(super) fn add_inner_to(
        &self,
        y: &mut Act,
        wide: (Act, FeedForward),
        step: &StepContext<'_>,
    ) -> Result<()> {
        let (base, segments) = ((&*self.base.weight, self.base.bias()), step.batch.lora.segments());
        step.kernels.add_feed_forward(y, wide, base, &self.targets(step), segments)
    }

    /// Takes the weights of a layer outside the blocks; zeros, where the checkpoint has none.
    pub(super) fn load_or_zeros(
        weights: &mut Weights<'_>,
        layout: &LoraLayout,
        site: Site,
        biased: bool,
    ) -> Result<Self, ModelError> {
        let shape = layout.shape(site).expect("the layout has every site");
        let (out, name) = (shape.out_features, name(layout, site));
        if weights.holds(&format!("{name}.weight")) {
            let parts = [(name, out)];
            let base = Linear::load_stack(weights, &parts, shape.in_features, biased)?;
            return Ok(Self::alone(base, site));
        }
        let values = vec![0.0; out];
        let bias = if biased {
            Some(Bias { act: weights.upload(&values)?, values: values.into() })
        } else {
            None
        };
        let weight = weights.zeros(out, shape.in_features)?;
        Ok(Self::alone(Linear { weight, bias }, site))
    }
}

/// What the checkpoint calls a layer.
fn name(layout: &LoraLayout, site: Site) -> String {
    layout.names().linear(site).expect("the layout has no site that its family has no module for")
}
