//! NEON, which every 64-bit Arm has: eight lanes in two vectors of four.
#![expect(unsafe_code, reason = "loads and stores through pointers, and a prefetch")]
#![expect(clippy::inline_always, reason = "a lane operation must melt into the loop that uses it")]
use super::simd::{Simd, Task, round_wide};
use half::bf16;
use std::arch::aarch64::{
    float32x4_t, uint32x4_t, vaddq_f32, vaddq_s32, vandq_u32, vbslq_f32, vcgtq_f32, vcltq_f32,
    vcvtq_s32_f32, vdivq_f32, vdupq_n_f32, vdupq_n_s32, vdupq_n_u32, vfmaq_f32, vget_low_u16,
    vld1q_f32, vld1q_u16, vld1q_u32, vmulq_f32, vreinterpretq_f32_s32, vreinterpretq_f32_u32,
    vrndnq_f32, vshll_high_n_u16, vshll_n_u16, vshlq_n_s32, vshlq_n_u32, vst1q_f32,
};
use std::arch::asm;
use std::array::from_fn;

/// What intrinsics without pointers give.
macro_rules! neon {
    ($value:expr) => {
        // SAFETY: every 64-bit Arm has NEON.
        unsafe { $value }
    };
}

/// Lanes of one vector.
const HALF: usize = 4;

/// Every 64-bit Arm has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neon;

impl Neon {
    #[inline(always)]
    fn lanes(self, v: [float32x4_t; 2]) -> [f32; 8] {
        let mut lanes = [0.0; 8];
        self.store(v, &mut lanes);
        lanes
    }
}

impl Simd for Neon {
    type V = [float32x4_t; 2];
    type Part = [float32x4_t; 2];
    const PARTS: usize = 2;
    const LANES: usize = 2 * HALF;
    const ROWS: usize = 3;

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) -> T::Output {
        task.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [neon!(vdupq_n_f32(x)); 2]
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::V {
        let from = &from[..Self::LANES];
        // SAFETY: the slice has eight elements.
        from_fn(|i| unsafe { vld1q_f32(from[i * HALF..].as_ptr()) })
    }

    #[inline(always)]
    fn load_halves(self, from: &[bf16]) -> Self::V {
        let from = &from[..Self::LANES];
        // SAFETY: the slice has eight elements of two bytes.
        let halves = unsafe { vld1q_u16(from.as_ptr().cast()) };
        let (low, high) =
            neon!((vshll_n_u16::<16>(vget_low_u16(halves)), vshll_high_n_u16::<16>(halves)));
        [low, high].map(|bits| neon!(vreinterpretq_f32_u32(bits)))
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32]) {
        for (v, to) in v.into_iter().zip(to[..Self::LANES].as_chunks_mut::<HALF>().0) {
            // SAFETY: the array has four elements.
            unsafe { vst1q_f32(to.as_mut_ptr(), v) }
        }
    }

    #[inline(always)]
    fn prefetch<T>(self, element: &T, ahead: usize) {
        let line = std::ptr::from_ref(element).wrapping_add(ahead);
        // SAFETY: the instruction reads nothing and cannot fault, whatever the address.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, readonly)) }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| neon!(vaddq_f32(a[i], b[i])))
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| neon!(vmulq_f32(a[i], b[i])))
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| neon!(vdivq_f32(a[i], b[i])))
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        from_fn(|i| neon!(vfmaq_f32(c[i], a[i], b[i])))
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // The instruction for it prefers a NaN.
        from_fn(|i| neon!(vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i])))
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| neon!(vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i])))
    }

    #[inline(always)]
    fn round(self, v: Self::V) -> Self::V {
        v.map(|v| neon!(vrndnq_f32(v)))
    }

    #[inline(always)]
    fn scale(self, v: Self::V, n: Self::V) -> Self::V {
        let exponent = |n| neon!(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)));
        let power = |n| neon!(vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent(n))));
        self.mul(v, n.map(power))
    }

    #[inline(always)]
    fn zero_below(self, v: Self::V, x: Self::V, limit: f32) -> Self::V {
        let ([limit, _], [zero, _]) = (self.splat(limit), self.splat(0.0));
        from_fn(|i| neon!(vbslq_f32(vcltq_f32(x[i], limit), zero, v[i])))
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.lanes(v);
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    #[inline(always)]
    fn greatest(self, v: Self::V) -> f32 {
        self.lanes(v).into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn load_part(self, from: &[u32], part: usize) -> Self::V {
        let from = &from[..Self::LANES];
        from_fn(|i| {
            // SAFETY: the slice has eight elements.
            let pairs = unsafe { vld1q_u32(from[i * HALF..].as_ptr()) };
            neon!(vreinterpretq_f32_u32(half_of(pairs, part)))
        })
    }

    #[inline(always)]
    fn widen(self, from: &[u32], half: usize) -> Self::V {
        self.load_part(from, half)
    }

    #[inline(always)]
    fn splat_part(self, word: u32) -> Self::V {
        self.splat(f32::from_bits(word))
    }

    #[inline(always)]
    fn add_part(self, sums: Self::V, w: Self::V, x: Self::V) -> Self::V {
        self.mul_add(w, x, sums)
    }

    #[inline(always)]
    fn round_to_parts(self, x: &[f32], to: &mut [u32]) {
        round_wide(x, to);
    }
}

/// The earlier (0) or later (1) values of pairs, as f32 bits.
#[inline(always)]
fn half_of(pairs: uint32x4_t, half: usize) -> uint32x4_t {
    if half == 0 {
        neon!(vshlq_n_u32::<16>(pairs))
    } else {
        neon!(vandq_u32(pairs, vdupq_n_u32(0xffff_0000)))
    }
}
