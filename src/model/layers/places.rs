//! An encoder's embedding: what a token is, where it stands, and which text it belongs to.
use super::{Embedding, LayerNorm};
use crate::{
    kernel::{Act, BaseWeight, Result},
    lora::{LoraLayout, NormSite},
    model::{
        ModelError, StepContext,
        checkpoint::Weights,
        spec::{EncoderSpec, Positions},
    },
};
use std::{borrow::Cow, sync::Arc};

/// `norm(words[id] + positions[position] + types[text])`, the latter two where the family has them.
pub(in crate::model) struct PlacedEmbedding {
    words: Embedding,
    /// `[positions, hidden]`
    positions: Option<Act>,
    /// `[texts, hidden]`
    types: Option<Act>,
    norm: LayerNorm,
}

impl PlacedEmbedding {
    /// Takes the tables; positions beyond `max_positions` are never asked for.
    pub(in crate::model) fn load(
        weights: &mut Weights<'_>,
        spec: &EncoderSpec,
        layout: &LoraLayout,
        max_positions: usize,
    ) -> Result<Self, ModelError> {
        let (dims, prefix) = (&spec.dims, spec.names.prefix());
        let words = Embedding::load(weights, spec.names, (dims, false))?;
        let positions = match spec.positions {
            Positions::Rotary { .. } => None,
            Positions::Table { first } => {
                let name = format!("{prefix}embeddings.position_embeddings.weight");
                let shape = (first + dims.max_positions, dims.hidden);
                Some(weights.rows(&name, shape, first..first + max_positions)?)
            }
        };
        let types = match spec.token_types {
            0 => None,
            texts => {
                let name = format!("{prefix}embeddings.token_type_embeddings.weight");
                Some(weights.rows(&name, (texts, dims.hidden), 0..texts)?)
            }
        };
        let norm = LayerNorm::load(weights, layout, NormSite::Embedding, spec.norms.eps)?;
        Ok(Self { words, positions, types, norm })
    }

    /// The table of words `[vocab, hidden]`.
    pub(in crate::model) fn table(&self) -> &Arc<BaseWeight> {
        self.words.table()
    }

    /// The step's tokens: `[T, hidden]`
    pub(in crate::model) fn forward(&self, step: &StepContext<'_>) -> Result<Act> {
        let (kernels, batch) = (step.kernels, step.batch);
        let mut x = self.words.forward(step)?;
        if let Some(positions) = &self.positions {
            kernels.add_rows(&mut x, positions, &batch.positions)?;
        }
        if let Some(types) = &self.types {
            kernels.add_rows(&mut x, types, &Self::texts(step, types.rows()))?;
        }
        self.norm.forward(&x, batch.lora.segments(), step)
    }

    /// Which text each token belongs to, as far as the model can tell `count` of them apart.
    fn texts<'a>(step: &StepContext<'a>, count: usize) -> Cow<'a, [u32]> {
        let batch = step.batch;
        if batch.token_types.is_empty() || count == 1 {
            return Cow::Owned(vec![0; batch.token_ids.len()]);
        }
        Cow::Borrowed(&batch.token_types)
    }
}
