//! What a chunk of positions gives each of some queries, and how two chunks become one.
//!
//! The running softmax of Milakov and Gimelshein 2018, "Online normalizer calculation for softmax".
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::attention::QUERIES;
use super::math::exp;
use super::simd::Simd;

/// The greatest score `m`, `Σ exp(score − m)` and `Σ exp(score − m) · value` of [`QUERIES`] queries.
pub(super) struct Partial<'a> {
    /// `[QUERIES]`, minus infinity where a query sees nothing of the chunk.
    pub(super) greatest: &'a mut [f32],
    /// `[QUERIES]`
    pub(super) sums: &'a mut [f32],
    /// `[QUERIES, head_dim]`
    pub(super) outputs: &'a mut [f32],
}

/// f32 values of one.
pub(super) fn len(head_dim: usize) -> usize {
    QUERIES * (2 + head_dim)
}

impl<'a> Partial<'a> {
    /// In `memory`, which is [`len`] long.
    pub(super) fn of(memory: &'a mut [f32]) -> Self {
        let (greatest, rest) = memory.split_at_mut(QUERIES);
        let (sums, outputs) = rest.split_at_mut(QUERIES);
        Self { greatest, sums, outputs }
    }

    /// Takes in what the next chunk gave the first `count` queries.
    #[inline(always)]
    pub(super) fn merge<S: Simd>(&mut self, simd: S, next: &Partial<'_>, count: usize) {
        let (mut ours, mut theirs) = ([0.0; QUERIES], [0.0; QUERIES]);
        for i in (0..QUERIES).step_by(S::LANES) {
            let (a, b) = (simd.load(&self.greatest[i..]), simd.load(&next.greatest[i..]));
            // A query that has seen nothing yet must not end in ∞ − ∞.
            let most = simd.max(simd.max(a, b), simd.splat(f32::MIN));
            let minus = simd.mul(most, simd.splat(-1.0));
            let (a, b) = (exp(simd, simd.add(a, minus)), exp(simd, simd.add(b, minus)));
            let sum = simd.mul(simd.load(&next.sums[i..]), b);
            simd.store(simd.mul_add(simd.load(&self.sums[i..]), a, sum), &mut self.sums[i..]);
            simd.store(most, &mut self.greatest[i..]);
            simd.store(a, &mut ours[i..]);
            simd.store(b, &mut theirs[i..]);
        }
        let dim = self.outputs.len() / QUERIES;
        let rows = self.outputs.chunks_exact_mut(dim).zip(next.outputs.chunks_exact(dim));
        for ((row, next), (a, b)) in rows.zip(ours.into_iter().zip(theirs)).take(count) {
            for (y, x) in row.iter_mut().zip(next) {
                *y = *y * a + *x * b;
            }
        }
    }

    /// The `i`-th query's output, `Σ p · value / Σ p`.
    #[inline(always)]
    pub(super) fn write(&self, i: usize, to: &mut [f32]) {
        let factor = 1.0 / self.sums[i];
        let from = &self.outputs[i * to.len()..];
        for (to, from) in to.iter_mut().zip(from) {
            *to = from * factor;
        }
    }
}
