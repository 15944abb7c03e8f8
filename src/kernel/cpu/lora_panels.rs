//! Deltas that join the base's product: the rows are rounded once for both, and a panel of the result gets its deltas
//! while it is in the cache.
//!
//! The same products in the same order as by themselves (`lora_tiles`), so the way may be chosen by what is in a batch.
#![expect(unsafe_code, reason = "a panel's columns belong to one thread")]
use super::super::RowSegment;
use super::amx::{Amx, TILE, WIDTH};
use super::buffers::Scratch;
use super::lora::{AddLora, disjoint, may_join};
use super::lora_tiles::{PairShape, RowTiles, TilePair, Tiles, Weigh};
use super::machine::Machine;
use super::pool::Pieces;
use super::simd::Simd;
use std::ops::Range;

impl AddLora<'_> {
    /// Whether there are pairs that can join the product: those of long segments, if they are tiles over whole panels.
    ///
    /// Rows of several segments get their deltas in the order of those, so then none may be earlier.
    pub(super) fn fits_panels(&self) -> bool {
        let long = || self.used(self.segments).filter(|(segment, _)| may_join(segment));
        let whole = |columns: &Range<usize>| {
            columns.start.is_multiple_of(WIDTH) && columns.len().is_multiple_of(WIDTH)
        };
        long().next().is_some()
            && disjoint(self.segments) == self.segments.len()
            && long().all(|(_, pair)| TilePair::of(pair).is_some())
            && self.targets.iter().all(|target| whole(&target.columns))
    }
}

/// Rows of a segment that lie in one block of [`TILE`].
struct Piece<'a> {
    segment: &'a RowSegment,
    rows: Range<usize>,
    /// How many rows of segments that join come before these.
    place: usize,
}

/// Of the segments that join.
fn pieces(segments: &[RowSegment]) -> impl Iterator<Item = Piece<'_>> {
    let places = segments.iter().filter(|segment| may_join(segment)).scan(0, |end, segment| {
        let start = *end;
        *end += segment.rows.len();
        Some((segment, start))
    });
    places.flat_map(|(segment, place)| {
        let Range { start, end } = segment.rows;
        (start / TILE..end.div_ceil(TILE)).map(move |block| {
            let rows = (block * TILE).max(start)..((block + 1) * TILE).min(end);
            Piece { segment, place: place + rows.start - start, rows }
        })
    })
}

/// What all rows are shrunk to at all targets.
pub(super) struct Shrunk<'a> {
    lora: &'a AddLora<'a>,
    /// `[targets, rows, width]` pairs, a piece's rows side by side in as many as its pair has.
    parts: Scratch<'a, u32>,
    /// Of all segments that join.
    rows: usize,
    width: usize,
}

impl<'a> Shrunk<'a> {
    /// Of the rows `x` `[blocks, steps, rows, TILE]` pairs.
    pub(super) fn new(
        lora: &'a AddLora<'a>,
        (machine, amx): (&'a Machine, Amx),
        x: &[u32],
        steps: usize,
    ) -> Self {
        let shapes =
            || lora.used(lora.segments).filter_map(|(_, pair)| Some(TilePair::of(pair)?.shape));
        let width = shapes().map(PairShape::row_pairs).max().unwrap_or(0);
        let floats = TILE * shapes().map(PairShape::shrunk).max().unwrap_or(0);
        let rows = pieces(lora.segments).map(|piece| piece.rows.len()).sum();
        let mut parts = machine.words.scratch(lora.targets.len() * rows * width);
        let all = lora.x.len() / lora.in_features;
        let out = Pieces::new(&mut parts);
        machine.pool.run(pieces(lora.segments).count(), &|index| {
            let Some(Piece { segment, rows: piece, place }) = pieces(lora.segments).nth(index)
            else {
                return;
            };
            let (height, first) = (piece.len(), piece.start / TILE * TILE);
            let block = (all - first).min(TILE);
            let start = first * steps + (piece.start - first) * TILE;
            let x = RowTiles { words: &x[start..(first + block) * steps], block };
            let mut shrunk = machine.floats.scratch(floats);
            let mut tiles = Tiles::new(amx);
            for (target, at) in lora
                .targets
                .iter()
                .enumerate()
                .map(|(index, target)| (target, index * rows + place))
            {
                let Some(pair) = lora.held_tiles(target, segment) else { continue };
                let shape = pair.shape;
                let shrunk = &mut shrunk[..height * shape.shrunk()];
                tiles.configure(height, shape.pairs);
                tiles.shrink(x, pair, false, shrunk);
                // SAFETY: a place at a target belongs to one piece, and a piece to one item of the job.
                let to = unsafe { out.piece(at * width..at * width + height * shape.row_pairs()) };
                amx.pairs.vectorize(Weigh { weight: segment.weight, from: shrunk, to, shape });
            }
        });
        Self { lora, parts, rows, width }
    }

    /// Adds the deltas of all rows at a panel's `columns` of `y`, which nobody else has; tells whether there are any.
    pub(super) fn add(&self, amx: Amx, columns: &Range<usize>, y: &Pieces<'_, f32>) -> bool {
        let AddLora { targets, segments, out_features: out, .. } = *self.lora;
        let holds =
            |target: &Range<usize>| target.start <= columns.start && columns.end <= target.end;
        let Some(index) = targets.iter().position(|target| holds(&target.columns)) else {
            return false;
        };
        let (target, mut tiles) = (&targets[index], Tiles::new(amx));
        for Piece { segment, rows, place } in pieces(segments) {
            let Some(pair) = self.lora.held_tiles(target, segment) else { continue };
            let (shape, height) = (pair.shape, rows.len());
            let at = (index * self.rows + place) * self.width;
            let parts = &self.parts[at..at + height * shape.row_pairs()];
            let tile = (columns.start - target.columns.start) / TILE;
            let b = &pair.factors().1[tile * shape.column_tile()..];
            let b = &b[..WIDTH / TILE * shape.column_tile()];
            let start = rows.start * out + columns.start;
            let to = y.start_of(start..start + (height - 1) * out + WIDTH);
            tiles.configure(height, shape.pairs);
            // SAFETY: these rows and columns are inside the result, and the panel's columns belong to one thread.
            unsafe { tiles.columns((parts, shape), (b, None), (to, out)) };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        Act, CpuKernels, Isa, Kernels, LinearDelta, LoraTarget, LowRank, Precision,
    };
    use candle_core::{DType, Device, Tensor};

    fn segment(rows: Range<usize>) -> RowSegment {
        RowSegment { rows, slot: 0, weight: 1.0 }
    }

    #[test]
    fn a_piece_lies_in_one_block_and_all_together_are_the_long_segments() {
        let segments = [segment(3..40), segment(40..50), segment(64..96)];
        let cut: Vec<_> = pieces(&segments).map(|piece| (piece.rows, piece.place)).collect();
        assert_eq!(cut, [(3..16, 0), (16..32, 13), (32..40, 29), (64..80, 37), (80..96, 53)]);
    }

    #[test]
    fn long_segments_over_whole_panels_fit() {
        if !Isa::Amx.available() {
            return;
        }
        let kernels = CpuKernels::with_isa(1, Isa::Amx).unwrap();
        let factor = |out| Tensor::zeros((4, out), DType::F32, &Device::Cpu).unwrap();
        let pair = LowRank::new(factor(8), factor(64)).unwrap();
        let held = |precision| -> [Option<LinearDelta>; 1] {
            [Some(kernels.load_low_rank(&pair, precision).unwrap().into())]
        };
        let (tiles, rows) = (held(Precision::Bf16), held(Precision::F32));
        let (x, y) =
            (kernels.upload(&[0.0; 800], 100, 8), kernels.upload(&vec![0.0; 9600], 100, 96));
        let (x, y): (Act, Act) = (x.unwrap(), y.unwrap());
        let fits = |columns, slots, segments: &[RowSegment]| {
            let targets = [LoraTarget { columns, slots }];
            AddLora::new(&x, &y, &targets, segments).unwrap().fits_panels()
        };
        let long = [segment(0..3), segment(30..100)];
        assert!(fits(32..96, &tiles, &long));
        assert!(!fits(16..80, &tiles, &long), "panels are not cut");
        assert!(!fits(32..96, &rows, &long), "pairs in rows have no tiles");
        assert!(!fits(32..96, &tiles, &[segment(0..31), segment(31..50)]), "short");
        assert!(!fits(32..96, &tiles, &[segment(0..70), segment(60..100)]), "a mix");
    }
}
