//! Low-rank deltas: `y[t] += weight · (x[t] · aᵀ) · b`, each segment at its adapter's own rank.
#![expect(unsafe_code, reason = "threads write their own rows of one result")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::{LowRank, Result, RowSegment};
use super::host::values;
use super::machine::Machine;
use super::pool::Pieces;
use super::rows::{add_rows, dots};
use super::simd::{Simd, Task};
use std::ops::Range;

/// Rows of one item: enough to use a factor well while it is in the cache, few enough to share the work.
const ROWS: usize = 8;
/// Rows whose sums are in registers together.
const TILE: usize = 4;
/// Below this many multiplications one thread is faster than waking another.
const SERIAL: usize = 60_000;

/// The operands, checked by the caller.
pub(super) struct AddLora<'a> {
    /// `[rows, in]`
    pub(super) x: &'a [f32],
    pub(super) in_features: usize,
    pub(super) out_features: usize,
    pub(super) slots: &'a [Option<LowRank>],
    pub(super) segments: &'a [RowSegment],
}

/// One slot's factors in host memory.
#[derive(Clone, Copy)]
struct Factors<'a> {
    /// `[rank, in]`
    a: &'a [f32],
    /// `[rank, out]`
    b: &'a [f32],
    rank: usize,
}

impl AddLora<'_> {
    /// `y` is `[rows, out]`.
    pub(super) fn run(&self, machine: &Machine, y: &mut [f32]) -> Result<()> {
        let mut rest = self.segments;
        while !rest.is_empty() {
            let (disjoint, after) = rest.split_at(disjoint(rest));
            self.add(machine, disjoint, y)?;
            rest = after;
        }
        Ok(())
    }

    /// Segments that share no row, all at once.
    fn add(&self, machine: &Machine, segments: &[RowSegment], y: &mut [f32]) -> Result<()> {
        let used: Vec<(&RowSegment, &LowRank)> = segments
            .iter()
            .filter_map(|segment| Some((segment, self.slots[segment.slot].as_ref()?)))
            .filter(|(_, pair)| pair.rank() > 0)
            .collect();
        let held = used.iter().map(|(_, pair)| Ok((values(pair.a())?, values(pair.b())?)));
        let held = held.collect::<Result<Vec<_>>>()?;
        let mut items = Vec::with_capacity(used.len());
        for ((segment, pair), (a, b)) in used.iter().zip(&held) {
            items.extend(cut(segment, Factors { a, b, rank: pair.rank() }));
        }
        self.apply(machine, &items, y);
        Ok(())
    }

    fn apply(&self, machine: &Machine, items: &[Item<'_>], y: &mut [f32]) {
        let y = Pieces::new(y);
        let work: usize = items.iter().map(|item| item.rows.len() * item.factors.rank).sum();
        let run = |index: usize| {
            let item: &Item<'_> = &items[index];
            let mut shrunk = machine.floats.scratch(TILE * item.factors.rank);
            machine.level.run(Tile { lora: self, item, shrunk: &mut shrunk, y: &y });
        };
        if work * (self.in_features + self.out_features) < SERIAL {
            (0..items.len()).for_each(run);
        } else {
            machine.pool.run(items.len(), &run);
        }
    }
}

/// How many of `segments`, which begin with one, are ascending and disjoint.
///
/// A row in several of them gets its deltas one after the other, in the order of the segments.
fn disjoint(segments: &[RowSegment]) -> usize {
    let overlap = segments.windows(2).position(|pair| pair[1].rows.start < pair[0].rows.end);
    overlap.map_or(segments.len(), |last| last + 1)
}

/// Some rows of one segment.
struct Item<'a> {
    rows: Range<usize>,
    weight: f32,
    factors: Factors<'a>,
}

/// A segment in pieces of [`ROWS`].
fn cut<'a>(segment: &RowSegment, factors: Factors<'a>) -> impl Iterator<Item = Item<'a>> {
    let (rows, weight) = (segment.rows.clone(), segment.weight);
    let end = rows.end;
    let piece = move |start| Item { rows: start..(start + ROWS).min(end), weight, factors };
    rows.step_by(ROWS).map(piece)
}

struct Tile<'a> {
    lora: &'a AddLora<'a>,
    item: &'a Item<'a>,
    /// `[TILE, rank]`
    shrunk: &'a mut [f32],
    y: &'a Pieces<'a, f32>,
}

impl Task for Tile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let mut row = self.item.rows.start;
        while row < self.item.rows.end {
            let height = (self.item.rows.end - row).min(TILE);
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

impl Tile<'_> {
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(&mut self, simd: S, first: usize) {
        let (rank, out) = (self.item.factors.rank, self.lora.out_features);
        self.shrink::<S, R>(simd, first);
        let mut factors = [&self.shrunk[..0]; R];
        for (factors, shrunk) in factors.iter_mut().zip(self.shrunk.chunks_exact(rank)) {
            *factors = shrunk;
        }
        // SAFETY: the segments' rows are disjoint, and each row belongs to one item of the job.
        let y = unsafe { self.y.piece(first * out..(first + R) * out) };
        let rows = y.chunks_exact_mut(out);
        let mut y: [&mut [f32]; R] = std::array::from_fn(|_| &mut [][..]);
        for (y, row) in y.iter_mut().zip(rows) {
            *y = row;
        }
        add_rows(simd, &[self.item.factors.b], factors, &mut y);
    }

    /// `weight · x · aᵀ`
    #[inline(always)]
    fn shrink<S: Simd, const R: usize>(&mut self, simd: S, first: usize) {
        let (rank, len) = (self.item.factors.rank, self.lora.in_features);
        let mut x = [&self.lora.x[..0]; R];
        for (r, x) in x.iter_mut().enumerate() {
            *x = &self.lora.x[(first + r) * len..][..len];
        }
        let a = |j: usize| &self.item.factors.a[j * len..(j + 1) * len];
        let mut j = 0;
        while j + TILE <= rank {
            let dots = dots::<S, R, TILE>(simd, x, [a(j), a(j + 1), a(j + 2), a(j + 3)]);
            for (shrunk, dots) in self.shrunk.chunks_exact_mut(rank).zip(dots) {
                let to = shrunk[j..].iter_mut();
                to.zip(dots).for_each(|(to, dot)| *to = self.item.weight * dot);
            }
            j += TILE;
        }
        for j in j..rank {
            let dots = dots::<S, R, 1>(simd, x, [a(j)]);
            for (shrunk, [dot]) in self.shrunk.chunks_exact_mut(rank).zip(dots) {
                shrunk[j] = self.item.weight * dot;
            }
        }
    }
}
