//! Paged causal attention.
//!
//! An item is some query rows of one sequence under one key/value head. A row's scores, their sum and its
//! output take their terms in the order of the positions, counted from the start of the first block the row
//! sees: the same bits whether the row came in a prompt, in a piece of one, or alone.
#![expect(unsafe_code, reason = "threads write their own heads of one result")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::args::{AttentionArgs, SequenceArgs};
use super::kv::KvLayout;
use super::machine::Machine;
use super::math::exp;
use super::pool::Pieces;
use super::rows::add_rows;
use super::simd::{Simd, Task};
use std::ops::Range;

/// Queries (a row under one head) that use a piece of the keys and values while it is in the cache.
const QUERIES: usize = 16;
/// Queries whose sums are in registers together.
const TILE: usize = 4;
/// Groups of keys scored together, to have enough sums in flight.
const GROUPS: usize = 4;
/// Positions whose values are added while the sums of a tile stay in registers, and how many blocks at most.
const SPAN: usize = 64;
const BLOCKS: usize = 8;
/// Below this many scores one thread is faster than waking another.
const SERIAL: usize = 1_000;

/// The operands, checked by the caller.
pub(super) struct Attention<'a> {
    /// `[rows, q_cols]`, the queries first.
    pub(super) q: &'a [f32],
    pub(super) q_cols: usize,
    pub(super) keys: &'a [f32],
    pub(super) values: &'a [f32],
    pub(super) layout: KvLayout,
    pub(super) args: &'a AttentionArgs<'a>,
}

/// Some rows of one sequence under one key/value head.
struct Item<'a> {
    blocks: &'a [u32],
    kv_head: usize,
    rows: Range<usize>,
    /// Position of the first row.
    position: usize,
}

impl Attention<'_> {
    /// `out` is `[rows, heads * head_dim]`, every element of it is written.
    pub(super) fn run(&self, machine: &Machine, out: &mut [f32]) {
        let items = self.items();
        let longest = self.args.context_lens.iter().copied().max().unwrap_or(0) as usize;
        let room = longest + 2 * self.layout.shape.block_size + 2 * self.layout.lanes;
        let out = Pieces::new(out);
        let run = |index: usize| {
            let mut scores = machine.floats.scratch(QUERIES * room);
            let item = &items[index];
            machine.level.run(Queries {
                attention: self,
                item,
                scores: &mut scores,
                room,
                out: &out,
            });
        };
        let rows = self.args.query_starts.last().copied().unwrap_or(0) as usize;
        if rows * self.args.heads * longest < SERIAL {
            (0..items.len()).for_each(run);
        } else {
            machine.pool.run(items.len(), &run);
        }
    }

    /// Query heads that share a key/value head.
    fn sharing(&self) -> usize {
        self.args.heads / self.layout.shape.kv_heads
    }

    /// Long contexts first, so that no thread begins one last; rows under one head follow each other, so
    /// that its keys and values stay in the cache.
    fn items(&self) -> Vec<Item<'_>> {
        let height = (QUERIES / self.sharing()).max(1);
        let mut sequences: Vec<_> = self.args.sequences().collect();
        sequences.sort_by_key(|sequence| std::cmp::Reverse(sequence.context));
        let mut items = Vec::new();
        for SequenceArgs { rows, context, blocks } in sequences {
            for kv_head in 0..self.layout.shape.kv_heads {
                items.extend(rows.clone().step_by(height).map(|start| Item {
                    blocks,
                    kv_head,
                    rows: start..(start + height).min(rows.end),
                    position: context - (rows.end - start),
                }));
            }
        }
        items
    }
}

struct Queries<'a> {
    attention: &'a Attention<'a>,
    item: &'a Item<'a>,
    /// `[QUERIES, room]`
    scores: &'a mut [f32],
    room: usize,
    out: &'a Pieces<'a, f32>,
}

impl Task for Queries<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let count = self.item.rows.len() * self.attention.sharing();
        for first in (0..count).step_by(QUERIES) {
            self.attend(simd, first..(first + QUERIES).min(count));
        }
    }
}

impl Queries<'_> {
    /// Keys and values pass once: all queries use a piece of them while it is in the nearest cache.
    #[inline(always)]
    fn attend<S: Simd>(&mut self, simd: S, queries: Range<usize>) {
        let base = self.block_start(self.seen(queries.start).start);
        self.score(simd, queries.clone(), base);
        let mut sums = [0.0; QUERIES];
        for (i, query) in queries.clone().enumerate() {
            sums[i] = self.softmax(simd, i, query, base);
            self.output(query).fill(0.0);
        }
        self.gather(simd, queries.clone(), base);
        for (sum, query) in sums.into_iter().zip(queries) {
            let factor = 1.0 / sum;
            for out in self.output(query) {
                *out *= factor;
            }
        }
    }

    /// The positions a query sees.
    fn seen(&self, query: usize) -> Range<usize> {
        let end = self.item.position + query / self.attention.sharing() + 1;
        self.attention.args.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    fn block_start(&self, position: usize) -> usize {
        position - position % self.attention.layout.shape.block_size
    }

    /// Where a query or its output lies, in rows of `cols`.
    fn place(&self, query: usize, cols: usize) -> Range<usize> {
        let (sharing, dim) = (self.attention.sharing(), self.attention.layout.shape.head_dim);
        let row = self.item.rows.start + query / sharing;
        let head = self.item.kv_head * sharing + query % sharing;
        let start = row * cols + head * dim;
        start..start + dim
    }

    #[expect(clippy::mut_from_ref, reason = "each output is borrowed by one caller at a time")]
    fn output(&self, query: usize) -> &mut [f32] {
        let cols = self.attention.args.heads * self.attention.layout.shape.head_dim;
        // SAFETY: the heads of a row under one key/value head belong to one item of the job, and within
        // the item no two borrows of a query's output overlap.
        unsafe { self.out.piece(self.place(query, cols)) }
    }

    /// `scale · q · k` of every position a query sees, from `base` on, which is a block's start; the
    /// positions around them may be written too.
    #[inline(always)]
    fn score<S: Simd>(&mut self, simd: S, queries: Range<usize>, base: usize) {
        let layout = self.attention.layout;
        let last = self.seen(queries.end - 1).end - 1;
        let end = layout.group_of(last) + 1;
        let mut group = layout.group_of(base);
        while group < end {
            let count = if group + GROUPS <= end { GROUPS } else { 1 };
            let after = layout.position_of(group + count);
            for first in queries.clone().step_by(TILE) {
                let size = (queries.end - first).min(TILE);
                let seen = self.seen(first).start..self.seen(first + size - 1).end;
                if after <= seen.start || seen.end <= layout.position_of(group) {
                    continue;
                }
                let at = (first - queries.start, first);
                match (size, count) {
                    (1, GROUPS) => self.score_groups::<S, 1, GROUPS>(simd, at, (group, base)),
                    (2, GROUPS) => self.score_groups::<S, 2, GROUPS>(simd, at, (group, base)),
                    (3, GROUPS) => self.score_groups::<S, 3, GROUPS>(simd, at, (group, base)),
                    (_, GROUPS) => self.score_groups::<S, 4, GROUPS>(simd, at, (group, base)),
                    (1, _) => self.score_groups::<S, 1, 1>(simd, at, (group, base)),
                    (2, _) => self.score_groups::<S, 2, 1>(simd, at, (group, base)),
                    (3, _) => self.score_groups::<S, 3, 1>(simd, at, (group, base)),
                    _ => self.score_groups::<S, 4, 1>(simd, at, (group, base)),
                }
            }
            group += count;
        }
    }

    /// The scores of `N` groups of keys from `group` on for `R` queries from `first` on.
    #[inline(always)]
    fn score_groups<S: Simd, const R: usize, const N: usize>(
        &mut self,
        simd: S,
        (place, first): (usize, usize),
        (group, base): (usize, usize),
    ) {
        let Attention { q, q_cols, keys, layout, args, .. } = self.attention;
        let mut rows = [&q[..0]; R];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = &q[self.place(first + r, *q_cols)];
        }
        let groups = layout.groups();
        let mut tiles = [&keys[..0]; N];
        for (n, tile) in tiles.iter_mut().enumerate() {
            let block = self.item.blocks[(group + n) / groups] as usize;
            let start = layout.group(block, self.item.kv_head, (group + n) % groups);
            *tile = &keys[start..][..layout.group_len()];
        }
        let sums = products::<S, R, N>(simd, rows, tiles);
        let scale = simd.splat(args.scale);
        for (r, sums) in sums.into_iter().enumerate() {
            let scores = &mut self.scores[(place + r) * self.room..][..self.room];
            for (n, sum) in sums.into_iter().enumerate() {
                let position = layout.position_of(group + n);
                simd.store(simd.mul(sum, scale), &mut scores[position - base..]);
            }
        }
    }

    /// A query's scores become `exp(score − greatest)`; gives back their sum.
    #[inline(always)]
    fn softmax<S: Simd>(&mut self, simd: S, place: usize, query: usize, base: usize) -> f32 {
        let seen = self.seen(query);
        let start = self.block_start(seen.start);
        let scores = &mut self.scores[place * self.room..][..self.room];
        softmax(simd, &mut scores[start - base..], seen.start - start, seen.end - start)
    }

    /// `Σ_t scores[t] · values[t]` over the positions each query sees, a few blocks at a time.
    #[inline(always)]
    fn gather<S: Simd>(&self, simd: S, queries: Range<usize>, base: usize) {
        let end = self.seen(queries.end - 1).end;
        let block_size = self.attention.layout.shape.block_size;
        let step = block_size * (SPAN / block_size).clamp(1, BLOCKS);
        for start in (base..end).step_by(step) {
            let span = start..start + step;
            for first in queries.clone().step_by(TILE) {
                let at = (first - queries.start, first);
                match queries.end - first {
                    1 => self.gather_span::<S, 1>(simd, at, &span, base),
                    2 => self.gather_span::<S, 2>(simd, at, &span, base),
                    3 => self.gather_span::<S, 3>(simd, at, &span, base),
                    _ => self.gather_span::<S, 4>(simd, at, &span, base),
                }
            }
        }
    }

    /// What the positions in `span` add to `R` queries from `first` on: together what all of them see,
    /// one by one what lies before and after.
    #[inline(always)]
    fn gather_span<S: Simd, const R: usize>(
        &self,
        simd: S,
        (place, first): (usize, usize),
        span: &Range<usize>,
        base: usize,
    ) {
        let part = |r: usize| {
            let seen = self.seen(first + r);
            seen.start.max(span.start)..seen.end.min(span.end)
        };
        let common = part(R - 1).start..part(0).end;
        for r in 0..R {
            let before = part(r).start..part(r).end.min(common.start);
            self.gather_part::<S, 1>(simd, (place + r, first + r), before, base);
        }
        self.gather_part::<S, R>(simd, (place, first), common.clone(), base);
        for r in 0..R {
            let after = part(r).start.max(common.start).max(common.end)..part(r).end;
            self.gather_part::<S, 1>(simd, (place + r, first + r), after, base);
        }
    }

    /// What the positions `part` add to `R` queries from `first` on; they are in at most [`BLOCKS`] blocks.
    #[inline(always)]
    fn gather_part<S: Simd, const R: usize>(
        &self,
        simd: S,
        (place, first): (usize, usize),
        part: Range<usize>,
        base: usize,
    ) {
        if part.is_empty() {
            return;
        }
        let (mut values, mut count) = ([&self.attention.values[..0]; BLOCKS], 0);
        let mut position = part.start;
        while position < part.end {
            values[count] = self.values(position, part.end);
            position = self.block_start(position) + self.attention.layout.shape.block_size;
            count += 1;
        }
        let mut factors = [&self.scores[..0]; R];
        for (r, factors) in factors.iter_mut().enumerate() {
            *factors = &self.scores[(place + r) * self.room..][part.start - base..part.end - base];
        }
        let mut out: [&mut [f32]; R] = std::array::from_fn(|_| &mut [][..]);
        for (r, out) in out.iter_mut().enumerate() {
            *out = self.output(first + r);
        }
        add_rows(simd, &values[..count], factors, &mut out);
    }

    /// The values from `position` on that lie in its block and before `end`.
    fn values(&self, position: usize, end: usize) -> &[f32] {
        let Attention { values, layout, .. } = self.attention;
        let size = layout.shape.block_size;
        let (block, offset) = (position / size, position % size);
        let start = layout.value(self.item.blocks[block] as usize, self.item.kv_head, offset);
        let rows = (end - position).min(size - offset);
        &values[start..][..rows * layout.shape.head_dim]
    }
}

/// `q[r] · keys[n]` for a vector of tokens in each of `keys` (`[head_dim, lanes]`).
#[inline(always)]
fn products<S: Simd, const R: usize, const N: usize>(
    simd: S,
    q: [&[f32]; R],
    keys: [&[f32]; N],
) -> [[S::V; N]; R] {
    let mut sums = [[simd.splat(0.0); N]; R];
    for d in 0..q[0].len() {
        let mut vectors = [simd.splat(0.0); N];
        for (vector, keys) in vectors.iter_mut().zip(keys) {
            *vector = simd.load(&keys[d * S::LANES..]);
        }
        for (sums, q) in sums.iter_mut().zip(q) {
            let q = simd.splat(q[d]);
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = simd.mul_add(vector, q, *sum);
            }
        }
    }
    sums
}

/// `exp(score − greatest)` in place for the scores from `start` to `end`, 0 before and a little after;
/// gives back their sum. `scores` has room for a vector more.
#[inline(always)]
fn softmax<S: Simd>(simd: S, scores: &mut [f32], start: usize, end: usize) -> f32 {
    let padded = end.next_multiple_of(S::LANES);
    scores[..start].fill(f32::NEG_INFINITY);
    scores[end..padded].fill(f32::NEG_INFINITY);
    let scores = &mut scores[..padded];
    let mut greatest = simd.splat(f32::NEG_INFINITY);
    for scores in scores.chunks_exact(S::LANES) {
        greatest = simd.max(greatest, simd.load(scores));
    }
    let shift = simd.splat(-simd.greatest(greatest));
    let mut sums = simd.splat(0.0);
    for scores in scores.chunks_exact_mut(S::LANES) {
        let e = exp(simd, simd.add(simd.load(scores), shift));
        simd.store(e, scores);
        sums = simd.add(sums, e);
    }
    simd.sum(sums)
}
