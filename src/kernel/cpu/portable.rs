//! Eight lanes in plain arrays, for machines without the vectors we know; the compiler does what it can.
#![expect(clippy::inline_always, reason = "a lane operation must melt into the loop that uses it")]
use super::simd::{Simd, Stored, Task, round_wide};
use half::bf16;
use std::array::from_fn;

/// Every machine can do this.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

impl Simd for Portable {
    type V = [f32; 8];
    type Part = [f32; 8];
    const PARTS: usize = 2;
    const LANES: usize = 8;
    const ROWS: usize = 1;

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) -> T::Output {
        task.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 8] {
        [x; 8]
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> [f32; 8] {
        let from = &from[..Self::LANES];
        from_fn(|i| from[i])
    }

    #[inline(always)]
    fn load_halves(self, from: &[bf16]) -> [f32; 8] {
        let from = &from[..Self::LANES];
        from_fn(|i| from[i].wide())
    }

    #[inline(always)]
    fn store(self, v: [f32; 8], to: &mut [f32]) {
        to[..Self::LANES].copy_from_slice(&v);
    }

    #[inline(always)]
    fn prefetch<T>(self, _: &T, _: usize) {}

    #[inline(always)]
    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        from_fn(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn mul_add(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        // Two roundings: without the instruction, a fused one is a slow library call.
        from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn max(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn round(self, v: [f32; 8]) -> [f32; 8] {
        // Adding and taking away 1.5 · 2²³ rounds |v| < 2²² in the adder; `f32::round` is a library call.
        const SHIFT: f32 = 12_582_912.0;
        from_fn(|i| (v[i] + SHIFT) - SHIFT)
    }

    #[inline(always)]
    fn scale(self, v: [f32; 8], n: [f32; 8]) -> [f32; 8] {
        from_fn(|i| v[i] * f32::from_bits(((n[i] as i32).wrapping_add(127) << 23).cast_unsigned()))
    }

    #[inline(always)]
    fn zero_below(self, v: [f32; 8], x: [f32; 8], limit: f32) -> [f32; 8] {
        from_fn(|i| if x[i] < limit { 0.0 } else { v[i] })
    }

    #[inline(always)]
    fn sum(self, [a, b, c, d, e, f, g, h]: [f32; 8]) -> f32 {
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    #[inline(always)]
    fn greatest(self, v: [f32; 8]) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn load_part(self, from: &[u32], part: usize) -> [f32; 8] {
        let from = &from[..Self::LANES];
        let half = |pair: u32| if part == 0 { pair << 16 } else { pair & 0xffff_0000 };
        from_fn(|i| f32::from_bits(half(from[i])))
    }

    #[inline(always)]
    fn widen(self, from: &[u32], half: usize) -> [f32; 8] {
        self.load_part(from, half)
    }

    #[inline(always)]
    fn splat_part(self, word: u32) -> [f32; 8] {
        [f32::from_bits(word); 8]
    }

    #[inline(always)]
    fn add_part(self, sums: [f32; 8], w: [f32; 8], x: [f32; 8]) -> [f32; 8] {
        self.mul_add(w, x, sums)
    }

    #[inline(always)]
    fn round_to_parts(self, x: &[f32], to: &mut [u32]) {
        round_wide(x, to);
    }
}
