//! Token embedding.
use crate::{
    kernel::{Act, BaseWeight, Kernels, Result},
    model::{ModelError, checkpoint::Weights, spec::Dims},
};
use std::sync::Arc;

/// The table `[vocab, hidden]`.
pub(in crate::model) struct Embedding {
    table: Arc<BaseWeight>,
}

impl Embedding {
    /// The tensor's name.
    pub(in crate::model) const NAME: &'static str = "model.embed_tokens.weight";

    /// Takes the table.
    pub(in crate::model) fn load(
        weights: &mut Weights<'_>,
        dims: &Dims,
    ) -> Result<Self, ModelError> {
        Ok(Self { table: weights.table(Self::NAME, dims.vocab, dims.hidden)? })
    }

    /// The table, for a head that is tied to it.
    pub(in crate::model) fn table(&self) -> &Arc<BaseWeight> {
        &self.table
    }

    /// `[T]` → `[T, hidden]`
    pub(in crate::model) fn forward(&self, ids: &[u32], kernels: &dyn Kernels) -> Result<Act> {
        kernels.embed(&self.table, ids)
    }
}
