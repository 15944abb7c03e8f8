//! Random deltas of every kind, alone and mixed.
use super::inputs::Noise;
use crate::kernel::{EmbeddingDelta, LinearDelta, RowSegment, TrainedRows};
use candle_core::{Device, Tensor};
use proptest::{option, prelude::*};

/// What a delta is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    rank: Option<usize>,
    gain: bool,
    shift: bool,
    /// Some rows of its own, or all.
    trained: Option<bool>,
}

/// Every mixture of parts.
pub(super) fn made() -> impl Strategy<Value = Made> {
    let trained = option::of(any::<bool>());
    let parts = (option::of(1..40_usize), any::<bool>(), any::<bool>(), trained);
    parts.prop_map(|(rank, gain, shift, trained)| Made { rank, gain, shift, trained })
}

/// Segments of a mix: what proptest draws for [`super::inputs::segments`].
pub(super) fn overlapping() -> impl Strategy<Value = Vec<(f64, f64, usize, f32)>> {
    prop::collection::vec((0.0..1.0, 0.0..1.0, 0..8_usize, -2.0..2.0_f32), 0..7)
}

/// The segments of one row, as if it were alone.
pub(super) fn of_row(segments: &[RowSegment], row: usize) -> Vec<RowSegment> {
    let holds = segments.iter().filter(|segment| segment.rows.contains(&row));
    holds.map(|segment| RowSegment { rows: 0..1, ..segment.clone() }).collect()
}

impl Noise {
    pub(super) fn vector(&mut self, len: usize) -> Tensor {
        Tensor::from_vec(self.values(len), len, &Device::Cpu).expect("sizes agree")
    }

    /// Some of `0..count`, ascending; perhaps none.
    pub(super) fn ids(&mut self, count: usize) -> Vec<u32> {
        (0..count as u32).filter(|_| self.next().is_multiple_of(3)).collect()
    }

    fn trained(&mut self, all: bool, count: usize, width: usize) -> TrainedRows<Tensor> {
        let ids = (!all).then(|| self.ids(count));
        let rows = ids.as_ref().map_or(count, Vec::len);
        TrainedRows { weight: self.tensor(rows, width), ids: ids.map(Into::into) }
    }

    pub(super) fn linear_delta(
        &mut self,
        made: Made,
        width: usize,
        out: usize,
    ) -> LinearDelta<Tensor> {
        LinearDelta {
            low_rank: made.rank.map(|rank| self.pair(rank, width, out)),
            gain: made.gain.then(|| self.vector(out)),
            shift: made.shift.then(|| self.vector(out)),
            trained: made.trained.map(|all| self.trained(all, out, width)),
        }
    }

    pub(super) fn embedding_delta(
        &mut self,
        made: Made,
        vocab: usize,
        hidden: usize,
    ) -> EmbeddingDelta<Tensor> {
        EmbeddingDelta {
            low_rank: made.rank.map(|rank| self.pair(rank, vocab, hidden)),
            gain: made.gain.then(|| self.vector(hidden)),
            trained: made.trained.map(|all| self.trained(all, vocab, hidden)),
        }
    }
}
