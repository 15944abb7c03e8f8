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

    /// Takes the table.
    pub(in crate::model) fn load(
        weights: &mut Weights<'_>,
        names: ModuleNames,
        dims: &Dims,
    ) -> Result<Self, ModelError> {
        Ok(Self { table: weights.table(&Self::name(names), dims.vocab, dims.hidden)? })
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
