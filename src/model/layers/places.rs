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
    positions: Option<Places>,
    /// `[texts, hidden]`
    types: Option<Act>,
    norm: LayerNorm,
}

/// A row for each place in a text.
struct Places {
    /// `[places, hidden]`; the first is the padding token's, where there is one.
    table: Act,
    padding: Option<u32>,
}

impl Places {
    /// The rows of a step's tokens, whose texts are all whole.
    fn rows<'a>(&self, ids: &[u32], positions: &'a [u32]) -> Cow<'a, [u32]> {
        match self.padding {
            None => Cow::Borrowed(positions),
            Some(padding) => Cow::Owned(around_padding(ids, positions, padding)),
        }
    }
}

/// `transformers`' `create_position_ids_from_input_ids`, counted from the padding token's row on.
fn around_padding(ids: &[u32], positions: &[u32], padding: u32) -> Vec<u32> {
    let mut skipped = 0;
    let place = |(id, position): (&u32, &u32)| {
        if *position == 0 {
            skipped = 0;
        }
        if *id == padding {
            skipped += 1;
            return 0;
        }
        1 + position - skipped
    };
    ids.iter().zip(positions).map(place).collect()
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
            Positions::Table { first, padding } => {
                let name = format!("{prefix}embeddings.position_embeddings.weight");
                let shape = (first + dims.max_positions, dims.hidden);
                let kept = first - usize::from(padding.is_some())..first + max_positions;
                Some(Places { table: weights.rows(&name, shape, kept)?, padding })
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
        if let Some(places) = &self.positions {
            let rows = places.rows(&batch.token_ids, &batch.positions);
            kernels.add_rows(&mut x, &places.table, &rows)?;
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

#[cfg(test)]
mod tests {
    use super::around_padding;

    #[test]
    fn padding_in_a_text_has_a_row_of_its_own_and_counts_for_nobody() {
        // What `create_position_ids_from_input_ids` gives, less its padding index.
        let ids = [0, 9, 1, 1, 8, 2, 0, 7, 1, 2];
        let positions = [0, 1, 2, 3, 4, 5, 0, 1, 2, 3];
        assert_eq!(around_padding(&ids, &positions, 1), [1, 2, 0, 0, 3, 4, 1, 2, 0, 3]);
        assert!(around_padding(&[], &[], 1).is_empty());
    }
}
