//! Random deltas of every kind, alone and mixed.
use super::inputs::Noise;
use crate::kernel::{EmbeddingDelta, LinearDelta, LoraTarget, Precision, RowSegment, TrainedRows};
use candle_core::{DType, Device, Tensor};
use half::bf16;
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

/// `values` as kernels may take them for deltas of `precision`: all but f32 may round rows to bf16 on the way.
pub(super) fn held_by(precision: Precision, values: &[f32]) -> Vec<f32> {
    let round = |value: &f32| match precision {
        Precision::F32 => *value,
        _ => bf16::from_f32(*value).to_f32(),
    };
    values.iter().map(round).collect()
}

/// The sum of the sizes of what makes each value of `y` with its deltas: what an error on the way is to be measured by.
///
/// Every value that a pair shrinks a row to is a term; what cancels within that sum is not seen.
pub(super) fn terms(
    (y, n): (&[f32], usize),
    (x, k): (&[f32], usize),
    targets: &[LoraTarget<'_>],
    segments: &[RowSegment],
) -> Vec<f32> {
    let mut sizes: Vec<f32> = y.iter().map(|y| y.abs()).collect();
    for (target, segment) in
        targets.iter().flat_map(|target| segments.iter().map(move |s| (target, s)))
    {
        let Some(delta) = &target.slots[segment.slot] else { continue };
        let terms = Terms::new(delta);
        for row in segment.rows.clone() {
            let columns = row * n + target.columns.start..row * n + target.columns.end;
            let added = terms.of(&y[columns.clone()], &x[row * k..(row + 1) * k]);
            let sizes = &mut sizes[columns];
            sizes
                .iter_mut()
                .zip(added)
                .for_each(|(size, added)| *size += segment.weight.abs() * added);
        }
    }
    sizes
}

/// The parts of a delta as rows of values, and the output that each row is for.
#[derive(Default)]
struct Terms {
    pair: Vec<(Vec<f32>, Vec<f32>)>,
    gain: Vec<f32>,
    shift: Vec<f32>,
    trained: Vec<(usize, Vec<f32>)>,
}

impl Terms {
    fn new(delta: &LinearDelta) -> Self {
        let rows =
            |t: &Tensor| t.to_dtype(DType::F32).and_then(|t| t.to_vec2::<f32>()).expect("host");
        let vector = |t: &Tensor| t.to_vec1::<f32>().expect("host");
        let pair = delta.low_rank.as_ref().map(|pair| pair.rows().expect("the oracle's"));
        let pair = pair.map(|(a, b)| rows(a).into_iter().zip(rows(b)).collect());
        let trained = delta.trained.as_ref().map(|trained| {
            let rows = rows(trained.weight.tensor().expect("the oracle's"));
            let column = |place| trained.ids.as_ref().map_or(place, |ids| ids[place] as usize);
            rows.into_iter().enumerate().map(|(place, row)| (column(place), row)).collect()
        });
        Self {
            pair: pair.unwrap_or_default(),
            gain: delta.gain.as_ref().map(vector).unwrap_or_default(),
            shift: delta.shift.as_ref().map(vector).unwrap_or_default(),
            trained: trained.unwrap_or_default(),
        }
    }

    /// The sizes of what the delta adds to a row's outputs, for a weight of 1.
    fn of(&self, y: &[f32], x: &[f32]) -> Vec<f32> {
        let dot = |row: &[f32]| x.iter().zip(row).map(|(x, w)| x * w).sum::<f32>().abs();
        let mut sizes = vec![0.0; y.len()];
        for (a, b) in &self.pair {
            let shrunk = dot(a);
            sizes.iter_mut().zip(b).for_each(|(size, b)| *size += shrunk * b.abs());
        }
        sizes.iter_mut().zip(&self.shift).for_each(|(size, shift)| *size += shift.abs());
        let gains = sizes.iter_mut().zip(y).zip(&self.gain);
        gains.for_each(|((size, y), gain)| *size += (y * (gain - 1.0)).abs());
        self.trained.iter().for_each(|(column, row)| sizes[*column] += dot(row));
        sizes
    }
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
