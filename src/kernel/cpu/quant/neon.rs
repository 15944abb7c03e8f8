//! Arm's dot products of four signed bytes (optional in Armv8.2, a matter of course since Armv8.4).
#![expect(unsafe_code, reason = "vector instructions; the token proves that the machine has them")]
#![expect(clippy::inline_always, reason = "must melt into the loop that uses it")]
use super::dots::{Dots, LINE, Line, Work};
use std::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, uint32x4_t, vandq_u8, vandq_u32, vcvtq_f32_s32, vdupq_n_f32,
    vdupq_n_s8, vdupq_n_s32, vdupq_n_u8, vdupq_n_u32, vfmaq_f32, vld1q_f32, vld1q_u32, vmulq_f32,
    vreinterpretq_f32_u32, vreinterpretq_s8_u8, vreinterpretq_s8_u32, vreinterpretq_u8_u32,
    vshlq_n_u32, vshrq_n_u8, vst1q_f32, vsubq_s8,
};
use std::arch::asm;
use std::arch::is_aarch64_feature_detected;
use std::array::from_fn;

/// What intrinsics without pointers give.
macro_rules! neon {
    ($value:expr) => {
        // SAFETY: every 64-bit Arm has NEON.
        unsafe { $value }
    };
}

/// Words of a vector.
const WORDS: usize = 4;
/// Vectors of a line.
const VECTORS: usize = LINE / WORDS;

/// The proof that the machine has the dot products.
#[derive(Clone, Copy, Debug)]
pub(super) struct NeonDots(());

impl NeonDots {
    /// The token, where this machine has the instructions.
    pub(super) fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("dotprod").then_some(Self(()))
    }

    #[inline(always)]
    fn load(self, line: &Line) -> [uint32x4_t; VECTORS] {
        // SAFETY: a line is four vectors.
        from_fn(|i| unsafe { vld1q_u32(line[i * WORDS..].as_ptr()) })
    }

    /// `sums + w · x` for four columns.
    #[inline(always)]
    fn dot(self, mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // The intrinsic is not stable.
        // SAFETY: the token proves the instruction, which touches no memory.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sums:v}.4s, {w:v}.16b, {x:v}.16b",
                sums = inout(vreg) sums,
                w = in(vreg) w,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
}

impl Dots for NeonDots {
    type Weights = [int8x16_t; VECTORS];
    type Sums = [int32x4_t; VECTORS];
    type Scales = [float32x4_t; VECTORS];
    const ROWS: usize = 2;

    #[inline(always)]
    fn vectorize<W: Work>(self, work: W) {
        work.run(self);
    }

    #[inline(always)]
    fn prefetch(self, line: &Line, ahead: usize) {
        let line = line.as_ptr().wrapping_add(ahead);
        // SAFETY: the instruction reads nothing and cannot fault, whatever the address.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, readonly)) }
    }

    #[inline(always)]
    fn bytes(self, line: &Line) -> Self::Weights {
        self.load(line).map(|words| neon!(vreinterpretq_s8_u32(words)))
    }

    #[inline(always)]
    fn nibbles(self, line: &Line) -> [Self::Weights; 2] {
        let both = self.load(line).map(|words| neon!(vreinterpretq_u8_u32(words)));
        let less_eight = |nibbles| neon!(vsubq_s8(vreinterpretq_s8_u8(nibbles), vdupq_n_s8(8)));
        let lower = both.map(|both| less_eight(neon!(vandq_u8(both, vdupq_n_u8(15)))));
        [lower, both.map(|both| less_eight(neon!(vshrq_n_u8::<4>(both))))]
    }

    #[inline(always)]
    fn start(self, _: i32, _: i32) -> Self::Sums {
        [neon!(vdupq_n_s32(0)); VECTORS]
    }

    #[inline(always)]
    fn add(self, sums: Self::Sums, weights: Self::Weights, x: u32) -> Self::Sums {
        let x = neon!(vreinterpretq_s8_u32(vdupq_n_u32(x)));
        from_fn(|i| self.dot(sums[i], weights[i], x))
    }

    #[inline(always)]
    fn scales(self, line: &Line) -> Self::Scales {
        self.load(line).map(|bits| neon!(vreinterpretq_f32_u32(bits)))
    }

    #[inline(always)]
    fn half_scales(self, line: &Line) -> [Self::Scales; 2] {
        let pairs = self.load(line);
        let upper = |pairs| neon!(vandq_u32(pairs, vdupq_n_u32(0xffff_0000)));
        [
            pairs.map(|pairs| neon!(vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs)))),
            pairs.map(|pairs| neon!(vreinterpretq_f32_u32(upper(pairs)))),
        ]
    }

    #[inline(always)]
    fn add_scaled(
        self,
        to: &mut [f32; LINE],
        dots: Self::Sums,
        x_scale: f32,
        scales: Self::Scales,
    ) {
        let vectors = to.as_chunks_mut::<WORDS>().0.iter_mut().zip(dots.into_iter().zip(scales));
        for (to, (dots, scales)) in vectors {
            let scaled = neon!(vmulq_f32(vcvtq_f32_s32(dots), vdupq_n_f32(x_scale)));
            // SAFETY: the array has four values.
            let sums = unsafe { vld1q_f32(to.as_ptr()) };
            let sums = neon!(vfmaq_f32(sums, scaled, scales));
            // SAFETY: as above.
            unsafe { vst1q_f32(to.as_mut_ptr(), sums) }
        }
    }
}
