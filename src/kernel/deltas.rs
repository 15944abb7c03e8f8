//! What an adapter changes at one layer, and where a batch meets it.
use super::{
    Act, BaseWeight, Kernels, LowRank, Precision, Result, RowSegment,
    segments::{held, runs},
};
use candle_core::Tensor;
use std::{ops::Range, sync::Arc};

/// At a linear layer: `y ← gain ∘ y + (x·aᵀ)·b + x·trainedᵀ + shift`, every part optional.
///
/// One form for the whole LoRA family: `gain` is `DoRA`'s `m / ‖W + s·B·A‖` (Liu et al. 2024), and 0 at the outputs
/// whose weights are replaced; `shift` holds what the adapter does to the bias. `W` is how trained rows are held:
/// a [`Tensor`] f32 `[n, in]` on the host, a packed weight on the device.
#[derive(Clone, Debug)]
pub struct LinearDelta<W = Arc<BaseWeight>> {
    /// The pair, scaling and gain folded into `b`.
    pub low_rank: Option<LowRank>,
    /// `[out]` f32: factor on the base's output, its bias included.
    pub gain: Option<Tensor>,
    /// `[out]` f32: added to the output.
    pub shift: Option<Tensor>,
    /// Outputs with weights of their own.
    pub trained: Option<TrainedRows<W>>,
}

/// Rows of a weight or a table that take the place of the base's.
#[derive(Clone, Debug)]
pub struct TrainedRows<W = Arc<BaseWeight>> {
    /// `[n, in]`
    pub weight: W,
    /// `[n]`, ascending: which rows they replace; `None`: all.
    pub ids: Option<Arc<[u32]>>,
}

/// At the embedding: `h ← gain ∘ h + a[:, id]ᵀ·b`, or `trained[id] + a[:, id]ᵀ·b` where the row is replaced.
#[derive(Clone, Debug)]
pub struct EmbeddingDelta<W = Arc<BaseWeight>> {
    /// `a` `[rank, vocab]`, `b` `[rank, hidden]`, scaling and gain folded into `b`.
    pub low_rank: Option<LowRank>,
    /// `[hidden]` f32: factor on the base's row.
    pub gain: Option<Tensor>,
    /// Tokens with rows of their own, gain folded in.
    pub trained: Option<TrainedRows<W>>,
}

impl<W> From<LowRank> for LinearDelta<W> {
    fn from(pair: LowRank) -> Self {
        Self { low_rank: Some(pair), gain: None, shift: None, trained: None }
    }
}

impl<W> TrainedRows<W> {
    /// Which of them takes the place of the base's row `id`.
    pub(super) fn place(&self, id: u32) -> Option<usize> {
        match &self.ids {
            Some(ids) => ids.binary_search(&id).ok(),
            None => Some(id as usize),
        }
    }
}

impl TrainedRows<Tensor> {
    fn load(&self, kernels: &dyn Kernels, precision: Precision) -> Result<TrainedRows> {
        let weight = Arc::new(kernels.load_rows(&self.weight, precision)?);
        Ok(TrainedRows { weight, ids: self.ids.clone() })
    }
}

impl LinearDelta<Tensor> {
    /// Host bytes.
    pub fn bytes(&self) -> usize {
        let vectors = [&self.gain, &self.shift].into_iter().flatten().map(bytes);
        let pair = self.low_rank.as_ref().map_or(0, LowRank::bytes);
        pair + vectors.sum::<usize>() + self.trained.as_ref().map_or(0, |t| bytes(&t.weight))
    }

    /// Brought to the device of `kernels`, beside a base that is stored in `precision`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn load(&self, kernels: &dyn Kernels, precision: Precision) -> Result<LinearDelta> {
        let pair = |pair| kernels.load_low_rank(pair, precision);
        let pair = self.low_rank.as_ref().map(pair).transpose()?;
        self.load_beside(pair, kernels, precision)
    }

    /// As [`LinearDelta::load`], its pair being there already.
    ///
    /// # Errors
    /// When the device fails.
    pub fn load_beside(
        &self,
        low_rank: Option<LowRank>,
        kernels: &dyn Kernels,
        precision: Precision,
    ) -> Result<LinearDelta> {
        let vector = |vector| kernels.load_vector(vector);
        Ok(LinearDelta {
            low_rank,
            gain: self.gain.as_ref().map(vector).transpose()?,
            shift: self.shift.as_ref().map(vector).transpose()?,
            trained: self.trained.as_ref().map(|t| t.load(kernels, precision)).transpose()?,
        })
    }
}

impl EmbeddingDelta<Tensor> {
    /// Host bytes.
    pub fn bytes(&self) -> usize {
        let pair = self.low_rank.as_ref().map_or(0, LowRank::bytes);
        let trained = self.trained.as_ref().map_or(0, |t| bytes(&t.weight));
        pair + self.gain.as_ref().map_or(0, bytes) + trained
    }

    /// Brought to the device of `kernels`, beside a table that is stored in `precision`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn load(&self, kernels: &dyn Kernels, precision: Precision) -> Result<EmbeddingDelta> {
        let pair = |pair| kernels.load_embedding_pair(pair, precision);
        Ok(EmbeddingDelta {
            low_rank: self.low_rank.as_ref().map(pair).transpose()?,
            gain: self.gain.as_ref().map(|gain| kernels.load_vector(gain)).transpose()?,
            trained: self.trained.as_ref().map(|t| t.load(kernels, precision)).transpose()?,
        })
    }
}

impl<W> EmbeddingDelta<W> {
    /// Whether the base's row of this token is replaced.
    pub(super) fn replaces(&self, id: u32) -> bool {
        self.trained.as_ref().is_some_and(|trained| trained.place(id).is_some())
    }
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

/// What adapters change at one linear layer, whose output is some columns of a joint one.
#[derive(Clone, Debug)]
pub struct LoraTarget<'a> {
    /// Columns of `y`.
    pub columns: Range<usize>,
    /// What each adapter slot holds there.
    pub slots: &'a [Option<LinearDelta>],
}

impl<'a> LoraTarget<'a> {
    /// The pair that `slot` holds, if it holds one.
    pub(super) fn low_rank(&self, slot: usize) -> Option<&'a LowRank> {
        self.slots[slot].as_ref()?.low_rank.as_ref()
    }
}

/// A norm's weight, for rows whose adapters replace it too: `base + Σ weight · (slot − base)`.
#[derive(Clone, Copy, Debug)]
pub struct NormWeights<'a> {
    /// `[1, len]`
    pub base: &'a Act,
    /// `[len]` f32: the weight of each adapter slot that has one; empty where none has.
    pub slots: &'a [Option<Tensor>],
    /// The rows that use them.
    pub segments: &'a [RowSegment],
}

impl<'a> NormWeights<'a> {
    /// The base's for every row.
    pub fn base(base: &'a Act) -> Self {
        Self { base, slots: &[], segments: &[] }
    }

    /// Rows that share one weight, side by side.
    pub(super) fn runs(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        runs(if self.slots.is_empty() { &[] } else { self.segments }, rows)
    }

    /// The weights that change a row's, each with how much.
    pub(super) fn held(&self, row: usize) -> impl Iterator<Item = (&'a Tensor, f32)> + Clone {
        held(self.slots, self.segments, row)
    }
}
