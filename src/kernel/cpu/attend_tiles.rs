//! Pieces of attention on tiles: sixteen queries against sixteen keys, their probabilities against values.
//!
//! What tiles store nobody can read at once, nor tiles what vectors store. So pieces that see little go through each stage
//! side by side, and one's result is there when its turn comes again.
//!
//! Queries and probabilities are rounded to bfloat16, sums are f32; bytes become pairs of bfloat16 first, which hold them
//! exactly. The rows of a tile do not meet, so a
//! row's products are the same bits for any number of rows.
#![expect(unsafe_code, reason = "tile instructions; the token proves that the machine has them")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::amx::{Amx, Shape, TILE, configure, release};
use super::attend::{Attend, Chunk, Goal, LINE, Scores, drive, write};
use super::attention::{Attention, Piece, QUERIES, TOGETHER};
use super::expanded::{Expanded, TileWord};
use super::isa::Level;
use super::kv::KvLayout;
use super::kv_words::Word;
use super::partial::Partial;
use super::pool::Pieces;
use super::simd::{Simd, Task};
use std::arch::asm;
use std::marker::PhantomData;
use std::ops::Range;

/// Groups of keys a chunk has at most.
const GROUPS: usize = 16;
/// How many groups of keys are asked for before they are needed.
const AHEAD: usize = 2;
/// Elements of a head that one product of tiles takes, and two give.
const WIDTH: usize = 2 * TILE;

/// Runs `attend` on tiles where `level` has them and they fit, else on vectors.
pub(super) fn attend<W: TileWord>(level: Level, attend: Attend<'_, W>) {
    match level.tiles() {
        Some(amx) if fits(attend.pieces[0].attention.layout) => {
            amx.pairs.vectorize(AttendTiles { amx, attend });
        }
        _ => level.run(attend),
    }
}

/// How many pieces of one chunk [`attend`] takes at a time.
pub(super) fn together(level: Level, attention: &Attention<'_, u32>) -> usize {
    if level.tiles().is_some() && fits(attention.layout) { TOGETHER } else { 1 }
}

/// An [`Attend`] on tiles.
struct AttendTiles<'a, W> {
    amx: Amx,
    attend: Attend<'a, W>,
}

/// Whether heads and blocks are whole tiles, and a chunk has no more of them than there are places.
fn fits(layout: KvLayout) -> bool {
    let shape = layout.shape;
    shape.head_dim.is_multiple_of(WIDTH)
        && shape.block_size.is_multiple_of(TILE)
        && shape.block_size <= GROUPS * TILE
}

/// Words an [`AttendTiles`] works with besides its values.
pub(super) fn words<W: TileWord>(attention: &Attention<'_, W>) -> usize {
    let head_dim = attention.layout.shape.head_dim;
    let queries = QUERIES * (head_dim / 2 + attention.chunk() / 2);
    queries + Expanded::words(attention) + TILE * head_dim + LINE / size_of::<u32>()
}

impl<W: TileWord> Task for AttendTiles<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Attend { pieces, chunks, memory, words, again, goal } = self.attend;
        let size = pieces[0].attention.layout.shape.block_size;
        let step = if size.is_multiple_of(WIDTH) { WIDTH } else { TILE };
        let rows = pieces.iter().map(Piece::len).max().unwrap_or(0);
        let mut tiles = Tiles::new(self.amx, rows, step);
        match (pieces, goal) {
            ([_, _, ..], Goal::Output(out)) => {
                side_by_side(simd, &mut tiles, (pieces, chunks.start), (memory, words), out);
            }
            ([piece, ..], goal) => {
                let (work, partials) = Work::new(simd, piece, (memory, words, again), step);
                let mut work = Alone { work, tiles };
                drive(simd, &mut work, (piece, chunks), partials, goal);
            }
            ([], _) => {}
        }
    }
}

/// The only chunk of each piece, stage by stage.
#[inline(always)]
fn side_by_side<S: Simd, W: TileWord>(
    simd: S,
    tiles: &mut Tiles,
    (pieces, chunk): (&[Piece<'_, W>], usize),
    (memory, words): (&mut [f32], &mut [u32]),
    out: &Pieces<'_, f32>,
) {
    let (values, each) = (memory.len() / pieces.len(), words.len() / pieces.len());
    let rooms = memory.chunks_exact_mut(values).zip(words.chunks_exact_mut(each));
    let mut works = [const { None }; TOGETHER];
    // No closures: they would be compiled without the instruction set.
    for ((to, piece), (memory, words)) in works.iter_mut().zip(pieces).zip(rooms) {
        let (work, partials) = Work::new(simd, piece, (memory, words, false), tiles.step);
        let (span, half) = (work.span(chunk), partials.len() / 2);
        *to = Some((work, span, Partial::of(&mut partials[..half])));
    }
    for (work, span, _) in works.iter_mut().flatten() {
        work.score(simd, tiles, span);
    }
    for (work, span, to) in works.iter_mut().flatten() {
        work.weigh(simd, span, to);
    }
    for (work, span, to) in works.iter_mut().flatten() {
        work.gather(simd, tiles, span, to.outputs);
    }
    for (work, _, to) in works.iter().flatten() {
        write(work.piece, to, out);
    }
}

/// The queries of a piece times the scale: `[QUERIES, head_dim / 2]` pairs.
#[inline(always)]
fn round_queries<S: Simd, W: Word>(simd: S, piece: &Piece<'_, W>, to: &mut [u32]) {
    let Attention { q, q_cols, args, .. } = *piece.attention;
    let scale = simd.splat(args.scale);
    let rows = to.chunks_exact_mut(to.len() / QUERIES).take(piece.len());
    for (i, to) in rows.enumerate() {
        let query = q[piece.place(i, q_cols)].as_chunks::<WIDTH>().0;
        for (query, to) in query.iter().zip(to.as_chunks_mut::<TILE>().0) {
            let mut scaled = [0.0; WIDTH];
            for at in (0..WIDTH).step_by(S::LANES) {
                simd.store(simd.mul(simd.load(&query[at..]), scale), &mut scaled[at..]);
            }
            simd.round_to_parts(&scaled, to);
        }
    }
}

/// A piece with its working memory.
struct Work<'a, W> {
    piece: &'a Piece<'a, W>,
    /// Tokens whose values one product takes.
    step: usize,
    scores: Scores<'a>,
    /// `[QUERIES, head_dim / 2]` pairs.
    q: &'a [u32],
    /// Probabilities, `[QUERIES, chunk / 2]` pairs.
    p: &'a mut [u32],
    expanded: Expanded<'a>,
    /// The values of a step whose last tokens do not exist, `[step / 2, head_dim]` pairs.
    tail: &'a mut [u32],
}

/// A piece that has the tiles to itself, chunk after chunk.
struct Alone<'a, W> {
    work: Work<'a, W>,
    tiles: Tiles,
}

impl<W: TileWord> Chunk for Alone<'_, W> {
    #[inline(always)]
    fn chunk<S: Simd>(&mut self, simd: S, chunk: usize, to: &mut Partial<'_>) {
        let Self { work, tiles } = self;
        let span = &work.span(chunk);
        work.expanded.turn_to(chunk);
        work.score(simd, tiles, span);
        work.weigh(simd, span, to);
        work.gather(simd, tiles, span, to.outputs);
    }
}

/// What a piece sees of a chunk.
struct Span {
    /// The chunk's first position.
    base: usize,
    positions: Range<usize>,
    /// Those as whole steps, counted from `base`.
    whole: Range<usize>,
}

impl<'a, W: TileWord> Work<'a, W> {
    /// In `memory` and `words`, of which the scores and what is in tiles leave the memory of two [`Partial`]s; its queries
    /// are rounded.
    #[inline(always)]
    fn new<S: Simd>(
        simd: S,
        piece: &'a Piece<'a, W>,
        (memory, words, again): (&'a mut [f32], &'a mut [u32], bool),
        step: usize,
    ) -> (Self, &'a mut [f32]) {
        let head_dim = piece.attention.layout.shape.head_dim;
        let (scores, partials, _) = Scores::of(piece.attention, memory);
        let start = words.as_ptr().align_offset(LINE).min(LINE / size_of::<u32>());
        let (q, rest) = words[start..].split_at_mut(QUERIES * head_dim / 2);
        round_queries(simd, piece, q);
        let (p, rest) = rest.split_at_mut(QUERIES * piece.attention.chunk() / 2);
        let (expanded, tail) = rest.split_at_mut(Expanded::words(piece.attention));
        let expanded = Expanded::of(piece, expanded, again);
        let tail = &mut tail[..step / 2 * head_dim];
        (Self { piece, step, scores, q, p, expanded, tail }, partials)
    }

    fn span(&self, chunk: usize) -> Span {
        let base = chunk * self.piece.attention.chunk();
        let positions = self.piece.positions(chunk);
        let whole = (positions.start - base) / self.step * self.step
            ..(positions.end - base).next_multiple_of(self.step);
        Span { base, positions, whole }
    }

    /// Scores become probabilities, and those are rounded.
    #[inline(always)]
    fn weigh<S: Simd>(&mut self, simd: S, span: &Span, to: &mut Partial<'_>) {
        let Span { base, positions, whole } = span;
        let (room, pairs) = (self.scores.room, self.p.len() / QUERIES);
        for i in 0..self.piece.len() {
            let places = (&self.piece.seen_of(i, positions, *base), whole);
            (to.greatest[i], to.sums[i]) =
                self.scores.softmax(simd, (self.piece, i), *base, places);
            let scores = &self.scores.values[i * room..][whole.clone()];
            simd.round_to_parts(scores, &mut self.p[i * pairs..][whole.start / 2..whole.end / 2]);
        }
    }

    #[inline(always)]
    fn score<S: Simd>(&mut self, simd: S, tiles: &mut Tiles, Span { base, whole, .. }: &Span) {
        let piece = self.piece;
        let mut places = [Place::NOWHERE; GROUPS];
        let places = &mut places[..whole.len() / TILE];
        let (start, end) = (base + whole.start, base + whole.end);
        let keys = |position| piece.keys(piece.attention.layout.group_of(position));
        let keys_and_next = |group: usize| {
            let position = start + group * TILE;
            let next = position + AHEAD * TILE;
            // After the last keys come the first values.
            let next = if next < end {
                keys(next)
            } else {
                piece.values((next - end + start).min(end - TILE)).0
            };
            (keys(position), next)
        };
        let at = |group| (0, whole.start / TILE + group);
        if W::EXPANDED {
            for group in 0..places.len() {
                let (keys, next) = keys_and_next(group);
                self.expanded.fill(simd, at(group), keys, (next, TILE));
            }
        }
        for (group, place) in places.iter_mut().enumerate() {
            let (keys, next) = keys_and_next(group);
            *place = Place::new(self.expanded.pairs(at(group), keys), next);
        }
        let scores = &mut self.scores.values[whole.start..];
        tiles.score(self.q, places, (scores, self.scores.room));
    }

    /// `Σ_t p[t] · values[t]`.
    #[inline(always)]
    fn gather<S: Simd>(
        &mut self,
        simd: S,
        tiles: &mut Tiles,
        Span { base, positions, whole }: &Span,
        outputs: &mut [f32],
    ) {
        let (piece, step, end) = (self.piece, self.step, positions.end);
        let dim = piece.attention.layout.shape.head_dim;
        let mut places = [Place::NOWHERE; GROUPS];
        let places = &mut places[..whole.len() / step];
        let values_and_next = |i: usize| {
            let position = base + whole.start + i * step;
            let values = &piece.values(position).0[..step / W::NUMBERS * dim];
            (values, piece.after(position + step, end).unwrap_or(values))
        };
        let at = |i| (1, whole.start / step + i);
        if W::EXPANDED {
            for i in 0..places.len() {
                let (values, next) = values_and_next(i);
                self.expanded.fill(simd, at(i), values, (next, dim));
            }
        }
        for (i, place) in places.iter_mut().enumerate() {
            let (values, next) = values_and_next(i);
            let mut now = self.expanded.pairs(at(i), values);
            let position = base + whole.start + i * step;
            // Bytes are numbers whatever they are.
            if position + step > end && !W::EXPANDED {
                copy_some(now, (end - position) * dim, dim, self.tail);
                now = self.tail;
            }
            *place = Place::new(now, next);
        }
        let pairs = self.p.len() / QUERIES;
        let p = &self.p[whole.start / 2..];
        for column in (0..dim).step_by(WIDTH) {
            let out = (&mut outputs[column..], dim);
            tiles.gather((p, pairs), places, column, out);
        }
    }
}

/// The values of the first tokens, zeros for the others: what was never written, or belonged to another
/// sequence, may be no number, and even a probability of 0 would spread it.
///
/// `values` are `[pairs, head_dim]`, `numbers` of them count.
#[inline(always)]
fn copy_some(values: &[u32], numbers: usize, dim: usize, to: &mut [u32]) {
    let full = numbers / (2 * dim) * dim;
    to[..full].copy_from_slice(&values[..full]);
    to[full..].fill(0);
    if numbers > 2 * full {
        let half = to[full..].iter_mut().zip(&values[full..]).take(dim);
        half.for_each(|(to, pair)| *to = pair & 0xffff);
    }
}

/// What a product reads, and what it asks the memory for meanwhile.
#[repr(C)]
#[derive(Clone, Copy)]
struct Place {
    now: *const u32,
    next: *const u32,
}

impl Place {
    const NOWHERE: Self = Self { now: std::ptr::null(), next: std::ptr::null() };

    fn new<W: TileWord>(now: &[u32], next: &[W]) -> Self {
        // Who makes a copy has asked for what comes next, and the product need not.
        let next = if W::EXPANDED { now.as_ptr() } else { next.as_ptr().cast() };
        Self { now: now.as_ptr(), next }
    }
}

/// Configured tiles of this thread: 0 and 1 sums, 4 queries, 5 probabilities, 6 keys, 7 values.
struct Tiles {
    rows: usize,
    step: usize,
    /// The configuration is the thread's own.
    thread: PhantomData<*const ()>,
}

impl Tiles {
    /// For `rows` queries and `step` tokens' values; the token proves that there are tiles.
    fn new(_: Amx, rows: usize, step: usize) -> Self {
        assert!((1..=TILE).contains(&rows) && (step == TILE || step == WIDTH), "whole tiles");
        let (pairs, line) = (step / 2, TILE * size_of::<u32>());
        let heights = [rows, rows, 0, 0, rows, rows, TILE, pairs];
        let mut registers = heights.map(|height| (height, line));
        registers[5].1 = pairs * size_of::<u32>();
        configure(&Shape::of(registers));
        Self { rows, step, thread: PhantomData }
    }

    /// `q · keys` of each place: `q` is `[QUERIES, head_dim / 2]` pairs, a place `[head_dim / 2, TILE]`, the
    /// scores `[QUERIES, row]`, a place's side by side.
    fn score(&mut self, q: &[u32], places: &[Place], (scores, row): (&mut [f32], usize)) {
        let pairs = q.len() / QUERIES;
        let end = (self.rows - 1) * row + places.len() * TILE;
        assert!(pairs.is_multiple_of(TILE) && end <= scores.len() && !places.is_empty());
        // SAFETY: `new` has laid out the tiles; `q` has 16 rows, every place came from a group of keys
        // of `pairs` rows, and the scores have room for all, as asserted; a prefetch cannot fault.
        unsafe {
            asm!(
                "2:",
                "mov {k}, [{places}]",
                "mov {next}, [{places} + 8]",
                "mov {x}, {q}",
                "mov {left}, {steps}",
                "tilezero tmm0",
                "3:",
                "tileloadd tmm4, [{x} + {q_row} * 1]",
                "tileloadd tmm6, [{k} + {line} * 1]",
                ".irp at, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                "prefetcht0 [{next} + \\at * 64]",
                ".endr",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "add {x}, 64",
                "add {k}, 1024",
                "add {next}, 1024",
                "dec {left}",
                "jnz 3b",
                "tilestored [{scores} + {row} * 1], tmm0",
                "add {scores}, 64",
                "add {places}, 16",
                "dec {groups}",
                "jnz 2b",
                k = out(reg) _,
                next = out(reg) _,
                x = out(reg) _,
                left = out(reg) _,
                places = inout(reg) places.as_ptr() => _,
                q = in(reg) q.as_ptr(),
                q_row = in(reg) pairs * size_of::<u32>(),
                steps = in(reg) pairs / TILE,
                line = in(reg) LINE,
                scores = inout(reg) scores.as_mut_ptr() => _,
                row = in(reg) row * size_of::<f32>(),
                groups = inout(reg) places.len() => _,
                out("tmm0") _, out("tmm4") _, out("tmm6") _,
                options(nostack),
            );
        }
    }

    /// `p · values`, place by place, of [`WIDTH`] columns from `column` on: `p` is `[QUERIES, p_row]` pairs,
    /// a place `[step / 2, row]` pairs, `out` `[QUERIES, row]`.
    fn gather(
        &mut self,
        (p, p_row): (&[u32], usize),
        places: &[Place],
        column: usize,
        (out, row): (&mut [f32], usize),
    ) {
        let pairs = self.step / 2;
        assert!((self.rows - 1) * p_row + places.len() * pairs <= p.len() && !places.is_empty());
        assert!((self.rows - 1) * row + WIDTH <= out.len() && column + WIDTH <= row);
        // The first pass brings in what comes next.
        let lines = if column == 0 { pairs * row * size_of::<u32>() / LINE } else { 0 };
        // SAFETY: `new` has laid out the tiles; every place came from `pairs` rows of values with these
        // columns, `p` and `out` have room for all, as asserted; a prefetch cannot fault.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "2:",
                "mov {v}, [{places}]",
                "mov {next}, [{places} + 8]",
                "add {v}, {column}",
                "tileloadd tmm5, [{p} + {p_row} * 1]",
                "tileloadd tmm7, [{v} + {row} * 1]",
                "tdpbf16ps tmm0, tmm5, tmm7",
                "tileloadd tmm7, [{v} + {row} * 1 + 64]",
                "tdpbf16ps tmm1, tmm5, tmm7",
                "mov {left}, {lines}",
                "test {left}, {left}",
                "jz 4f",
                "3:",
                "prefetcht0 [{next}]",
                "add {next}, 64",
                "dec {left}",
                "jnz 3b",
                "4:",
                "add {p}, {step}",
                "add {places}, 16",
                "dec {count}",
                "jnz 2b",
                "tilestored [{out} + {row} * 1], tmm0",
                "tilestored [{out} + {row} * 1 + 64], tmm1",
                v = out(reg) _,
                next = out(reg) _,
                left = out(reg) _,
                places = inout(reg) places.as_ptr() => _,
                count = inout(reg) places.len() => _,
                p = inout(reg) p.as_ptr() => _,
                p_row = in(reg) p_row * size_of::<u32>(),
                step = in(reg) pairs * size_of::<u32>(),
                column = in(reg) column * size_of::<u32>(),
                row = in(reg) row * size_of::<u32>(),
                lines = in(reg) lines,
                out = in(reg) out.as_mut_ptr(),
                out("tmm0") _, out("tmm1") _, out("tmm5") _, out("tmm7") _,
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
