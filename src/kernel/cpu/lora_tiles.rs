//! Low-rank deltas on tiles: sixteen rows of a segment at a time.
//!
//! Rows and what a pair shrinks them to are rounded to bfloat16, sums are f32. The rows of a tile do not meet, so a row's
//! delta is the same bits for any number of rows beside it. One row fills a sixteenth of a tile and still costs less than
//! on vectors, which would have to widen every factor.
#![expect(unsafe_code, reason = "tile instructions; the token proves that the machine has them")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::{LoraTarget, LowRank, Result, RowSegment};
use super::amx::{Amx, GROUP, TILE, Tiles, groups};
use super::buffers::Scratch;
use super::host::values_of;
use super::lora::{AddLora, count, piece};
use super::machine::Machine;
use super::memory::{Arena, PAGE, Pages, piece_bytes};
use super::pool::Pieces;
use super::row_tiles::RoundTile;
use super::simd::{Simd, Task};
use super::spans::spans;
use half::bf16;
use std::arch::asm;
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::ops::Range;
use std::sync::Arc;

/// Terms of a sum that one product of tiles takes.
const STEP: usize = 2 * TILE;
/// Bytes of a tile's row.
const LINE: usize = 64;
/// How far ahead of the products the factors are asked for.
const AHEAD_BYTES: usize = 8192;
/// Below this many multiplications one thread is faster than waking another.
const SERIAL: usize = 400_000;

/// A pair as tiles read it: both factors in pairs along what is summed over.
pub(super) struct TilePair {
    pub(super) shape: PairShape,
    /// `a` `[rank / 16, in / 32, 16, 16]`, its last tiles as narrow as what is left of the rank, and `b`
    /// `[out / 16, parts, pairs, 16]`; filled up with zeros.
    words: Pages<u32>,
    /// Whether all values are: what is multiplied by 0 is then nothing.
    is_finite: bool,
}

#[derive(Clone, Copy)]
pub(super) struct PairShape {
    rank: usize,
    /// Products along `in`.
    steps: usize,
    /// Products along the rank.
    pub(super) parts: usize,
    /// Pairs of ranks that each of them takes: as many as a tile has, if there are several.
    pairs: usize,
    out_features: usize,
}

impl PairShape {
    fn of(pair: &LowRank) -> Self {
        let (rank, parts) = (pair.rank(), pair.rank().div_ceil(STEP));
        Self {
            rank,
            steps: pair.in_features().div_ceil(STEP),
            parts,
            pairs: if parts == 1 { rank.div_ceil(2) } else { TILE },
            out_features: pair.out_features(),
        }
    }

    /// Words of `a`.
    fn shrinking(self) -> usize {
        self.rank * self.steps * TILE
    }

    /// Words of `b` for a tile of columns.
    pub(super) fn column_tile(self) -> usize {
        self.parts * self.pairs * TILE
    }

    /// Words of both factors.
    fn words(self) -> usize {
        self.shrinking() + self.out_features.div_ceil(TILE) * self.column_tile()
    }

    /// The same, and behind them zeros, so that a whole tile can be read where the last one is lower.
    fn with_room(self) -> usize {
        self.words() + TILE * TILE
    }

    /// Pairs of what a row is shrunk to, for all parts.
    fn row_pairs(self) -> usize {
        self.parts * self.pairs
    }

    /// One of a row's two sums, whole tiles of it.
    fn sum(self) -> usize {
        self.rank.next_multiple_of(TILE)
    }

    /// Both sums of a row side by side, or what becomes of them, if that is longer.
    pub(super) fn shrunk(self) -> usize {
        (2 * self.sum()).max(2 * self.row_pairs())
    }
}

impl TilePair {
    /// One adapter's pairs in this form, each made of `rows` of bfloat16; one without values stays as it is.
    ///
    /// They lie side by side, in large pages where they fill some; adapters that are smaller share theirs.
    ///
    /// # Errors
    /// When a factor is no bfloat16 in host memory, or memory fails.
    pub(super) fn of_adapter(
        machine: &Machine,
        pairs: &[&LowRank],
        rows: impl Fn(&LowRank) -> Result<LowRank>,
    ) -> Result<Vec<LowRank>> {
        let sizes = pairs.iter().map(|pair| piece_bytes(PairShape::of(pair).with_room()));
        let bytes = sizes.sum();
        let own = Arena::with_room_for(bytes);
        let arena = if 2 * bytes < PAGE { &machine.small } else { &own };
        let pair = |pair: &&LowRank| {
            let rows = rows(pair)?;
            if [pair.rank(), pair.in_features(), pair.out_features()].contains(&0) {
                return Ok(rows);
            }
            let packed = Self::pack(&rows, arena)?;
            let bytes = packed.shape.words() * size_of::<u32>();
            Ok(rows.into_packed(Arc::new(packed), bytes))
        };
        pairs.iter().map(pair).collect()
    }

    fn pack(pair: &LowRank, arena: &Arena) -> Result<Self> {
        let (a, b) = pair.rows()?;
        let (a, b) = (values_of::<bf16>(a)?, values_of::<bf16>(b)?);
        let (columns, out, shape) = (pair.in_features(), pair.out_features(), PairShape::of(pair));
        let mut words = arena.zeroed(shape.with_room())?;
        let (to_a, to_b) = words[..shape.words()].split_at_mut(shape.shrinking());
        let half = |value: bf16, number: usize| u32::from(value.to_bits()) << (16 * number);
        let a_tiles = a.chunks(TILE * columns).zip(to_a.chunks_mut(shape.steps * TILE * TILE));
        for (rows, to) in a_tiles {
            let width = rows.len() / columns;
            for (j, row) in rows.chunks_exact(columns).enumerate() {
                for (pair, to) in row.chunks(2).zip(to.chunks_exact_mut(width)) {
                    to[j] = pair.iter().enumerate().fold(0, |word, (k, a)| word | half(*a, k));
                }
            }
        }
        for (j, row) in b.chunks_exact(out).enumerate() {
            let inside = j / STEP * shape.pairs * TILE + j % STEP / 2 * TILE;
            let tiles = row.chunks(TILE).zip(to_b.chunks_exact_mut(shape.column_tile()));
            for (row, to) in tiles {
                for (b, to) in row.iter().zip(&mut to[inside..]) {
                    *to |= half(*b, j % 2);
                }
            }
        }
        let is_finite = a.iter().chain(b.iter()).all(|value| value.is_finite());
        Ok(Self { shape, words, is_finite })
    }

    /// That of a loaded pair.
    pub(super) fn of(pair: &LowRank) -> Option<&Self> {
        pair.packed()?.downcast_ref()
    }

    /// Whether rows that it does not concern may have it times 0.
    pub(super) fn is_finite(&self) -> bool {
        self.is_finite
    }

    /// Asks for what a product begins with; from then on it asks by itself.
    pub(super) fn bring(&self) {
        for line in self.words.chunks(TILE).take(AHEAD_BYTES / LINE) {
            // SAFETY: a prefetch cannot fault.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
    }

    /// `b`, with room behind it for a whole tile to be read.
    pub(super) fn b(&self) -> &[u32] {
        &self.words[self.shape.shrinking()..]
    }

    /// `a` and `b`.
    pub(super) fn factors(&self) -> (&[u32], &[u32]) {
        self.words[..self.shape.words()].split_at(self.shape.shrinking())
    }
}

impl AddLora<'_> {
    /// What a segment's rows meet at a target, if that is tiles.
    pub(super) fn held_tiles<'a>(
        &self,
        target: &LoraTarget<'a>,
        segment: &RowSegment,
    ) -> Option<&'a TilePair> {
        self.held(target, segment).and_then(TilePair::of)
    }

    /// By the pairs that are tiles: segments that share no row, all at once; an item is some rows of one at every target,
    /// or at one of them where there are fewer such items than threads.
    pub(super) fn add_tiles(
        &self,
        (machine, amx): (&Machine, Amx),
        segments: &[RowSegment],
        y: &Pieces<'_, f32>,
    ) {
        let tiles = || {
            let pairs = self.used(segments);
            pairs.filter_map(|(segment, pair)| Some((segment, TilePair::of(pair)?.shape)))
        };
        let work: usize = tiles().map(|(s, shape)| s.rows.len() * shape.rank).sum();
        if work == 0 {
            return;
        }
        let shrunk = tiles().map(|(_, shape)| shape.shrunk()).max().unwrap_or(0);
        let row_pairs = tiles().map(|(_, shape)| shape.row_pairs()).max().unwrap_or(0);
        let words = TILE * self.in_features.next_multiple_of(STEP) / 2;
        let worker = || Worker {
            amx,
            x: machine.words.scratch(words + TILE),
            shrunk: machine.floats.scratch(TILE * shrunk),
            parts: machine.words.scratch(TILE * row_pairs),
            tiles: Tiles::new(amx),
        };
        let (pieces, targets) = (count(segments, TILE), self.targets.len());
        let split = if pieces < machine.pool.threads() { targets } else { 1 };
        let run = |worker: &mut Worker<'_>, index: usize| {
            let each = targets / split;
            let item = |index: usize| {
                let (segment, rows) = piece((segments, TILE), index / split)?;
                Some((segment, rows, &self.targets[index % split * each..][..each]))
            };
            if let Some((segment, rows, targets)) = item(index) {
                let next = item(index + 1).and_then(|(segment, _, targets)| {
                    targets.iter().find_map(|target| self.held_tiles(target, segment))
                });
                self.rows(worker, (segment, rows), (targets, next), y);
            }
        };
        if work * (self.in_features + self.out_features / targets) < SERIAL {
            let mut worker = worker();
            (0..pieces * split).for_each(|index| run(&mut worker, index));
        } else {
            spans(&machine.pool, pieces * split, worker, run);
        }
    }

    /// Up to [`TILE`] rows of a segment at some targets; `next` is what this thread will probably need then.
    fn rows(
        &self,
        worker: &mut Worker<'_>,
        (segment, rows): (&RowSegment, Range<usize>),
        (targets, next): (&[LoraTarget<'_>], Option<&TilePair>),
        y: &Pieces<'_, f32>,
    ) {
        if !targets.iter().any(|target| self.held_tiles(target, segment).is_some()) {
            return;
        }
        let (height, columns, out) = (rows.len(), self.in_features, self.out_features);
        let Worker { amx, x, shrunk, parts, tiles } = worker;
        let start = x.as_ptr().align_offset(LINE).min(TILE);
        let x = &mut x[start..][..height * columns.next_multiple_of(STEP) / 2];
        let from = &self.x[rows.start * columns..rows.end * columns];
        amx.pairs.vectorize(RoundTile { x: from, width: columns, height, to: x });
        // The rows of a long segment come by piece after piece, and find its factors in the cache.
        let streams = segment.rows.len() <= TILE;
        for (index, target) in targets.iter().enumerate() {
            let Some(pair) = self.held_tiles(target, segment) else { continue };
            let rest = &targets[index + 1..];
            let next = rest.iter().find_map(|target| self.held_tiles(target, segment)).or(next);
            let ahead = Ahead { streams, next: next.unwrap_or(pair) };
            let shape = pair.shape;
            let shrunk = &mut shrunk[..height * shape.shrunk()];
            let parts = &mut parts[..height * shape.row_pairs()];
            tiles.lay_out(height, shape.pairs);
            tiles.shrink(RowTiles { words: x, block: height }, pair, streams, shrunk);
            let (weight, pairs) = (segment.weight, shape.row_pairs());
            amx.pairs.vectorize(Weigh { weight, from: shrunk, to: parts, pairs, shape });
            let y = Columns { y, row: out, start: rows.start * out + target.columns.start };
            // SAFETY: the segments' rows are disjoint, the targets' columns too, and these rows of this target belong to
            // one item of the job.
            unsafe { tiles.expand(parts, (pair, ahead), y) };
        }
    }
}

/// `weight · from` rounded to pairs: both sums of a row added first.
pub(super) struct Weigh<'a> {
    pub(super) weight: f32,
    /// `[rows, shrunk]`
    pub(super) from: &'a mut [f32],
    /// `[rows, pairs]`: of each row, as many tiles as there are parts are written, or all if that is less.
    pub(super) to: &'a mut [u32],
    /// At least [`PairShape::row_pairs`].
    pub(super) pairs: usize,
    pub(super) shape: PairShape,
}

impl Task for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let PairShape { rank, parts, .. } = self.shape;
        let rows = self.from.chunks_exact_mut(self.shape.shrunk());
        for (from, to) in rows.zip(self.to.chunks_exact_mut(self.pairs)) {
            let to = &mut to[..self.pairs.min(parts * TILE)];
            let (even, odd) = from.split_at_mut(self.shape.sum());
            for (even, odd) in even[..rank].iter_mut().zip(odd.iter()) {
                *even = self.weight * (*even + odd);
            }
            // A tile narrower than sixteen has multiplied what lies beside it.
            from[rank..2 * to.len()].fill(0.0);
            simd.round_to_parts(&from[..2 * to.len()], to);
        }
    }
}

/// Rows of a result at one target's columns.
#[derive(Clone, Copy)]
struct Columns<'a> {
    y: &'a Pieces<'a, f32>,
    /// Values from one row to the next.
    row: usize,
    /// The first row's first column.
    start: usize,
}

/// What is brought near meanwhile, where factors come from far: the same pair's words, and in the end another's first.
#[derive(Clone, Copy)]
struct Ahead<'a> {
    streams: bool,
    next: &'a TilePair,
}

/// What a thread needs for its items.
struct Worker<'a> {
    amx: Amx,
    x: Scratch<'a, u32>,
    shrunk: Scratch<'a, f32>,
    parts: Scratch<'a, u32>,
    tiles: Tiles,
}

/// Rows rounded to pairs, `TILE` of each row side by side, then the next of each: from the first row on that is meant.
#[derive(Clone, Copy)]
pub(super) struct RowTiles<'a> {
    pub(super) words: &'a [u32],
    /// How many rows lie between a row's words and its next ones.
    pub(super) block: usize,
}

/// Registers: 0 and 1 sums, 4 rows, 5 what they are shrunk to, 6 and 7 factors.
impl Tiles {
    /// `x · aᵀ`: `to` is `[height, shrunk]`.
    ///
    /// Even and odd steps have a sum each: a product waits for the one before that has the same.
    pub(super) fn shrink(&self, x: RowTiles<'_>, pair: &TilePair, streams: bool, to: &mut [f32]) {
        let PairShape { steps, .. } = pair.shape;
        let (row, sum) = (pair.shape.shrunk(), pair.shape.sum());
        assert_eq!(to.len(), self.height() * row, "both sums of every row");
        if steps == 0 {
            return to.fill(0.0);
        }
        let (height, last) = (self.height(), (steps - 1) * x.block * TILE);
        assert!(height <= x.block && last + height * TILE <= x.words.len(), "all rows");
        for (tile, a) in pair.factors().0.chunks(steps * TILE * TILE).enumerate() {
            let width = a.len() / (steps * TILE);
            let to = &mut to[tile * TILE..];
            assert!(to.len() >= (height - 1) * row + sum + TILE, "a tile of each sum");
            // SAFETY: `lay_out` has laid out the registers; `x` and `a` have `steps` tiles, as asserted and as packed: a
            // narrow one's last row reads on in `b`. `to` has room for both sums' tiles; a prefetch cannot fault.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "2:",
                    ".irp sum, 0, 1",
                    "tileloadd tmm4, [{x} + {line} * 1]",
                    "tileloadd tmm6, [{a} + {width} * 1]",
                    "tdpbf16ps tmm\\sum, tmm4, tmm6",
                    "mov {left}, {groups}",
                    "lea {next}, [{a} + {ahead}]",
                    groups!("{next}"),
                    "add {x}, {x_step}",
                    "lea {a}, [{a} + {width} * 8]",
                    "lea {a}, [{a} + {width} * 8]",
                    "dec {steps}",
                    "jz 5f",
                    ".endr",
                    "jmp 2b",
                    "5:",
                    "tilestored [{to} + {row} * 1], tmm0",
                    "add {to}, {sum}",
                    "tilestored [{to} + {row} * 1], tmm1",
                    x = inout(reg) x.words.as_ptr() => _,
                    x_step = in(reg) x.block * LINE,
                    a = inout(reg) a.as_ptr() => _,
                    width = in(reg) width * size_of::<u32>(),
                    ahead = const AHEAD_BYTES,
                    next = out(reg) _,
                    groups = in(reg) if streams { width.div_ceil(GROUP) } else { 0 },
                    left = out(reg) _,
                    line = in(reg) LINE,
                    steps = inout(reg) steps => _,
                    to = inout(reg) to.as_mut_ptr() => _,
                    sum = in(reg) sum * size_of::<f32>(),
                    row = in(reg) row * size_of::<f32>(),
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _,
                    options(nostack),
                );
            }
        }
    }

    /// `y += parts · b`: `parts` is `[height, parts, pairs]`.
    ///
    /// # Safety
    /// Nobody else has these rows of `y` at the pair's columns.
    unsafe fn expand(&self, parts: &[u32], (pair, ahead): (&TilePair, Ahead<'_>), y: Columns<'_>) {
        let (shape, (_, b)) = (pair.shape, pair.factors());
        assert_eq!(parts.len(), self.height() * shape.row_pairs(), "a row has all parts");
        let (whole, rest) = (shape.out_features / TILE, shape.out_features % TILE);
        let (b, last) = b.split_at(whole * shape.column_tile());
        // The end of the pair is here before; what is asked for then is another's beginning.
        let tile_bytes = shape.column_tile() * size_of::<u32>();
        let early = whole.saturating_sub(AHEAD_BYTES / tile_bytes);
        let (begin, end) = b.split_at(early * shape.column_tile());
        let at = |column: usize, height: usize| {
            let (first, len) = (y.start + column * TILE, (height - 1) * y.row + TILE);
            y.y.start_of(first..first + len)
        };
        for (column, b, next) in [
            (0, begin, b.as_ptr().wrapping_byte_add(AHEAD_BYTES)),
            (early, end, ahead.next.words.as_ptr()),
        ] {
            let columns = b.len() / shape.column_tile();
            if columns > 0 {
                at(column + columns - 1, self.height());
                let (next, y) = (ahead.streams.then_some(next), (at(column, self.height()), y.row));
                // SAFETY: these rows and columns are inside the result, as asserted, and nobody else's, by contract.
                unsafe { self.columns((parts, shape), (b, next), y) };
            }
        }
        if rest > 0 {
            let mut tile = [0.0; TILE * TILE];
            let piece = |row: usize| {
                let start = y.start + row * y.row + whole * TILE;
                // SAFETY: inside the pair's columns, which are nobody else's, by contract.
                unsafe { y.y.piece(start..start + rest) }
            };
            let tile_rows = || (0..self.height()).map(|row| row * TILE..row * TILE + rest);
            for (row, at) in tile_rows().enumerate() {
                tile[at].copy_from_slice(piece(row));
            }
            // SAFETY: the tile is as many rows of sixteen.
            unsafe { self.columns((parts, shape), (last, None), (tile.as_mut_ptr(), TILE)) };
            for (row, at) in tile_rows().enumerate() {
                piece(row).copy_from_slice(&tile[at]);
            }
        }
    }

    /// As many tiles of columns as `b` has; `next` is what to bring near, as much as that.
    ///
    /// # Safety
    /// `y` begins as many rows as they are laid out for, `row` values from one to the next, of as many columns, which are nobody else's.
    pub(super) unsafe fn columns(
        &self,
        (parts, shape): (&[u32], PairShape),
        (b, next): (&[u32], Option<*const u32>),
        (y, row): (*mut f32, usize),
    ) {
        let PairShape { parts: count, pairs, .. } = shape;
        assert_eq!(parts.len(), self.height() * count * pairs, "a row has all parts");
        assert_eq!(b.len() % shape.column_tile(), 0, "whole tiles");
        // SAFETY: `lay_out` has laid out the registers; every row has `count` parts, `b` as many for each tile of
        // columns, as asserted, and `y` room for those, by contract; a prefetch cannot fault.
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
                "mov {left}, {lines}",
                "test {left}, {left}",
                "jz 5f",
                "4:",
                "prefetcht0 [{next}]",
                "add {next}, 64",
                "dec {left}",
                "jnz 4b",
                "5:",
                "cmp {b}, {b_end}",
                "jne 2b",
                part = out(reg) _,
                left = out(reg) _,
                parts = in(reg) parts.as_ptr(),
                part_row = in(reg) count * pairs * size_of::<u32>(),
                count = in(reg) count,
                b = inout(reg) b.as_ptr() => _,
                b_step = in(reg) pairs * LINE,
                b_end = in(reg) b.as_ptr_range().end,
                line = in(reg) LINE,
                y = inout(reg) y => _,
                row = in(reg) row * size_of::<f32>(),
                next = inout(reg) next.unwrap_or(b.as_ptr()) => _,
                lines = in(reg) if next.is_some() { count * pairs } else { 0 },
                out("tmm0") _, out("tmm5") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}
