//! Classification heads: from hidden states to scores of labels, each row's by the head that it has.
use super::{LayerNorm, linear::LoraLinear};
use crate::{
    kernel::{Act, Activation, KernelError, Result, RowSegment},
    lora::{
        ClassHead, HeadKind, Labels, LoraLayout, LoraSlots, ModuleNames, NormSite, ResidentHead,
        Site,
    },
    model::{
        ModelError, StepContext,
        base_weights::BaseSite,
        checkpoint::Weights,
        spec::{AfterDense, ClassHeadSpec, EncoderSpec, TokenHead},
    },
};
use std::collections::BTreeMap;

/// The base's head and what stands before any head.
pub(in crate::model) struct ClassHeads {
    base: Option<(ClassHead, ResidentHead)>,
    dense: Option<HeadDense>,
    tokens: TokenHead,
}

/// `norm(activation(dense(x)))`
struct HeadDense {
    dense: LoraLinear<1>,
    activation: Activation,
    norm: Option<LayerNorm>,
}

impl ClassHeads {
    /// Those of an encoder.
    pub(in crate::model) fn of_encoder(
        weights: &mut Weights<'_>,
        spec: &EncoderSpec,
        layout: &LoraLayout,
    ) -> Result<Self, ModelError> {
        let dense = HeadDense::load(weights, &spec.class_head, spec.norms.eps, layout)?;
        Ok(Self {
            base: load_base(weights, layout, spec.labels.as_ref())?,
            dense: Some(dense),
            tokens: spec.class_head.tokens,
        })
    }

    /// Those of a decoder, with nothing before them.
    pub(in crate::model) fn of_decoder(
        weights: &mut Weights<'_>,
        labels: Option<&Labels>,
        layout: &LoraLayout,
    ) -> Result<Self, ModelError> {
        let base = load_base(weights, layout, labels)?;
        Ok(Self { base, dense: None, tokens: TokenHead::Hidden })
    }

    /// The base's own.
    pub(in crate::model) fn base(&self) -> Option<&ClassHead> {
        self.base.as_ref().map(|(head, _)| head)
    }

    /// The linear layer before the heads.
    pub(in crate::model) fn base_sites(&self) -> impl Iterator<Item = (Site, BaseSite)> {
        self.dense.iter().flat_map(|head| head.dense.base_sites())
    }

    /// Scores of the labels for each row of `x`, `[R, hidden]`; `segments` say which rows use which adapter slot.
    pub(in crate::model) fn scores(
        &self,
        kind: HeadKind,
        x: Act,
        segments: &[RowSegment],
        step: &StepContext<'_>,
    ) -> Result<Vec<Vec<f32>>> {
        let slots = slots(step.lora, x.rows(), segments)?;
        let x = match &self.dense {
            Some(dense) if kind == HeadKind::Sequence || self.tokens == TokenHead::Dense => {
                dense.forward(&x, segments, step)?
            }
            _ => x,
        };
        let mut scores = vec![Vec::new(); x.rows()];
        for (slot, rows) in by_slot(&slots) {
            let head = self.head(slot, kind, step.lora)?;
            let all = rows.len() == x.rows();
            let own = if all { None } else { Some(step.kernels.select_rows(&x, &rows)?) };
            let x = own.as_ref().unwrap_or(&x);
            let scored = step.kernels.linear(x, &head.weight, head.bias.as_deref())?;
            let values = step.kernels.read(&scored)?;
            for (row, values) in rows.iter().zip(values.chunks(scored.cols().max(1))) {
                scores[*row as usize] = values.to_vec();
            }
        }
        Ok(scores)
    }

    /// The head of a slot, or the base's.
    fn head<'a>(
        &'a self,
        slot: Option<usize>,
        kind: HeadKind,
        lora: &'a LoraSlots,
    ) -> Result<&'a ResidentHead> {
        let own = slot.and_then(|slot| lora.class_heads().get(slot)?.as_ref());
        let Some(head) = own.or(self.base.as_ref().map(|(_, head)| head)) else {
            return Err(no("neither the model nor the row's adapter has a classification head"));
        };
        match (head.labels.kind == kind, kind) {
            (true, _) => Ok(head),
            (false, HeadKind::Sequence) => Err(no("the row's head labels tokens, not whole texts")),
            (false, HeadKind::Token) => Err(no("the row's head labels whole texts, not tokens")),
        }
    }
}

impl HeadDense {
    fn load(
        weights: &mut Weights<'_>,
        spec: &ClassHeadSpec,
        eps: f32,
        layout: &LoraLayout,
    ) -> Result<Self, ModelError> {
        let biased = spec.bias.is_some();
        let dense = LoraLinear::load_or_zeros(weights, layout, Site::HeadDense, biased)?;
        let norm = match spec.after {
            AfterDense::Nothing => None,
            AfterDense::Norm => {
                Some(LayerNorm::load_or_ones(weights, layout, NormSite::Head, eps)?)
            }
        };
        Ok(Self { dense, activation: spec.activation, norm })
    }

    fn forward(&self, x: &Act, segments: &[RowSegment], step: &StepContext<'_>) -> Result<Act> {
        let mut y = self.dense.forward(x, segments, step)?;
        step.kernels.activate(&mut y, self.activation)?;
        match &self.norm {
            Some(norm) => norm.forward(&y, segments, step),
            None => Ok(y),
        }
    }
}

/// The tensor that says whether the base has the layer before its heads; `None` where the family has no such layer.
pub(in crate::model) fn dense_tensor(names: ModuleNames) -> Option<String> {
    Some(format!("{}.weight", names.linear(Site::HeadDense)?))
}

fn load_base(
    weights: &mut Weights<'_>,
    layout: &LoraLayout,
    labels: Option<&Labels>,
) -> Result<Option<(ClassHead, ResidentHead)>, ModelError> {
    let (Some(labels), Some(shape)) = (labels, layout.class_head()) else { return Ok(None) };
    let (name, count) = (layout.names().classifier(labels.kind), labels.names.len());
    let head = ClassHead {
        labels: labels.clone(),
        weight: weights.host(&format!("{name}.weight"), &[count, shape.in_features])?,
        bias: if shape.biased {
            Some(weights.host(&format!("{name}.bias"), &[count])?)
        } else {
            None
        },
    };
    let resident = head.load(weights.kernels())?;
    Ok(Some((head, resident)))
}

/// For each of `rows` rows, the slot whose own head it has; `None` where that is the base's.
fn slots(lora: &LoraSlots, rows: usize, segments: &[RowSegment]) -> Result<Vec<Option<usize>>> {
    let mut slots = vec![None; rows];
    for segment in segments {
        let Some(held) = lora.class_heads().get(segment.slot) else {
            return Err(no("a row's adapter slot does not exist"));
        };
        let Some(own) = slots.get_mut(segment.rows.clone()) else {
            return Err(no("an adapter's rows are outside those that are scored"));
        };
        if held.is_none() {
            continue;
        }
        if own.iter().any(Option::is_some) {
            return Err(no("two of a row's adapters have a classification head"));
        }
        own.fill(Some(segment.slot));
    }
    Ok(slots)
}

/// The rows of each slot's head, ascending.
fn by_slot(slots: &[Option<usize>]) -> BTreeMap<Option<usize>, Vec<u32>> {
    let mut rows = BTreeMap::<_, Vec<u32>>::new();
    for (row, slot) in slots.iter().enumerate() {
        rows.entry(*slot).or_default().push(row as u32);
    }
    rows
}

fn no(detail: &str) -> KernelError {
    KernelError::mismatch("scores", detail)
}
