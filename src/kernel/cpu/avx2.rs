//! AVX2 with fused multiply-add: eight lanes.
#![expect(unsafe_code, reason = "vector instructions; the token proves that the machine has them")]
#![expect(clippy::inline_always, reason = "a lane operation must melt into the loop that uses it")]
use super::simd::{Simd, Task, round_wide};
use half::bf16;
use std::arch::x86_64::{
    __m256, _CMP_LT_OQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0, _mm_loadu_si128,
    _mm_prefetch, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_andnot_ps,
    _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvtepu16_epi32, _mm256_cvtps_epi32, _mm256_div_ps,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_max_ps, _mm256_min_ps,
    _mm256_mul_ps, _mm256_round_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_slli_epi32,
    _mm256_storeu_ps,
};

/// The proof that the machine has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    /// The token, where this machine has the instructions.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    #[inline(always)]
    fn lanes(self, v: __m256) -> [f32; 8] {
        let mut lanes = [0.0; 8];
        self.store(v, &mut lanes);
        lanes
    }
}

#[target_feature(enable = "avx2,fma")]
fn vectorized<T: Task>(simd: Avx2, task: T) -> T::Output {
    task.run(simd)
}

impl Simd for Avx2 {
    type V = __m256;
    type Part = __m256;
    const PARTS: usize = 2;
    const LANES: usize = 8;
    const ROWS: usize = 3;

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) -> T::Output {
        // SAFETY: the token proves both features.
        unsafe { vectorized(self, task) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m256 {
        let from = &from[..Self::LANES];
        // SAFETY: the token proves AVX2, the slice has eight elements.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn load_halves(self, from: &[bf16]) -> __m256 {
        let from = &from[..Self::LANES];
        // SAFETY: the token proves AVX2, the slice has eight elements of two bytes.
        let halves = unsafe { _mm_loadu_si128(from.as_ptr().cast()) };
        // SAFETY: the token proves AVX2.
        let words = unsafe { _mm256_cvtepu16_epi32(halves) };
        // SAFETY: as above.
        let bits = unsafe { _mm256_slli_epi32::<16>(words) };
        // SAFETY: as above.
        unsafe { _mm256_castsi256_ps(bits) }
    }

    #[inline(always)]
    fn store(self, v: __m256, to: &mut [f32]) {
        let to = &mut to[..Self::LANES];
        // SAFETY: the token proves AVX2, the slice has eight elements.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn prefetch<T>(self, element: &T, ahead: usize) {
        let line = std::ptr::from_ref(element).wrapping_add(ahead);
        // SAFETY: the instruction reads nothing and cannot fault, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the token proves FMA.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, v: __m256) -> __m256 {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_round_ps::<NEAREST>(v) }
    }

    #[inline(always)]
    fn scale(self, v: __m256, n: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        let n = unsafe { _mm256_cvtps_epi32(n) };
        // SAFETY: as above.
        let bias = unsafe { _mm256_set1_epi32(127) };
        // SAFETY: as above.
        let exponent = unsafe { _mm256_add_epi32(n, bias) };
        // SAFETY: as above.
        let bits = unsafe { _mm256_slli_epi32::<23>(exponent) };
        // SAFETY: as above.
        let power = unsafe { _mm256_castsi256_ps(bits) };
        self.mul(v, power)
    }

    #[inline(always)]
    fn zero_below(self, v: __m256, x: __m256, limit: f32) -> __m256 {
        let limit = self.splat(limit);
        // SAFETY: the token proves AVX2.
        let below = unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(x, limit) };
        // SAFETY: as above.
        unsafe { _mm256_andnot_ps(below, v) }
    }

    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.lanes(v);
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    #[inline(always)]
    fn greatest(self, v: __m256) -> f32 {
        self.lanes(v).into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn load_part(self, from: &[u32], part: usize) -> __m256 {
        let from = &from[..Self::LANES];
        // SAFETY: the token proves AVX2, the slice has eight elements.
        let pairs = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
        // SAFETY: the token proves AVX2.
        let later = unsafe { _mm256_set1_epi32(0xffff_0000_u32.cast_signed()) };
        let bits = if part == 0 {
            // SAFETY: the token proves AVX2.
            unsafe { _mm256_slli_epi32::<16>(pairs) }
        } else {
            // SAFETY: the token proves AVX2.
            unsafe { _mm256_and_si256(pairs, later) }
        };
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_castsi256_ps(bits) }
    }

    #[inline(always)]
    fn widen(self, from: &[u32], half: usize) -> __m256 {
        self.load_part(from, half)
    }

    #[inline(always)]
    fn splat_part(self, word: u32) -> __m256 {
        self.splat(f32::from_bits(word))
    }

    #[inline(always)]
    fn add_part(self, sums: __m256, w: __m256, x: __m256) -> __m256 {
        self.mul_add(w, x, sums)
    }

    #[inline(always)]
    fn round_to_parts(self, x: &[f32], to: &mut [u32]) {
        round_wide(x, to);
    }
}
