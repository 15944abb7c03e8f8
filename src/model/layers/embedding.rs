//! Token embedding, each token's row as its adapters have it.
use crate::{
    kernel::{Act, BaseWeight, Result},
    lora::ModuleNames,
    model::{ModelError, StepContext, checkpoint::Weights, spec::Dims},
};
use std::sync::Arc;

/// The table `[vocab, hidden]`.
pub(in crate::model) struct Embedding {
    table: Arc<BaseWeight>,
}

impl Embedding {
    /// The tensor's name.
    pub(in crate::model) fn name(names: ModuleNames) -> String {
        format!("{}.weight", names.embedding())
    }

    /// Takes the table, which may be the head too.
    pub(in crate::model) fn load(
        weights: &mut Weights<'_>,
        names: ModuleNames,
        (dims, is_head): (&Dims, bool),
    ) -> Result<Self, ModelError> {
        let (name, vocab, hidden) = (Self::name(names), dims.vocab, dims.hidden);
        let table = if is_head {
            weights.table(&name, vocab, hidden)?
        } else {
            weights.lookup_table(&name, vocab, hidden)?
        };
        Ok(Self { table })
    }

    /// The table, for a head that is tied to it.
    pub(in crate::model) fn table(&self) -> &Arc<BaseWeight> {
        &self.table
    }

    /// The step's tokens: `[T, hidden]`
    pub(in crate::model) fn forward(&self, step: &StepContext<'_>) -> Result<Act> {
        let (ids, segments) = (&step.batch.token_ids, step.batch.lora.segments());
        let mut x = step.kernels.embed(&self.table, ids)?;
        let slots = step.lora.embedding();
        if !slots.is_empty() {
            step.kernels.adapt_embedding(&mut x, ids, slots, segments)?;
        }
        Ok(x)
    }
}
