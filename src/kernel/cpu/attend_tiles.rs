//! A piece of attention on tiles: sixteen queries against sixteen keys, their probabilities against values.
//!
//! Queries and probabilities are rounded to bfloat16, sums are f32; bytes become pairs of bfloat16 first, which hold them
//! exactly. The rows of a tile do not meet, so a
//! row's products are the same bits for any number of rows.
#![expect(unsafe_code, reason = "tile instructions; the token proves that the machine has them")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::amx::{Amx, Shape, TILE, configure, release};
use super::attend::{Attend, Chunk, LINE, Scores, drive};
use super::attention::{Attention, Piece, QUERIES};
use super::isa::Level;
use super::kv::KvLayout;
use super::kv_words::{Quad, Word};
use super::partial::Partial;
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
        Some(amx) if fits(attend.piece.attention.layout) => {
            amx.pairs.vectorize(AttendTiles { amx, attend });
        }
        _ => level.run(attend),
    }
}

/// An [`Attend`] on tiles.
struct AttendTiles<'a, W> {
    amx: Amx,
    attend: Attend<'a, W>,
}

/// Words that are pairs of bfloat16, or can be made so.
pub(super) trait TileWord: Word {
    /// Whether they must be made so.
    const EXPANDED: bool;
    /// The same words, where they are pairs.
    fn pairs(words: &[Self]) -> &[u32];
    /// Makes lines of pairs of lines of `row` words; asks for as much from `next` on meanwhile.
    fn expand<S: Simd>(simd: S, words: &[Self], next: (&[Self], usize), to: &mut [u32]);
}

impl TileWord for u32 {
    const EXPANDED: bool = false;

    #[inline(always)]
    fn pairs(words: &[Self]) -> &[u32] {
        words
    }

    #[inline(always)]
    fn expand<S: Simd>(_: S, _: &[Self], _: (&[Self], usize), _: &mut [u32]) {}
}

/// A step is at most 127 and bfloat16 has 8 bits: nothing is rounded.
impl TileWord for Quad {
    const EXPANDED: bool = true;

    #[inline(always)]
    fn pairs(_: &[Self]) -> &[u32] {
        &[]
    }

    #[inline(always)]
    fn expand<S: Simd>(simd: S, words: &[Self], (next, row): (&[Self], usize), to: &mut [u32]) {
        let rows = words.chunks_exact(row).zip(to.chunks_exact_mut(2 * row));
        for (index, (quads, pairs)) in rows.enumerate() {
            for at in (0..row).step_by(LINE) {
                if let Some(first) = next.first() {
                    simd.prefetch(first, index * row + at);
                }
            }
            let (earlier, later) = pairs.split_at_mut(row);
            simd.bytes_to_pairs(Quad::words(quads), earlier, later);
        }
    }
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
        let Attend { piece, chunks, memory, words, again, goal } = self.attend;
        let shape = piece.attention.layout.shape;
        let step = if shape.block_size.is_multiple_of(WIDTH) { WIDTH } else { TILE };
        let (scores, partials, _) = Scores::of(piece.attention, memory);
        let start = words.as_ptr().align_offset(LINE).min(LINE / size_of::<u32>());
        let (q, rest) = words[start..].split_at_mut(QUERIES * shape.head_dim / 2);
        round_queries(simd, piece, q);
        let (p, rest) = rest.split_at_mut(QUERIES * piece.attention.chunk() / 2);
        let (expanded, tail) = rest.split_at_mut(Expanded::words(piece.attention));
        let expanded = Expanded::of(piece, expanded, again);
        let tail = &mut tail[..step / 2 * shape.head_dim];
        let tiles = Tiles::new(self.amx, piece.len(), step);
        let mut work = Work { piece, tiles, step, scores, q, p, expanded, tail };
        drive(simd, &mut work, (piece, chunks), partials, goal);
    }
}

/// Chunks of one head that stay expanded: a long prompt's pieces read them one after the other.
const HELD: usize = 8;

/// What [`TileWord::expand`] makes of chunks, kept for the next piece of the same head.
struct Expanded<'a> {
    tags: &'a mut [Tag],
    /// `[HELD, 2, chunk * head_dim / 2]` pairs: keys and values.
    pairs: &'a mut [u32],
    /// The chunk at hand, and where it is held.
    chunk: usize,
    held: usize,
    /// Whether there will be no next piece: then all chunks share the nearest memory.
    is_alone: bool,
}

/// A chunk, and a bit for each group of its keys and each step of its values that are there.
type Tag = [u32; 3];

impl<'a> Expanded<'a> {
    /// Tags, in words, a whole number of lines.
    const TAGS: usize = (HELD * size_of::<Tag>()).next_multiple_of(LINE) / size_of::<u32>();

    fn words<W: TileWord>(attention: &Attention<'_, W>) -> usize {
        let chunk = attention.chunk() * attention.layout.shape.head_dim;
        if W::EXPANDED { Self::TAGS + HELD * chunk } else { 0 }
    }

    /// In `words`, which hold what the last piece left there if that read the same head.
    fn of<W>(piece: &Piece<'_, W>, words: &'a mut [u32], again: bool) -> Self
    where
        W: TileWord,
    {
        let (tags, pairs) = words.split_at_mut(Self::TAGS.min(words.len()));
        let tags = tags.as_chunks_mut().0;
        if !again {
            tags.fill([u32::MAX, 0, 0]);
        }
        Self { tags, pairs, chunk: 0, held: 0, is_alone: piece.is_alone() }
    }

    fn turn_to(&mut self, chunk: usize) {
        (self.chunk, self.held) = (chunk, if self.is_alone { 0 } else { chunk % HELD });
    }

    /// Expands the chunk's keys (0) or values (1) number `index` of that size, unless they are held.
    #[inline(always)]
    fn fill<S: Simd, W: TileWord>(
        &mut self,
        simd: S,
        (which, index): (usize, usize),
        words: &[W],
        next: (&[W], usize),
    ) {
        let tag = &mut self.tags[self.held];
        if tag[0] != self.chunk as u32 {
            *tag = [self.chunk as u32, 0, 0];
        }
        if tag[1 + which] & (1 << index) == 0 {
            tag[1 + which] |= 1 << index;
            let place = self.place((which, index), words);
            W::expand(simd, words, next, &mut self.pairs[place]);
        }
    }

    /// The words as pairs, after [`Expanded::fill`] where they are none.
    #[inline(always)]
    fn pairs<'b, W: TileWord>(&'b self, at: (usize, usize), words: &'b [W]) -> &'b [u32] {
        if W::EXPANDED { &self.pairs[self.place(at, words)] } else { W::pairs(words) }
    }

    #[inline(always)]
    fn place<W: TileWord>(&self, (which, index): (usize, usize), words: &[W]) -> Range<usize> {
        let (len, size) = (words.len() * W::NUMBERS / 2, self.pairs.len() / (2 * HELD));
        let start = (2 * self.held + which) * size + index * len;
        start..start + len
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
    tiles: Tiles,
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

impl<W: TileWord> Chunk for Work<'_, W> {
    #[inline(always)]
    fn chunk<S: Simd>(&mut self, simd: S, chunk: usize, to: &mut Partial<'_>) {
        let base = chunk * self.piece.attention.chunk();
        let positions = self.piece.positions(chunk);
        self.expanded.turn_to(chunk);
        let whole = (positions.start - base) / self.step * self.step
            ..(positions.end - base).next_multiple_of(self.step);
        self.score(simd, base, &whole);
        let (room, pairs) = (self.scores.room, self.p.len() / QUERIES);
        for i in 0..self.piece.len() {
            let seen = self.piece.seen_of(i, &positions, base);
            let places = (&seen, &whole);
            (to.greatest[i], to.sums[i]) = self.scores.softmax(simd, (self.piece, i), base, places);
            let scores = &self.scores.values[i * room..][whole.clone()];
            simd.round_to_parts(scores, &mut self.p[i * pairs..][whole.start / 2..whole.end / 2]);
        }
        self.gather(simd, (base, positions.end), &whole, to.outputs);
    }
}

impl<W: TileWord> Work<'_, W> {
    /// Scores of the positions `whole`, counted from the chunk's `base`.
    #[inline(always)]
    fn score<S: Simd>(&mut self, simd: S, base: usize, whole: &Range<usize>) {
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
        self.tiles.score(self.q, places, (scores, self.scores.room));
    }

    /// `Σ_t p[t] · values[t]` over the positions `whole`; those from `end` on do not exist.
    #[inline(always)]
    fn gather<S: Simd>(
        &mut self,
        simd: S,
        (base, end): (usize, usize),
        whole: &Range<usize>,
        outputs: &mut [f32],
    ) {
        let (piece, step) = (self.piece, self.step);
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
            self.tiles.gather((p, pairs), places, column, out);
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
