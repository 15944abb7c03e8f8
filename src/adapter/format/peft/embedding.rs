//! What an adapter changes at the embedding.
use super::{
    config::LoraConfig,
    dora::{self, Factors},
    keys::Role,
    linear::{check_scaled, low_rank, scaled_transpose},
    module::Module,
    named::tensor,
    parts::Parts,
    tokens,
};
use crate::{
    adapter::AdapterError,
    lora::{EmbeddingDelta, FrozenBase, SiteShape, TrainedRows},
};
use candle_core::Tensor;

/// The embedding's part of the file, and what it stands on.
pub(super) struct Table<'a> {
    /// `[vocab, hidden]`
    pub(super) shape: [usize; 2],
    pub(super) parts: &'a Parts<'a>,
    pub(super) config: &'a LoraConfig,
    /// `None`: what depends on the base's values is left out.
    pub(super) base: Option<&'a dyn FrozenBase>,
}

impl Table<'_> {
    /// # Errors
    /// When a tensor has a wrong shape or is not finite, or the base cannot be read.
    pub(super) fn delta(&self) -> Result<EmbeddingDelta<Tensor>, AdapterError> {
        let [vocab, hidden] = self.shape;
        let mut pair = self.pair()?;
        let gain = pair.as_mut().map(|pair| self.dora(pair)).transpose()?.flatten();
        let shape = SiteShape { in_features: vocab, out_features: hidden };
        Ok(EmbeddingDelta {
            low_rank: pair.map(|pair| low_rank(pair, shape)).transpose()?,
            gain: gain.map(|gain| tensor(gain, hidden)).transpose()?,
            trained: self.trained()?,
        })
    }

    fn pair(&self) -> Result<Option<Factors>, AdapterError> {
        let Some((a, b)) = self.parts.pair() else { return Ok(None) };
        let ([vocab, hidden], path) = (self.shape, self.config.path(Module::Embedding));
        let rank = self.config.rank.at(&path)?;
        let a = a.values(&[rank, vocab], "[rank, vocab]")?;
        let values = b.values(&[hidden, rank], "[hidden, rank]")?;
        let turned = scaled_transpose(&values, rank, self.config.scaling(&path, rank)?);
        check_scaled(&turned, b)?;
        Ok(Some(Factors { rank, a, b: turned }))
    }

    /// The gain of `DoRA`, folded into `b` as well. Without a base there is none to know.
    fn dora(&self, pair: &mut Factors) -> Result<Option<Vec<f32>>, AdapterError> {
        let Some(named) = self.parts.get(Role::Magnitude) else { return Ok(None) };
        let [vocab, hidden] = self.shape;
        let magnitude = named.values(&[hidden], "[hidden]")?;
        let Some(base) = self.base else { return Ok(None) };
        let norms = dora::column_norms(base, [vocab, hidden], pair)?;
        let gain = dora::gain(&magnitude, &norms, named)?;
        for row in pair.b.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&gain).for_each(|(b, gain)| *b *= gain);
        }
        check_scaled(&pair.b, named)?;
        Ok(Some(gain))
    }

    fn trained(&self) -> Result<Option<TrainedRows<Tensor>>, AdapterError> {
        if let Some(weight) = self.parts.get(Role::Weight) {
            let weight = weight.tensor(&self.shape, "[vocab, hidden]")?;
            return Ok(Some(TrainedRows { weight, ids: None }));
        }
        let ids = self.config.extras.tokens_of(&self.config.path(Module::Embedding));
        tokens::trained(self.parts, ids, self.shape)
    }

    /// `[vocab, hidden]` as the file has it, where no model says it.
    ///
    /// # Errors
    /// When a tensor that says it has another number of axes.
    pub(super) fn shape_in_file(
        parts: &Parts<'_>,
        tokens: Option<&[u32]>,
    ) -> Result<[usize; 2], AdapterError> {
        if let Some((a, b)) = parts.pair() {
            return Ok([a.matrix()?[1], b.matrix()?[0]]);
        }
        if let Some(weight) = parts.get(Role::Weight) {
            return weight.matrix();
        }
        let highest = tokens.and_then(|ids| ids.iter().max()).map_or(0, |id| *id as usize);
        match parts.get(Role::TokenRows) {
            Some(rows) => Ok([highest + 1, rows.matrix()?[1]]),
            None => Ok([0, 0]),
        }
    }
}
