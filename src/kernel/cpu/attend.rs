//! Pieces of attention by one thread, chunk by chunk: what is common to vectors and tiles.
#![expect(unsafe_code, reason = "each query's output belongs to one piece")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::attention::{Attention, Piece, QUERIES};
use super::kv_words::Word;
use super::math::exp;
use super::partial::{self, Partial};
use super::pool::Pieces;
use super::simd::{Simd, Task};
use std::ops::Range;

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// Some chunks of a piece, or the only chunk of several.
pub(super) struct Attend<'a, W> {
    pub(super) pieces: &'a [Piece<'a, W>],
    pub(super) chunks: Range<usize>,
    /// [`memory`] values for each piece.
    pub(super) memory: &'a mut [f32],
    /// [`Word::words`] words for each piece.
    pub(super) words: &'a mut [u32],
    /// Whether those were last used for queries of the same sequence under the same key/value head.
    pub(super) again: bool,
    pub(super) goal: Goal<'a>,
}

/// What becomes of them.
pub(super) enum Goal<'a> {
    /// They are all: the output of the whole batch.
    Output(&'a Pieces<'a, f32>),
    /// There is one: a [`Partial`]'s memory.
    Partial(&'a mut [f32]),
}

impl Goal<'_> {
    /// The same for another piece.
    pub(super) fn again(&mut self) -> Goal<'_> {
        match self {
            Self::Output(out) => Goal::Output(out),
            Self::Partial(to) => Goal::Partial(to),
        }
    }
}

/// The chunks of a piece, computed one by one, become its output.
pub(super) struct Fold<'a, W> {
    pub(super) piece: &'a Piece<'a, W>,
    /// A [`Partial`] after the other.
    pub(super) partials: &'a mut [f32],
    pub(super) out: &'a Pieces<'a, f32>,
}

/// f32 values an [`Attend`] works with.
pub(super) fn memory<W: Word>(attention: &Attention<'_, W>) -> usize {
    let head_dim = attention.layout.shape.head_dim;
    let queries = QUERIES * (query_len(attention) + room(attention));
    queries + 2 * partial::len(head_dim) + LINE / size_of::<f32>()
}

/// Numbers of a query, filled up to whole words.
pub(super) fn query_len<W: Word>(attention: &Attention<'_, W>) -> usize {
    attention.layout.key_words() * W::NUMBERS
}

/// Scores of a query: a chunk's, and a vector more for what lies beyond the last of them.
fn room<W: Word>(attention: &Attention<'_, W>) -> usize {
    let lanes = attention.layout.lanes;
    attention.chunk().next_multiple_of(lanes) + lanes
}

impl<W: Word> Task for Fold<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let len = partial::len(self.piece.attention.layout.shape.head_dim);
        let (first, rest) = self.partials.split_at_mut(len);
        let mut state = Partial::of(first);
        for next in rest.chunks_exact_mut(len) {
            state.merge(simd, &Partial::of(next), self.piece.len());
        }
        write(self.piece, &state, self.out);
    }
}

/// One way to compute a chunk.
pub(super) trait Chunk {
    /// Keys and values pass once: all queries use a piece of them while it is in the nearest cache.
    fn chunk<S: Simd>(&mut self, simd: S, chunk: usize, to: &mut Partial<'_>);
}

/// Computes the chunks of a piece; `partials` is the memory of two.
#[inline(always)]
pub(super) fn drive<S: Simd, W: Word>(
    simd: S,
    work: &mut impl Chunk,
    (piece, chunks): (&Piece<'_, W>, Range<usize>),
    partials: &mut [f32],
    goal: Goal<'_>,
) {
    let (first, next) = partials.split_at_mut(partials.len() / 2);
    match goal {
        Goal::Partial(to) => {
            // No closure: it would be compiled without the instruction set.
            for chunk in chunks {
                work.chunk(simd, chunk, &mut Partial::of(to));
            }
        }
        Goal::Output(out) => {
            let (mut state, mut next) = (Partial::of(first), Partial::of(next));
            work.chunk(simd, chunks.start, &mut state);
            for chunk in chunks.start + 1..chunks.end {
                work.chunk(simd, chunk, &mut next);
                state.merge(simd, &next, piece.len());
            }
            write(piece, &state, out);
        }
    }
}

/// Takes the results of a piece to its rows.
#[inline(always)]
pub(super) fn write<W: Word>(piece: &Piece<'_, W>, state: &Partial<'_>, out: &Pieces<'_, f32>) {
    let cols = piece.attention.args.heads * piece.attention.layout.shape.head_dim;
    for i in 0..piece.len() {
        // SAFETY: a query belongs to one piece, a piece to one thread, and this is the only borrow.
        let to = unsafe { out.piece(piece.place(i, cols)) };
        state.write(i, to);
    }
}

/// The scores of a piece's queries.
pub(super) struct Scores<'a> {
    /// `[QUERIES, room]`, of the positions from the chunk's start on.
    pub(super) values: &'a mut [f32],
    pub(super) room: usize,
}

impl<'a> Scores<'a> {
    /// In `memory`, with the parts of it for two [`Partial`]s and for the queries.
    #[inline(always)]
    pub(super) fn of<W: Word>(
        attention: &Attention<'_, W>,
        memory: &'a mut [f32],
    ) -> (Self, &'a mut [f32], &'a mut [f32]) {
        let room = room(attention);
        // Rows of tiles that begin with a cache line are read and written faster.
        let start = memory.as_ptr().align_offset(LINE).min(LINE / size_of::<f32>());
        let (values, rest) = memory[start..].split_at_mut(QUERIES * room);
        let partials = 2 * partial::len(attention.layout.shape.head_dim);
        let (partials, queries) = rest.split_at_mut(partials);
        (Self { values, room }, partials, &mut queries[..QUERIES * query_len(attention)])
    }

    /// The scores of a piece's `i`-th query, of positions from `base` on, become `exp(score − greatest)` for the positions it has `seen` (from
    /// the chunk's start), 0 for the others of `whole`; gives back the greatest and the sum.
    #[inline(always)]
    pub(super) fn softmax<S: Simd, W: Word>(
        &mut self,
        simd: S,
        (piece, i): (&Piece<'_, W>, usize),
        base: usize,
        (seen, whole): (&Range<usize>, &Range<usize>),
    ) -> (f32, f32) {
        let scores = &mut self.values[i * self.room..][..self.room];
        if seen.is_empty() {
            scores[whole.clone()].fill(0.0);
            return (f32::NEG_INFINITY, 0.0);
        }
        piece.times_steps(0, base, seen, scores);
        let sums = softmax(simd, scores, seen, whole);
        piece.times_steps(1, base, seen, scores);
        sums
    }
}

impl<'a, W: Word> Piece<'a, W> {
    /// A group of keys.
    #[inline(always)]
    pub(super) fn keys(&self, group: usize) -> &'a [W] {
        let Attention { keys, layout, .. } = self.attention;
        let block = self.sequence.blocks[group / layout.groups()] as usize;
        let start = layout.group(block, self.kv_head, group % layout.groups());
        &keys[start..][..layout.group_len()]
    }

    /// The values of a position's block from its own row on, and how many tokens of the block lie before it.
    #[inline(always)]
    pub(super) fn values(&self, position: usize) -> (&'a [W], usize) {
        let Attention { values, layout, .. } = self.attention;
        let (size, dim) = (layout.shape.block_size, layout.shape.head_dim);
        let (block, offset) = (self.sequence.blocks[position / size] as usize, position % size);
        let values = &values[layout.values(block, self.kv_head)..][..layout.values_len()];
        (&values[offset / W::NUMBERS * dim..], offset)
    }

    /// Multiplies the scores of positions `seen`, counted from `base`, by what a step of their keys (0) or values (1) is.
    #[inline(always)]
    fn times_steps(&self, which: usize, base: usize, seen: &Range<usize>, scores: &mut [f32]) {
        let Attention { scales: Some(scales), layout, .. } = self.attention else { return };
        let size = layout.shape.block_size;
        let first = (base + seen.start) / size;
        let (mut at, mut offset) = (seen.start, base + seen.start - first * size);
        for block in &self.sequence.blocks[first..] {
            let start = layout.scales(*block as usize, self.kv_head) + offset;
            let count = (size - offset).min(seen.end - at);
            let steps = &scales[which][start..start + count];
            let scores = &mut scores[at..at + count];
            scores.iter_mut().zip(steps).for_each(|(score, step)| *score *= step);
            (at, offset) = (at + count, 0);
            if at == seen.end {
                break;
            }
        }
    }

    /// What is read after the values up to `position`, in a chunk that ends at `end`: more values, then the
    /// next chunk's keys.
    #[inline(always)]
    pub(super) fn after(&self, position: usize, end: usize) -> Option<&'a [W]> {
        if position < end {
            Some(self.values(position).0)
        } else if position < self.seen(self.len() - 1).end {
            Some(self.keys(self.attention.layout.group_of(position)))
        } else {
            None
        }
    }
}

/// `exp(score − greatest)` in place for the scores `seen`, 0 for the others of `whole`; gives back the greatest score
/// and the sum. Vectors at the ends may reach beyond both, `scores` has room for them.
#[inline(always)]
fn softmax<S: Simd>(
    simd: S,
    scores: &mut [f32],
    seen: &Range<usize>,
    whole: &Range<usize>,
) -> (f32, f32) {
    let (first, last) = (seen.start / S::LANES * S::LANES, seen.end.next_multiple_of(S::LANES));
    scores[whole.start.min(first)..first].fill(0.0);
    scores[last.min(whole.end)..whole.end].fill(0.0);
    let mut greatest = simd.splat(f32::NEG_INFINITY);
    for at in (first..last).step_by(S::LANES) {
        greatest = simd.max(greatest, only(simd, scores, at, seen));
    }
    let greatest = simd.greatest(greatest);
    let shift = simd.splat(-greatest);
    let mut sums = simd.splat(0.0);
    for at in (first..last).step_by(S::LANES) {
        let e = exp(simd, simd.add(only(simd, scores, at, seen), shift));
        simd.store(e, &mut scores[at..]);
        sums = simd.add(sums, e);
    }
    (greatest, simd.sum(sums))
}

/// The scores from `at` on, minus infinity for those not `seen`, whatever they are.
#[inline(always)]
fn only<S: Simd>(simd: S, scores: &[f32], at: usize, seen: &Range<usize>) -> S::V {
    const MOST: usize = 16;
    const NONE: [f32; MOST] = [f32::NEG_INFINITY; MOST];
    const ALL: [f32; MOST] = [f32::INFINITY; MOST];
    static LIMITS: [[f32; MOST]; 3] = [NONE, ALL, NONE];
    let scores = simd.load(&scores[at..]);
    if seen.start <= at && at + S::LANES <= seen.end {
        return scores;
    }
    let limits = LIMITS.as_flattened();
    let before = seen.start.saturating_sub(at).min(S::LANES);
    let until = seen.end.saturating_sub(at).min(S::LANES);
    let scores = simd.min(scores, simd.load(&limits[MOST - before..]));
    simd.min(scores, simd.load(&limits[2 * MOST - until..]))
}
