//! Paged causal attention.
//!
//! An item is some query rows of one sequence under one key/value head. A row's scores, their sum and its
//! output take their terms in the order of the positions, counted from the start of the first block the row
//! sees: the same bits whether the row came in a prompt, in a piece of one, or alone.
#![expect(unsafe_code, reason = "threads write their own heads of one result")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::AttentionArgs;
use super::kv::KvLayout;
use super::machine::Machine;
use super::math::exp;
use super::pool::Pieces;
use super::rows::add_rows;
use super::simd::{Simd, Task};
use std::array::from_fn;
use std::ops::Range;

/// Queries (a row under one head) of an item: they share the keys and values that pass the cache.
const QUERIES: usize = 16;
/// Queries whose sums are in registers together.
const TILE: usize = 4;
/// Groups of keys scored together, to have enough sums in flight.
const GROUPS: usize = 4;
/// Below this many scores one thread is faster than waking another.
const SERIAL: usize = 1_000;

/// The operands, checked by the caller.
pub(super) struct Attention<'a> {
    /// `[rows, heads * head_dim]`
    pub(super) q: &'a [f32],
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
            let mut scores = machine.floats.scratch(TILE * room);
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

    /// Later rows see more, so the items with the most work come first.
    fn items(&self) -> Vec<Item<'_>> {
        let args = self.args;
        let height = (QUERIES / self.sharing()).max(1);
        let mut items = Vec::new();
        for sequence in args.sequences() {
            let (rows, blocks) = (sequence.rows, sequence.blocks);
            let first = sequence.context - rows.len();
            for start in rows.clone().step_by(height) {
                items.extend((0..self.layout.shape.kv_heads).map(|kv_head| Item {
                    blocks,
                    kv_head,
                    rows: start..(start + height).min(rows.end),
                    position: first + start - rows.start,
                }));
            }
        }
        items.sort_by_key(|item| std::cmp::Reverse(item.position));
        items
    }
}

struct Queries<'a> {
    attention: &'a Attention<'a>,
    item: &'a Item<'a>,
    /// `[TILE, room]`
    scores: &'a mut [f32],
    room: usize,
    out: &'a Pieces<'a, f32>,
}

impl Task for Queries<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let count = self.item.rows.len() * self.attention.sharing();
        let mut query = 0;
        while query < count {
            let size = (count - query).min(TILE);
            match size {
                1 => self.tile::<S, 1>(simd, query),
                2 => self.tile::<S, 2>(simd, query),
                3 => self.tile::<S, 3>(simd, query),
                _ => self.tile::<S, 4>(simd, query),
            }
            query += size;
        }
    }
}

impl Queries<'_> {
    #[inline(always)]
    fn tile<S: Simd, const R: usize>(&mut self, simd: S, first: usize) {
        let seen: [Range<usize>; R] = from_fn(|r| self.seen(first + r));
        let base = self.block_start(seen[0].start);
        let end = seen[R - 1].end;
        self.score::<S, R>(simd, first, base..end);
        let mut sums = [0.0; R];
        for ((sum, scores), seen) in
            sums.iter_mut().zip(self.scores.chunks_exact_mut(self.room)).zip(&seen)
        {
            let start = self.attention.layout.shape.block_size;
            let start = seen.start / start * start;
            let scores = &mut scores[start - base..];
            *sum = softmax(simd, scores, seen.start - start, seen.end - start);
        }
        // SAFETY: the heads of a row under one key/value head belong to one item of the job.
        let mut out = from_fn(|r| unsafe { self.out.piece(self.place(first + r)) });
        for out in &mut out {
            out.fill(0.0);
        }
        self.gather(simd, base, &seen, &mut out);
        for (out, sum) in out.into_iter().zip(sums) {
            let factor = 1.0 / sum;
            for out in out {
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

    /// Where a query (and its output) lies.
    fn place(&self, query: usize) -> Range<usize> {
        let (sharing, dim) = (self.attention.sharing(), self.attention.layout.shape.head_dim);
        let row = self.item.rows.start + query / sharing;
        let head = self.item.kv_head * sharing + query % sharing;
        let start = (row * self.attention.args.heads + head) * dim;
        start..start + dim
    }

    /// `scale · q · k` of the positions in `span`, which starts with a block; a little beyond is written too.
    #[inline(always)]
    fn score<S: Simd, const R: usize>(&mut self, simd: S, first: usize, span: Range<usize>) {
        let layout = self.attention.layout;
        let block_size = layout.shape.block_size;
        let groups = layout.groups();
        let last = span.end - 1;
        let end = last / block_size * groups + last % block_size / layout.lanes + 1;
        let mut group = span.start / block_size * groups;
        while group + GROUPS <= end {
            self.score_groups::<S, R, GROUPS>(simd, first, (group, span.start));
            group += GROUPS;
        }
        while group < end {
            self.score_groups::<S, R, 1>(simd, first, (group, span.start));
            group += 1;
        }
    }

    /// The scores of `N` groups of keys from `group` on, counted over the sequence's blocks.
    #[inline(always)]
    fn score_groups<S: Simd, const R: usize, const N: usize>(
        &mut self,
        simd: S,
        first: usize,
        (group, base): (usize, usize),
    ) {
        let Attention { q, keys, layout, args, .. } = self.attention;
        let q: [&[f32]; R] = from_fn(|r| &q[self.place(first + r)]);
        let (groups, len) = (layout.groups(), layout.group_len());
        let keys: [&[f32]; N] = from_fn(|n| {
            let block = self.item.blocks[(group + n) / groups] as usize;
            &keys[layout.group(block, self.item.kv_head, (group + n) % groups)..][..len]
        });
        let sums = products::<S, R, N>(simd, q, keys);
        let scale = simd.splat(args.scale);
        for (scores, sums) in self.scores.chunks_exact_mut(self.room).zip(sums) {
            for (n, sum) in sums.into_iter().enumerate() {
                let (block, part) = ((group + n) / groups, (group + n) % groups);
                let position = block * layout.shape.block_size + part * S::LANES;
                simd.store(simd.mul(sum, scale), &mut scores[position - base..]);
            }
        }
    }

    /// `Σ_t scores[r][t] · values[t]` over the positions query `r` sees, block by block.
    #[inline(always)]
    fn gather<S: Simd, const R: usize>(
        &self,
        simd: S,
        base: usize,
        seen: &[Range<usize>; R],
        out: &mut [&mut [f32]; R],
    ) {
        let block_size = self.attention.layout.shape.block_size;
        for start in (base..seen[R - 1].end).step_by(block_size) {
            let block = start..start + block_size;
            let parts: [Range<usize>; R] =
                from_fn(|r| seen[r].start.max(block.start)..seen[r].end.min(block.end));
            if parts.iter().all(|part| *part == parts[0]) {
                self.gather_part(simd, base, parts[0].clone(), 0, out);
                continue;
            }
            for (r, (part, out)) in parts.into_iter().zip(out.iter_mut()).enumerate() {
                self.gather_part::<S, 1>(simd, base, part, r, &mut [out]);
            }
        }
    }

    /// The positions `part` of one block for the queries from `first` of the tile on.
    #[inline(always)]
    fn gather_part<S: Simd, const R: usize>(
        &self,
        simd: S,
        base: usize,
        part: Range<usize>,
        first: usize,
        out: &mut [&mut [f32]; R],
    ) {
        if part.is_empty() {
            return;
        }
        let Attention { values, layout, .. } = self.attention;
        let (block, offset) =
            (part.start / layout.shape.block_size, part.start % layout.shape.block_size);
        let start = layout.value(self.item.blocks[block] as usize, self.item.kv_head, offset);
        let values = &values[start..][..part.len() * layout.shape.head_dim];
        let factors: [&[f32]; R] = from_fn(|r| {
            &self.scores[(first + r) * self.room..][part.start - base..part.end - base]
        });
        add_rows(simd, values, factors, out);
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
