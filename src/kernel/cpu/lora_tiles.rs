//! Low-rank deltas of whole texts on tiles: sixteen rows of a segment at a time.
//!
//! Rows and what a pair shrinks them to are rounded to bfloat16, sums are f32. The rows of a tile do not meet, so a row's
//! delta is the same bits for any number of rows beside it; but it is not what vectors give, so a pair is made for the
//! one or the other when it is loaded.
#![expect(unsafe_code, reason = "tile instructions; the token proves that the machine has them")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::{LowRank, Result, RowSegment};
use super::amx::{Amx, Shape, TILE, configure, release};
use super::host::values_of;
use super::lora::{AddLora, count, held, piece};
use super::machine::Machine;
use super::memory::{Arena, Pages};
use super::pool::Pieces;
use super::simd::{Simd, Task};
use super::tiles::RoundTile;
use half::bf16;
use std::arch::asm;
use std::ops::Range;
use std::sync::Arc;

/// Terms of a sum that one product of tiles takes.
const STEP: usize = 2 * TILE;
/// Words of a whole tile.
const WORDS: usize = TILE * TILE;
/// Bytes of a tile's row.
const LINE: usize = 64;
/// Below this many multiplications one thread is faster than waking another.
const SERIAL: usize = 400_000;

/// A pair as tiles read it: both factors in pairs along what is summed over.
pub(super) struct TilePair {
    shape: PairShape,
    /// `a` `[rank / 16, in / 32, 16, 16]` and `b` `[out / 16, parts, pairs, 16]`, filled up with zeros.
    words: Pages<u32>,
}

#[derive(Clone, Copy)]
struct PairShape {
    /// Tiles of ranks.
    ranks: usize,
    /// Products along `in`.
    steps: usize,
    /// Products along the rank.
    parts: usize,
    /// Pairs of ranks that each of them takes.
    pairs: usize,
    out_features: usize,
}

impl PairShape {
    fn of(pair: &LowRank) -> Self {
        let (rank, parts) = (pair.rank(), pair.rank().div_ceil(STEP));
        Self {
            ranks: rank.div_ceil(TILE),
            steps: pair.in_features().div_ceil(STEP),
            parts,
            pairs: if parts == 1 { rank.div_ceil(2) } else { TILE },
            out_features: pair.out_features(),
        }
    }

    /// Words of `a`.
    fn shrinking(self) -> usize {
        self.ranks * self.steps * WORDS
    }

    /// Words of `b` for a tile of columns.
    fn column_tile(self) -> usize {
        self.parts * self.pairs * TILE
    }

    /// What a row is shrunk to, filled up to whole tiles and whole parts.
    fn shrunk(self) -> usize {
        (self.ranks * TILE).max(2 * self.parts * self.pairs)
    }
}

impl TilePair {
    /// # Errors
    /// When a factor is no bfloat16 in host memory.
    pub(super) fn pack(pair: &LowRank) -> Result<Self> {
        let (a, b) = (values_of::<bf16>(pair.a())?, values_of::<bf16>(pair.b())?);
        let (rank, columns, out) = (pair.rank(), pair.in_features(), pair.out_features());
        let shape = PairShape::of(pair);
        let size = shape.shrinking() + out.div_ceil(TILE) * shape.column_tile();
        let mut words = Arena::of_single_pieces().zeroed::<u32>(size)?;
        let (to_a, to_b) = words.split_at_mut(shape.shrinking());
        let half = |value: bf16, number: usize| u32::from(value.to_bits()) << (16 * number);
        for (j, row) in a.chunks_exact(columns).enumerate() {
            let tiles = &mut to_a[j / TILE * shape.steps * WORDS..];
            for (k, value) in row.iter().enumerate() {
                let at = k / STEP * WORDS + k % STEP / 2 * TILE + j % TILE;
                tiles[at] |= half(*value, k % 2);
            }
        }
        for (j, row) in b.chunks_exact(out).enumerate().take(rank) {
            let inside = j / STEP * shape.pairs * TILE + j % STEP / 2 * TILE;
            for (column, value) in row.iter().enumerate() {
                let at = column / TILE * shape.column_tile() + inside + column % TILE;
                to_b[at] |= half(*value, j % 2);
            }
        }
        Ok(Self { shape, words })
    }

    /// What it takes.
    pub(super) fn bytes(&self) -> usize {
        self.words.bytes().len()
    }

    /// That of a loaded pair.
    pub(super) fn of(pair: &LowRank) -> Option<&Self> {
        pair.packed()?.downcast_ref()
    }

    /// `pair` with its tiles.
    ///
    /// # Errors
    /// As [`TilePair::pack`].
    pub(super) fn beside(pair: LowRank) -> Result<LowRank> {
        let packed = Self::pack(&pair)?;
        let bytes = packed.bytes();
        Ok(pair.with_packed(Arc::new(packed), bytes))
    }
}

impl AddLora<'_> {
    /// Whether all that `segments` meet was made for tiles.
    pub(super) fn are_tiles(&self, segments: &[RowSegment]) -> bool {
        self.used(segments).all(|(_, pair)| TilePair::of(pair).is_some())
    }

    /// Segments that share no row, all at once; an item is some rows of one at every target.
    pub(super) fn add_tiles(
        &self,
        (machine, amx): (&Machine, Amx),
        segments: &[RowSegment],
        y: &Pieces<'_, f32>,
    ) {
        let work: usize = self.used(segments).map(|(s, pair)| s.rows.len() * pair.rank()).sum();
        if work == 0 {
            return;
        }
        let items = count(segments, TILE);
        let run = |index: usize| {
            if let Some((segment, rows)) = piece((segments, TILE), index) {
                self.rows((machine, amx), segment, rows, y);
            }
        };
        if work * (self.in_features + self.out_features / self.targets.len()) < SERIAL {
            (0..items).for_each(run);
        } else {
            machine.pool.run(items, &run);
        }
    }

    /// Up to [`TILE`] rows of a segment.
    fn rows(
        &self,
        (machine, amx): (&Machine, Amx),
        segment: &RowSegment,
        rows: Range<usize>,
        y: &Pieces<'_, f32>,
    ) {
        let (height, columns) = (rows.len(), self.in_features);
        let mut words = machine.words.scratch(height * columns.next_multiple_of(STEP) / 2 + TILE);
        let start = words.as_ptr().align_offset(LINE).min(TILE);
        let x = &mut words[start..][..height * columns.next_multiple_of(STEP) / 2];
        let from = &self.x[rows.start * columns..rows.end * columns];
        amx.pairs.vectorize(RoundTile { x: from, in_features: columns, height, to: x });
        let out = self.out_features;
        // SAFETY: the segments' rows are disjoint, and these rows belong to one item of the job.
        let y = unsafe { y.piece(rows.start * out..rows.end * out) };
        for target in self.targets {
            let Some(pair) = held(target, segment).and_then(TilePair::of) else { continue };
            let shape = pair.shape;
            let mut shrunk = machine.floats.scratch(height * shape.shrunk());
            let mut parts = machine.words.scratch(height * shape.parts * shape.pairs);
            let tiles = Tiles::new(amx, height, shape);
            tiles.shrink(x, pair, &mut shrunk);
            let (weight, from, to) = (segment.weight, &mut shrunk[..], &mut parts[..]);
            amx.pairs.vectorize(Weigh { weight, from, to, shape });
            tiles.expand(&parts, pair, &mut y[target.columns.start..], out);
        }
    }
}

/// `weight · from` rounded to pairs.
struct Weigh<'a> {
    weight: f32,
    /// `[rows, shrunk]`
    from: &'a mut [f32],
    /// `[rows, parts, pairs]`
    to: &'a mut [u32],
    shape: PairShape,
}

impl Task for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let len = self.shape.parts * self.shape.pairs;
        let rows = self.from.chunks_exact_mut(self.shape.shrunk());
        for (from, to) in rows.zip(self.to.chunks_exact_mut(len)) {
            for value in from.iter_mut() {
                *value *= self.weight;
            }
            simd.round_to_parts(&from[..2 * len], to);
        }
    }
}

/// Configured tiles of this thread: 0 sums, 4 rows, 5 what they are shrunk to, 6 and 7 factors.
struct Tiles {
    height: usize,
    shape: PairShape,
}

impl Tiles {
    /// For `height` rows; the token proves that there are tiles.
    fn new(_: Amx, height: usize, shape: PairShape) -> Self {
        let PairShape { pairs, .. } = shape;
        let (rows, part) = ((height, LINE), (height, pairs * size_of::<u32>()));
        let unused = (0, 0);
        configure(&Shape::of([
            rows,
            unused,
            unused,
            unused,
            rows,
            part,
            (TILE, LINE),
            (pairs, LINE),
        ]));
        Self { height, shape }
    }

    /// `x · aᵀ`: `x` is `[steps, height, TILE]` pairs, `to` `[height, shrunk]`.
    fn shrink(&self, x: &[u32], pair: &TilePair, to: &mut [f32]) {
        let (PairShape { ranks, steps, .. }, row) = (self.shape, self.shape.shrunk());
        assert!(x.len() == steps * self.height * TILE && to.len() == self.height * row);
        to.fill(0.0);
        let a = &pair.words[..self.shape.shrinking()];
        for (tile, a) in a.chunks_exact(steps * WORDS).enumerate().take(ranks) {
            // SAFETY: `new` has configured the registers; `x` and `a` have `steps` tiles, as asserted and as packed, `to`
            // has room for a tile of these rows at each of `ranks` places.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "2:",
                    "tileloadd tmm4, [{x} + {line} * 1]",
                    "tileloadd tmm6, [{a} + {line} * 1]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "add {x}, {x_step}",
                    "add {a}, 1024",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{to} + {row} * 1], tmm0",
                    x = inout(reg) x.as_ptr() => _,
                    x_step = in(reg) self.height * LINE,
                    a = inout(reg) a.as_ptr() => _,
                    line = in(reg) LINE,
                    steps = inout(reg) steps => _,
                    to = in(reg) to[tile * TILE..].as_mut_ptr(),
                    row = in(reg) row * size_of::<f32>(),
                    out("tmm0") _, out("tmm4") _, out("tmm6") _,
                    options(nostack),
                );
            }
        }
    }

    /// `y += parts · b`: `parts` is `[height, parts, pairs]`, `y` begins at the first column of rows of `row` values.
    fn expand(&self, parts: &[u32], pair: &TilePair, y: &mut [f32], row: usize) {
        let out = self.shape.out_features;
        assert!((self.height - 1) * row + out <= y.len(), "rows have all columns");
        let (whole, rest) = (out / TILE, out % TILE);
        let b = &pair.words[self.shape.shrinking()..];
        let (b, last) = b.split_at(whole * self.shape.column_tile());
        self.columns(parts, b, y, row);
        if rest > 0 {
            let mut tile = [0.0; WORDS];
            let start = whole * TILE;
            for (tile, y) in
                tile.as_chunks_mut::<TILE>().0.iter_mut().zip(y.chunks(row)).take(self.height)
            {
                tile[..rest].copy_from_slice(&y[start..start + rest]);
            }
            self.columns(parts, last, &mut tile, TILE);
            for (tile, y) in
                tile.as_chunks::<TILE>().0.iter().zip(y.chunks_mut(row)).take(self.height)
            {
                y[start..start + rest].copy_from_slice(&tile[..rest]);
            }
        }
    }

    /// As many tiles of columns as `b` has.
    fn columns(&self, parts: &[u32], b: &[u32], y: &mut [f32], row: usize) {
        let PairShape { parts: count, pairs, .. } = self.shape;
        let columns = b.len() / self.shape.column_tile();
        if columns == 0 {
            return;
        }
        assert_eq!(parts.len(), self.height * count * pairs, "a row has all parts");
        assert!((self.height - 1) * row + columns * TILE <= y.len(), "rows have all columns");
        // SAFETY: `new` has configured the registers; every row has `count` parts, `b` as many for each of `columns`
        // tiles, and `y` room for those, as asserted.
        unsafe {
            asm!(
                "2:",
                "mov {part}, {parts}",
                "mov {left}, {count}",
                "tileloadd tmm0, [{y} + {row} * 1]",
                "3:",
                "tileloadd tmm5, [{part} + {part_row} * 1]",
                "tileloadd tmm7, [{b} + {line} * 1]",
                "tdpbf16ps tmm0, tmm5, tmm7",
                "add {part}, 64",
                "add {b}, {b_step}",
                "dec {left}",
                "jnz 3b",
                "tilestored [{y} + {row} * 1], tmm0",
                "add {y}, 64",
                "dec {columns}",
                "jnz 2b",
                part = out(reg) _,
                left = out(reg) _,
                parts = in(reg) parts.as_ptr(),
                part_row = in(reg) count * pairs * size_of::<u32>(),
                count = in(reg) count,
                b = inout(reg) b.as_ptr() => _,
                b_step = in(reg) pairs * LINE,
                line = in(reg) LINE,
                y = inout(reg) y.as_mut_ptr() => _,
                row = in(reg) row * size_of::<f32>(),
                columns = inout(reg) columns => _,
                out("tmm0") _, out("tmm5") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        release();
    }
}
