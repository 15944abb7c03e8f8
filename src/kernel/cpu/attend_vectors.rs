//! A piece of attention on vectors: scores with tokens in the lanes, outputs with `head_dim` in the lanes.
//!
//! Queries and probabilities stay f32; pairs of bfloat16 and bytes are widened in registers.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::attend::{Attend, Chunk, Scores, drive, query_len};
use super::attention::{Attention, Piece, QUERIES};
use super::kv_words::Word;
use super::partial::Partial;
use super::simd::{Simd, Task};
use std::ops::Range;

/// Queries whose sums are in registers together.
const TILE: usize = 4;
/// Groups of keys scored together, to have enough sums in flight.
const GROUPS: usize = 4;
/// Vectors of an output summed together.
const VECTORS: usize = 4;
impl<W: Word> Task for Attend<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { pieces, chunks, memory, mut goal, .. } = self;
        for piece in pieces {
            let Attention { q, q_cols, layout, args, .. } = *piece.attention;
            let (scores, partials, queries) = Scores::of(piece.attention, memory);
            let rows = queries.chunks_exact_mut(query_len(piece.attention));
            for (i, to) in rows.take(piece.len()).enumerate() {
                let from = &q[piece.place(i, q_cols)];
                to[layout.shape.head_dim..].fill(0.0);
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from * args.scale);
            }
            let mut work = Work { piece, q: queries, scores };
            drive(simd, &mut work, (piece, chunks.clone()), partials, goal.again());
        }
    }
}

/// A piece on vectors.
struct Work<'a, W> {
    piece: &'a Piece<'a, W>,
    /// `[QUERIES, query_len]`, times the scale.
    q: &'a [f32],
    scores: Scores<'a>,
}

impl<W: Word> Chunk for Work<'_, W> {
    #[inline(always)]
    fn chunk<S: Simd>(&mut self, simd: S, chunk: usize, to: &mut Partial<'_>) {
        let positions = self.piece.positions(chunk);
        let base = chunk * self.piece.attention.chunk();
        self.score(simd, &positions, base);
        let whole = positions.start - base..positions.end - base;
        for i in 0..self.piece.len() {
            let seen = self.piece.seen_of(i, &positions, base);
            let places = (&seen, &whole);
            (to.greatest[i], to.sums[i]) = self.scores.softmax(simd, (self.piece, i), base, places);
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
}

impl<W: Word> Work<'_, W> {
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
            let room = self.scores.room;
            let scores = &mut self.scores.values[(first + r) * room..][..room];
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
        let Scores { values: scores, room } = &self.scores;
        let mut factors = [&scores[..0]; R];
        for (r, factors) in factors.iter_mut().enumerate() {
            *factors = &scores[(first + r) * room..][..positions.end - base];
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
        let after = position + self.piece.attention.layout.shape.block_size;
        if self.fetch { self.piece.after(after, self.positions.end)?.first() } else { None }
    }

    #[inline(always)]
    fn columns<S: Simd, const N: usize>(&self, simd: S, column: usize, outputs: &mut [f32]) {
        let dim = self.piece.attention.layout.shape.head_dim;
        let mut sums = [[simd.splat(0.0); N]; R];
        let mut position = self.positions.start;
        while position < self.positions.end {
            let (mut values, offset) = self.piece.values(position);
            let (end, next) = (self.block_end(position), self.next(position));
            let within = offset % W::NUMBERS;
            if within > 0 {
                let count = (W::NUMBERS - within).min(end - position);
                for i in 0..count {
                    self.token(simd, &mut sums, (&values[column..], within + i), position + i);
                }
                values = &values[dim.min(values.len())..];
                position += count;
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
            for number in 0..end - position {
                self.token(simd, &mut sums, (&values[row + column..], number), position + number);
            }
            position = end;
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
