//! Low-rank deltas: `y[t] += weight · (x[t] · aᵀ) · b`, each segment at its adapter's own rank.
#![expect(unsafe_code, reason = "threads write their own rows of one result")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::{Act, BaseWeight, LoraTarget, LowRank, Result, RowSegment};
use super::embedding::pair_in_host_memory;
use super::host::values_of;
use super::linear::on_tiles;
#[cfg(target_arch = "x86_64")]
use super::lora_tiles::TilePair;
use super::machine::Machine;
use super::pool::Pieces;
use super::rows::{add_rows, dots};
use super::simd::{Simd, Stored, Task};
use super::vectors::HOST;
use candle_core::{DType, WithDType};
use half::bf16;
use std::ops::Range;

/// Rows of one item: enough to use a factor well while it is in the cache, few enough to share the work.
const ROWS: usize = 8;
/// Rows whose sums are in registers together.
const TILE: usize = 4;
/// A cache line, in bytes.
const LINE: usize = 64;
/// Below this many multiplications one thread is faster than waking another.
const SERIAL: usize = 60_000;

/// The operands, checked by the caller.
pub(super) struct AddLora<'a> {
    /// `[rows, in]`; nothing, where the product makes the rows itself and so must have all there is to add.
    pub(super) x: &'a [f32],
    pub(super) rows: usize,
    pub(super) in_features: usize,
    pub(super) out_features: usize,
    pub(super) targets: &'a [LoraTarget<'a>],
    pub(super) segments: &'a [RowSegment],
    /// Whether the product had the pairs, as they [join it](AddLora::joins).
    pub(super) have_joined: bool,
}

impl<'a> AddLora<'a> {
    /// What [`check::lora`](super::super::check::lora) has passed.
    pub(super) fn new(
        x: &'a Act,
        y: &Act,
        targets: &'a [LoraTarget<'a>],
        segments: &'a [RowSegment],
    ) -> Result<Self> {
        Ok(Self { x: x.values()?, ..Self::without_rows(x.shape(), y, targets, segments) })
    }

    /// The same, to join a product that makes the rows.
    pub(super) fn without_rows(
        [rows, in_features]: [usize; 2],
        y: &Act,
        targets: &'a [LoraTarget<'a>],
        segments: &'a [RowSegment],
    ) -> Self {
        let out_features = y.cols();
        Self { x: &[], rows, in_features, out_features, targets, segments, have_joined: false }
    }
}

impl AddLora<'_> {
    /// Whether a product with `weight` can add the pairs by itself, block by block.
    pub(super) fn joins(&self, machine: &Machine, weight: &BaseWeight) -> Result<bool> {
        #[cfg(target_arch = "x86_64")]
        return Ok(on_tiles(machine, weight)? && self.fits_panels());
        #[cfg(not(target_arch = "x86_64"))]
        on_tiles(machine, weight)
    }

    /// Whether there are any pairs.
    pub(super) fn has_pairs(&self) -> bool {
        self.used(self.segments).next().is_some()
    }

    /// `y += weight · (x · aᵀ) · b`; `y` is `[rows, out]`.
    pub(super) fn add_pairs(&self, machine: &Machine, y: &mut [f32]) -> Result<()> {
        for (_, pair) in self.used(self.segments) {
            readable(machine, pair)?;
        }
        let y = Pieces::new(y);
        let mut rest = self.segments;
        while !rest.is_empty() {
            let (disjoint, after) = rest.split_at(disjoint(rest));
            rest = after;
            #[cfg(target_arch = "x86_64")]
            if let Some(amx) = machine.level.tiles() {
                self.add_tiles((machine, amx), disjoint, &y);
            }
            self.add(machine, disjoint, &y);
        }
        Ok(())
    }

    /// Every segment with every pair its rows meet.
    pub(super) fn used<'a>(
        &'a self,
        segments: &'a [RowSegment],
    ) -> impl Iterator<Item = (&'a RowSegment, &'a LowRank)> {
        self.targets.iter().flat_map(move |target| {
            segments.iter().filter_map(|segment| Some((segment, self.held(target, segment)?)))
        })
    }

    /// What a segment's rows meet at a target, if it changes anything that is left to change.
    pub(super) fn held<'a>(
        &self,
        target: &LoraTarget<'a>,
        segment: &RowSegment,
    ) -> Option<&'a LowRank> {
        target.low_rank(segment.slot).filter(|pair| pair.rank() > 0 && !self.have_joined)
    }

    /// By the pairs that lie in rows: segments that share no row, all at once; an item is some rows of one at one target.
    fn add(&self, machine: &Machine, segments: &[RowSegment], y: &Pieces<'_, f32>) {
        let in_rows = self.used(segments).filter(|(_, pair)| pair.packed().is_none());
        let work: usize = in_rows.map(|(s, pair)| s.rows.len() * pair.rank()).sum();
        if work == 0 {
            return;
        }
        let targets = self.targets.len();
        let items = targets * count(segments, ROWS);
        let run = |index: usize| {
            let target = &self.targets[index % targets];
            let Some((segment, rows)) = piece((segments, ROWS), index / targets) else { return };
            if let Some(pair) = self.held(target, segment).filter(|pair| pair.packed().is_none()) {
                let rows = (rows, segment.weight);
                match pair.rows().expect(HOST).0.dtype() {
                    DType::BF16 => self.item::<bf16>(machine, (target, pair), rows, y),
                    _ => self.item::<f32>(machine, (target, pair), rows, y),
                }
            }
        };
        if work * (self.in_features + self.out_features / targets) < SERIAL {
            (0..items).for_each(run);
        } else {
            machine.pool.run(items, &run);
        }
    }

    fn item<T: Stored + WithDType>(
        &self,
        machine: &Machine,
        (target, pair): (&LoraTarget<'_>, &LowRank),
        (rows, weight): (Range<usize>, f32),
        y: &Pieces<'_, f32>,
    ) {
        let (a, b) = pair.rows().expect(HOST);
        let (a, b) = (values_of(a).expect(HOST), values_of(b).expect(HOST));
        let factors = Factors::<T> { a: &a, b: &b, rank: pair.rank() };
        let mut shrunk = machine.floats.scratch(TILE * pair.rank());
        machine.level.run(Tile {
            lora: self,
            columns: &target.columns,
            rows,
            weight,
            factors,
            shrunk: &mut shrunk,
            y,
        });
    }
}

/// Whether these kernels can use the pair: as tiles where there are any, or as rows in host memory.
fn readable(machine: &Machine, pair: &LowRank) -> Result<()> {
    #[cfg(target_arch = "x86_64")]
    if machine.level.tiles().is_some() && TilePair::of(pair).is_some() {
        return Ok(());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = machine;
    pair_in_host_memory(pair)
}

/// How many of `segments`, which begin with one, are ascending and disjoint.
///
/// A row in several of them gets its deltas one after the other, in the order of the segments.
pub(super) fn disjoint(segments: &[RowSegment]) -> usize {
    let overlap = segments.windows(2).position(|pair| pair[1].rows.start < pair[0].rows.end);
    overlap.map_or(segments.len(), |last| last + 1)
}

/// How many pieces of `size` rows `segments` are cut into.
pub(super) fn count(segments: &[RowSegment], size: usize) -> usize {
    segments.iter().map(|segment| segment.rows.len().div_ceil(size)).sum()
}

/// Piece `index` of all the segments' pieces of `size` rows.
pub(super) fn piece(
    (segments, size): (&[RowSegment], usize),
    mut index: usize,
) -> Option<(&RowSegment, Range<usize>)> {
    for segment in segments {
        let pieces = segment.rows.len().div_ceil(size);
        if index < pieces {
            let start = segment.rows.start + index * size;
            return Some((segment, start..(start + size).min(segment.rows.end)));
        }
        index -= pieces;
    }
    None
}

/// One slot's factors in host memory.
#[derive(Clone, Copy)]
struct Factors<'a, T> {
    /// `[rank, in]`
    a: &'a [T],
    /// `[rank, out]`
    b: &'a [T],
    rank: usize,
}

/// Some rows of one segment at one target.
struct Tile<'a, T> {
    lora: &'a AddLora<'a>,
    columns: &'a Range<usize>,
    rows: Range<usize>,
    weight: f32,
    factors: Factors<'a, T>,
    /// `[TILE, rank]`
    shrunk: &'a mut [f32],
    y: &'a Pieces<'a, f32>,
}

impl<T: Stored> Task for Tile<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        // Both factors are asked for at once: their short rows give the memory nothing to foresee.
        for factor in [self.factors.a, self.factors.b] {
            let line = LINE / size_of::<T>();
            factor.iter().step_by(line).for_each(|element| simd.prefetch(element, 0));
        }
        let mut row = self.rows.start;
        while row < self.rows.end {
            let height = (self.rows.end - row).min(TILE);
            match height {
                1 => self.rows::<S, 1>(simd, row),
                2 => self.rows::<S, 2>(simd, row),
                3 => self.rows::<S, 3>(simd, row),
                _ => self.rows::<S, 4>(simd, row),
            }
            row += height;
        }
    }
}

impl<T: Stored> Tile<'_, T> {
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(&mut self, simd: S, first: usize) {
        let (rank, out) = (self.factors.rank, self.lora.out_features);
        self.shrink::<S, R>(simd, first);
        let mut factors = [&self.shrunk[..0]; R];
        for (factors, shrunk) in factors.iter_mut().zip(self.shrunk.chunks_exact(rank)) {
            *factors = shrunk;
        }
        let mut y: [&mut [f32]; R] = std::array::from_fn(|_| &mut [][..]);
        for (r, y) in y.iter_mut().enumerate() {
            let row = (first + r) * out;
            // SAFETY: the segments' rows are disjoint and so are the targets' columns; each row of a
            // target belongs to one item of the job.
            *y = unsafe { self.y.piece(row + self.columns.start..row + self.columns.end) };
        }
        add_rows(simd, &[self.factors.b], factors, &mut y);
    }

    /// `weight · x · aᵀ`
    #[inline(always)]
    fn shrink<S: Simd, const R: usize>(&mut self, simd: S, first: usize) {
        let (rank, len) = (self.factors.rank, self.lora.in_features);
        let mut x = [&self.lora.x[..0]; R];
        for (r, x) in x.iter_mut().enumerate() {
            *x = &self.lora.x[(first + r) * len..][..len];
        }
        let a = |j: usize| &self.factors.a[j * len..(j + 1) * len];
        let mut j = 0;
        while j + TILE <= rank {
            let dots = dots::<S, R, TILE>(simd, x, [a(j), a(j + 1), a(j + 2), a(j + 3)]);
            for (shrunk, dots) in self.shrunk.chunks_exact_mut(rank).zip(dots) {
                let to = shrunk[j..].iter_mut();
                to.zip(dots).for_each(|(to, dot)| *to = self.weight * dot);
            }
            j += TILE;
        }
        for j in j..rank {
            let dots = dots::<S, R, 1>(simd, x, [a(j)]);
            for (shrunk, [dot]) in self.shrunk.chunks_exact_mut(rank).zip(dots) {
                shrunk[j] = self.weight * dot;
            }
        }
    }
}
