//! One piece of attention by one thread: scores, softmax and sums of values, chunk by chunk.
#![expect(unsafe_code, reason = "each query's output belongs to one piece")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::attention::{Attention, Piece, QUERIES};
use super::kv::Word;
use super::math::exp;
use super::partial::{self, Partial};
use super::pool::Pieces;
use super::simd::{Simd, Task};
use std::ops::Range;

/// Queries whose sums are in registers together.
const TILE: usize = 4;
/// Groups of keys scored together, to have enough sums in flight.
const GROUPS: usize = 4;
/// Vectors of an output summed together.
const VECTORS: usize = 4;

/// Some chunks of a piece.
pub(super) struct Attend<'a, W> {
    pub(super) piece: &'a Piece<'a, W>,
    pub(super) chunks: Range<usize>,
    /// [`memory`] values.
    pub(super) memory: &'a mut [f32],
    pub(super) goal: Goal<'a>,
}

/// What becomes of them.
pub(super) enum Goal<'a> {
    /// They are all: the output of the whole batch.
    Output(&'a Pieces<'a, f32>),
    /// There is one: a [`Partial`]'s memory.
    Partial(&'a mut [f32]),
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
    QUERIES * (query_len(attention) + room(attention)) + 2 * partial::len(head_dim)
}

/// Numbers of a query, filled up to whole words.
fn query_len<W: Word>(attention: &Attention<'_, W>) -> usize {
    attention.layout.key_words() * W::NUMBERS
}

/// Scores of a query: a chunk's, and a vector more for what lies beyond the last of them.
fn room<W: Word>(attention: &Attention<'_, W>) -> usize {
    let lanes = attention.layout.lanes;
    attention.chunk().next_multiple_of(lanes) + lanes
}

impl<W: Word> Task for Attend<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let attention = self.piece.attention;
        let (q, rest) = self.memory.split_at_mut(QUERIES * query_len(attention));
        let (scores, rest) = rest.split_at_mut(QUERIES * room(attention));
        let mut work = Work { piece: self.piece, q, scores, room: room(attention) };
        work.scale_queries();
        let len = partial::len(attention.layout.shape.head_dim);
        let (first, next) = rest.split_at_mut(len);
        match self.goal {
            Goal::Partial(to) => {
                for chunk in self.chunks {
                    work.chunk(simd, chunk, &mut Partial::of(to));
                }
            }
            Goal::Output(out) => {
                let (mut state, mut next) = (Partial::of(first), Partial::of(&mut next[..len]));
                for chunk in self.chunks.clone() {
                    if chunk == self.chunks.start {
                        work.chunk(simd, chunk, &mut state);
                    } else {
                        work.chunk(simd, chunk, &mut next);
                        state.merge(simd, &next, self.piece.len());
                    }
                }
                write(self.piece, &state, out);
            }
        }
    }
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

#[inline(always)]
fn write<W: Word>(piece: &Piece<'_, W>, state: &Partial<'_>, out: &Pieces<'_, f32>) {
    let cols = piece.attention.args.heads * piece.attention.layout.shape.head_dim;
    for i in 0..piece.len() {
        // SAFETY: a query belongs to one piece, a piece to one thread, and this is the only borrow.
        let to = unsafe { out.piece(piece.place(i, cols)) };
        state.write(i, to);
    }
}

/// A piece with its working memory.
struct Work<'a, W> {
    piece: &'a Piece<'a, W>,
    /// `[QUERIES, query_len]`, times the scale.
    q: &'a mut [f32],
    /// `[QUERIES, room]`, of the positions from the chunk's start on.
    scores: &'a mut [f32],
    room: usize,
}

impl<W: Word> Work<'_, W> {
    fn scale_queries(&mut self) {
        let Attention { q, q_cols, args, layout, .. } = self.piece.attention;
        let len = self.q.len() / QUERIES;
        for (i, to) in self.q.chunks_exact_mut(len).take(self.piece.len()).enumerate() {
            let from = &q[self.piece.place(i, *q_cols)];
            to[layout.shape.head_dim..].fill(0.0);
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from * args.scale);
        }
    }

    /// Keys and values pass once: all queries use a piece of them while it is in the nearest cache.
    #[inline(always)]
    fn chunk<S: Simd>(&mut self, simd: S, chunk: usize, to: &mut Partial<'_>) {
        let positions = self.piece.positions(chunk);
        let base = chunk * self.piece.attention.chunk();
        self.score(simd, &positions, base);
        let local = positions.start - base..positions.end - base;
        for i in 0..self.piece.len() {
            let seen = self.piece.seen(i);
            let seen = seen.start.max(positions.start)..seen.end.min(positions.end);
            let scores = &mut self.scores[i * self.room..][..self.room];
            (to.greatest[i], to.sums[i]) = if seen.is_empty() {
                scores[local.clone()].fill(0.0);
                (f32::NEG_INFINITY, 0.0)
            } else {
                softmax(simd, scores, seen.start - base..seen.end - base, local.end)
            };
        }
        for first in (0..self.piece.len()).step_by(TILE) {
            match self.piece.len() - first {
                1 => self.gather::<S, 1>(simd, (first, base), &positions, to),
                2 => self.gather::<S, 2>(simd, (first, base), &positions, to),
                3 => self.gather::<S, 3>(simd, (first, base), &positions, to),
                _ => self.gather::<S, 4>(simd, (first, base), &positions, to),
            }
        }
    }

    /// `q · k` of the positions, a chunk that begins at `base`; those around them may be written too.
    #[inline(always)]
    fn score<S: Simd>(&mut self, simd: S, positions: &Range<usize>, base: usize) {
        let layout = self.piece.attention.layout;
        let groups = layout.group_of(positions.start)..layout.group_of(positions.end - 1) + 1;
        let mut group = groups.start;
        while group < groups.end {
            let count = if group + GROUPS <= groups.end { GROUPS } else { 1 };
            for first in (0..self.piece.len()).step_by(TILE) {
                let size = (self.piece.len() - first).min(TILE);
                // Groups that none of these queries sees; the softmax does not read them.
                let last = self.piece.seen(first + size - 1).end;
                if last <= layout.position_of(group) {
                    continue;
                }
                let at = (first, base);
                match (size, count) {
                    (1, GROUPS) => self.groups::<S, 1, GROUPS>(simd, at, group, groups.end),
                    (2, GROUPS) => self.groups::<S, 2, GROUPS>(simd, at, group, groups.end),
                    (3, GROUPS) => self.groups::<S, 3, GROUPS>(simd, at, group, groups.end),
                    (_, GROUPS) => self.groups::<S, 4, GROUPS>(simd, at, group, groups.end),
                    (1, _) => self.groups::<S, 1, 1>(simd, at, group, groups.end),
                    (2, _) => self.groups::<S, 2, 1>(simd, at, group, groups.end),
                    (3, _) => self.groups::<S, 3, 1>(simd, at, group, groups.end),
                    (_, _) => self.groups::<S, 4, 1>(simd, at, group, groups.end),
                }
            }
            group += count;
        }
    }

    /// `R` queries from `first` on against `N` groups of keys.
    #[inline(always)]
    fn groups<S: Simd, const R: usize, const N: usize>(
        &mut self,
        simd: S,
        (first, base): (usize, usize),
        group: usize,
        end: usize,
    ) {
        let layout = self.piece.attention.layout;
        let len = self.q.len() / QUERIES;
        let mut q = [&self.q[..0]; R];
        for (r, q) in q.iter_mut().enumerate() {
            *q = &self.q[(first + r) * len..][..len];
        }
        let mut keys = [self.piece.keys(group); N];
        let mut next = [None; N];
        for n in 0..N {
            keys[n] = self.piece.keys(group + n);
            // The first queries bring in what comes next: more keys, at their end the values.
            if first == 0 {
                let after = group + N + n;
                let past = layout.position_of(after.saturating_sub(end)) + base;
                next[n] = if after < end {
                    self.piece.keys(after).first()
                } else {
                    self.piece.values(past).0.first()
                };
            }
        }
        let sums = products::<S, W, R, N>(simd, q, keys, next);
        for (r, sums) in sums.into_iter().enumerate() {
            let scores = &mut self.scores[(first + r) * self.room..][..self.room];
            for (n, sum) in sums.into_iter().enumerate() {
                simd.store(sum, &mut scores[layout.position_of(group + n) - base..]);
            }
        }
    }

    /// `Σ_t scores[t] · values[t]` of `R` queries over the positions.
    #[inline(always)]
    fn gather<S: Simd, const R: usize>(
        &self,
        simd: S,
        (first, base): (usize, usize),
        positions: &Range<usize>,
        to: &mut Partial<'_>,
    ) {
        let dim = self.piece.attention.layout.shape.head_dim;
        let mut factors = [&self.scores[..0]; R];
        for (r, factors) in factors.iter_mut().enumerate() {
            *factors = &self.scores[(first + r) * self.room..][..positions.end - base];
        }
        let outputs = &mut to.outputs[first * dim..];
        let sum = Sum { piece: self.piece, factors, base, positions, fetch: first == 0 };
        let mut column = 0;
        while column + VECTORS * S::LANES <= dim {
            sum.columns::<S, VECTORS>(simd, column, outputs);
            column += VECTORS * S::LANES;
        }
        while column + S::LANES <= dim {
            sum.columns::<S, 1>(simd, column, outputs);
            column += S::LANES;
        }
        (column..dim).for_each(|column| sum.column(column, outputs));
    }
}

impl<'a, W: Word> Piece<'a, W> {
    /// A group of keys.
    #[inline(always)]
    fn keys(&self, group: usize) -> &'a [W] {
        let Attention { keys, layout, .. } = self.attention;
        let block = self.sequence.blocks[group / layout.groups()] as usize;
        let start = layout.group(block, self.kv_head, group % layout.groups());
        &keys[start..][..layout.group_len()]
    }

    /// The values of a position's block from its own row on, and how many tokens of the block lie before it.
    #[inline(always)]
    fn values(&self, position: usize) -> (&'a [W], usize) {
        let Attention { values, layout, .. } = self.attention;
        let (size, dim) = (layout.shape.block_size, layout.shape.head_dim);
        let (block, offset) = (self.sequence.blocks[position / size] as usize, position % size);
        let values = &values[layout.values(block, self.kv_head)..][..layout.values_len()];
        (&values[offset / W::NUMBERS * dim..], offset)
    }
}

/// A sum of values for `R` queries.
struct Sum<'a, W, const R: usize> {
    piece: &'a Piece<'a, W>,
    /// Of the positions from `base` on.
    factors: [&'a [f32]; R],
    base: usize,
    positions: &'a Range<usize>,
    /// Whether to ask for what comes next.
    fetch: bool,
}

impl<W: Word, const R: usize> Sum<'_, W, R> {
    /// The positions in one block from `position` on: their values, number by number, and the factors' place.
    #[inline(always)]
    fn block_end(&self, position: usize) -> usize {
        let size = self.piece.attention.layout.shape.block_size;
        (position - position % size + size).min(self.positions.end)
    }

    /// What lies at the same place one block on: more values, at their end the next chunk's keys.
    #[inline(always)]
    fn next(&self, position: usize) -> Option<&W> {
        let layout = self.piece.attention.layout;
        let after = position + layout.shape.block_size;
        if !self.fetch {
            None
        } else if after < self.positions.end {
            self.piece.values(after).0.first()
        } else if after < self.piece.seen(self.piece.len() - 1).end {
            self.piece.keys(layout.group_of(after)).first()
        } else {
            None
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const N: usize>(&self, simd: S, column: usize, outputs: &mut [f32]) {
        let dim = self.piece.attention.layout.shape.head_dim;
        let mut sums = [[simd.splat(0.0); N]; R];
        let mut position = self.positions.start;
        while position < self.positions.end {
            let (mut values, offset) = self.piece.values(position);
            let (end, next) = (self.block_end(position), self.next(position));
            if !offset.is_multiple_of(W::NUMBERS) {
                self.token(simd, &mut sums, (&values[column..], W::NUMBERS - 1), position);
                values = &values[dim.min(values.len())..];
                position += 1;
            }
            let mut row = 0;
            while position + W::NUMBERS <= end {
                let words = &values[row + column..][..N * S::LANES];
                if let Some(next) = next {
                    for n in 0..N {
                        simd.prefetch(next, row + column + n * S::LANES);
                    }
                }
                for number in 0..W::NUMBERS {
                    self.token(simd, &mut sums, (words, number), position + number);
                }
                (row, position) = (row + dim, position + W::NUMBERS);
            }
            if position < end {
                self.token(simd, &mut sums, (&values[row + column..], 0), position);
                position += 1;
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (n, sum) in sums.into_iter().enumerate() {
                simd.store(sum, &mut outputs[r * dim + column + n * S::LANES..]);
            }
        }
    }

    #[inline(always)]
    fn token<S: Simd, const N: usize>(
        &self,
        simd: S,
        sums: &mut [[S::V; N]; R],
        (words, number): (&[W], usize),
        position: usize,
    ) {
        let mut vectors = [simd.splat(0.0); N];
        for (n, vector) in vectors.iter_mut().enumerate() {
            *vector = W::widen(simd, &words[n * S::LANES..], number);
        }
        for (sums, factors) in sums.iter_mut().zip(self.factors) {
            let factor = simd.splat(factors[position - self.base]);
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = simd.mul_add(vector, factor, *sum);
            }
        }
    }

    /// A column that fills no vector.
    #[inline(always)]
    fn column(&self, column: usize, outputs: &mut [f32]) {
        let dim = self.piece.attention.layout.shape.head_dim;
        let mut sums = [0.0; R];
        for position in self.positions.clone() {
            let (values, offset) = self.piece.values(position);
            let value = values[column].get(offset % W::NUMBERS);
            for (sum, factors) in sums.iter_mut().zip(self.factors) {
                *sum += factors[position - self.base] * value;
            }
        }
        for (r, sum) in sums.into_iter().enumerate() {
            outputs[r * dim + column] = sum;
        }
    }
}

/// `q[r] · keys[n]` for a vector of tokens in each of `keys` (`[words, lanes]`); asks for as much from
/// `next` on.
#[inline(always)]
fn products<S: Simd, W: Word, const R: usize, const N: usize>(
    simd: S,
    q: [&[f32]; R],
    keys: [&[W]; N],
    next: [Option<&W>; N],
) -> [[S::V; N]; R] {
    let mut sums = [[simd.splat(0.0); N]; R];
    for word in 0..q[0].len() / W::NUMBERS {
        for next in next.into_iter().flatten() {
            simd.prefetch(next, word * S::LANES);
        }
        for number in 0..W::NUMBERS {
            let mut vectors = [simd.splat(0.0); N];
            for (vector, keys) in vectors.iter_mut().zip(keys) {
                *vector = W::widen(simd, &keys[word * S::LANES..], number);
            }
            for (sums, q) in sums.iter_mut().zip(q) {
                let q = simd.splat(q[word * W::NUMBERS + number]);
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    *sum = simd.mul_add(vector, q, *sum);
                }
            }
        }
    }
    sums
}

/// `exp(score − greatest)` in place for the scores `seen`, 0 for those before and up to `end`; gives back
/// the greatest score and the sum. `scores` has room for a vector more.
#[inline(always)]
fn softmax<S: Simd>(simd: S, scores: &mut [f32], seen: Range<usize>, end: usize) -> (f32, f32) {
    let padded = seen.end.next_multiple_of(S::LANES);
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..padded].fill(f32::NEG_INFINITY);
    scores[padded.min(end)..end].fill(0.0);
    let scores = &mut scores[..padded];
    let mut greatest = simd.splat(f32::NEG_INFINITY);
    for scores in scores.chunks_exact(S::LANES) {
        greatest = simd.max(greatest, simd.load(scores));
    }
    let greatest = simd.greatest(greatest);
    let shift = simd.splat(-greatest);
    let mut sums = simd.splat(0.0);
    for scores in scores.chunks_exact_mut(S::LANES) {
        let e = exp(simd, simd.add(simd.load(scores), shift));
        simd.store(e, scores);
        sums = simd.add(sums, e);
    }
    (greatest, simd.sum(sums))
}
