//! AVX2: products of an unsigned and a signed byte, added in pairs to 16 bits, then to 32.
//!
//! Pairs saturate at 2¹⁵, so the unsigned side is the weight's magnitude and its sign goes to the activation: with
//! both at most 127, no pair is beyond 32,258.
#![expect(unsafe_code, reason = "vector instructions; the token proves that the machine has them")]
#![expect(clippy::inline_always, reason = "must melt into the loop that uses it")]
use super::dots::{Dots, LINE, Line, Work};
use std::arch::x86_64::{
    __m256, __m256i, _MM_HINT_T0, _mm_prefetch, _mm256_abs_epi8, _mm256_add_epi32,
    _mm256_and_si256, _mm256_castsi256_ps, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_sign_epi8,
    _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_ps, _mm256_sub_epi8,
};

/// The proof that the machine has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    /// The token, where this machine has the instructions.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    /// Eight columns each.
    #[inline(always)]
    fn load(_: Self, line: &Line) -> [__m256i; 2] {
        let (low, high) = line.split_at(LINE / 2);
        // SAFETY: the token proves AVX2, half a line has 32 bytes.
        [low, high].map(|half| unsafe { _mm256_loadu_si256(half.as_ptr().cast()) })
    }

    #[inline(always)]
    fn splat(_: Self, word: u32) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_set1_epi32(word.cast_signed()) }
    }

    #[inline(always)]
    fn and(self, a: __m256i, word: u32) -> __m256i {
        let b = Self::splat(self, word);
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_and_si256(a, b) }
    }

    #[inline(always)]
    fn floats(_: Self, bits: __m256i) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_castsi256_ps(bits) }
    }

    /// Bytes 0 to 15 as −8 to 7.
    #[inline(always)]
    fn less_eight(_: Self, bytes: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        let eight = unsafe { _mm256_set1_epi8(8) };
        // SAFETY: as above.
        unsafe { _mm256_sub_epi8(bytes, eight) }
    }

    /// `sums + w · x` for eight columns.
    #[inline(always)]
    fn add_half(_: Self, sums: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        let size = unsafe { _mm256_abs_epi8(w) };
        // SAFETY: as above.
        let signed = unsafe { _mm256_sign_epi8(x, w) };
        // SAFETY: as above.
        let pairs = unsafe { _mm256_maddubs_epi16(size, signed) };
        // SAFETY: as above.
        let ones = unsafe { _mm256_set1_epi16(1) };
        // SAFETY: as above.
        let dots = unsafe { _mm256_madd_epi16(pairs, ones) };
        // SAFETY: as above.
        unsafe { _mm256_add_epi32(sums, dots) }
    }

    #[inline(always)]
    fn add_scaled_half(_: Self, to: &mut [f32], dots: __m256i, x_scale: f32, scales: __m256) {
        let to = &mut to[..LINE / 2];
        // SAFETY: the token proves AVX2.
        let dots = unsafe { _mm256_cvtepi32_ps(dots) };
        // SAFETY: as above.
        let x_scale = unsafe { _mm256_set1_ps(x_scale) };
        // SAFETY: as above.
        let scaled = unsafe { _mm256_mul_ps(dots, x_scale) };
        // SAFETY: as above; the slice has eight values.
        let sums = unsafe { _mm256_loadu_ps(to.as_ptr()) };
        // SAFETY: the token proves FMA.
        let sums = unsafe { _mm256_fmadd_ps(scaled, scales, sums) };
        // SAFETY: the token proves AVX2; the slice has eight values.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), sums) }
    }
}

#[target_feature(enable = "avx2,fma")]
fn vectorized<W: Work>(avx2: Avx2, work: W) {
    work.run(avx2);
}

impl Dots for Avx2 {
    type Weights = [__m256i; 2];
    type Sums = [__m256i; 2];
    type Scales = [__m256; 2];
    const ROWS: usize = 2;

    #[inline(always)]
    fn vectorize<W: Work>(self, work: W) {
        // SAFETY: the token proves both features.
        unsafe { vectorized(self, work) }
    }

    #[inline(always)]
    fn prefetch(self, line: &Line, ahead: usize) {
        let line = line.as_ptr().wrapping_add(ahead);
        // SAFETY: the instruction reads nothing and cannot fault, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
    }

    #[inline(always)]
    fn bytes(self, line: &Line) -> [__m256i; 2] {
        Self::load(self, line)
    }

    #[inline(always)]
    fn nibbles(self, line: &Line) -> [[__m256i; 2]; 2] {
        let both = Self::load(self, line);
        // SAFETY: the token proves AVX2.
        let upper = both.map(|both| unsafe { _mm256_srli_epi32::<4>(both) });
        [both, upper].map(|half| half.map(|v| Self::less_eight(self, self.and(v, 0x0f0f_0f0f))))
    }

    #[inline(always)]
    fn start(self, _: i32, _: i32) -> [__m256i; 2] {
        // SAFETY: the token proves AVX2.
        [unsafe { _mm256_setzero_si256() }; 2]
    }

    #[inline(always)]
    fn add(self, [low, high]: [__m256i; 2], w: [__m256i; 2], x: u32) -> [__m256i; 2] {
        let x = Self::splat(self, x);
        [Self::add_half(self, low, w[0], x), Self::add_half(self, high, w[1], x)]
    }

    #[inline(always)]
    fn scales(self, line: &Line) -> [__m256; 2] {
        Self::load(self, line).map(|bits| Self::floats(self, bits))
    }

    #[inline(always)]
    fn half_scales(self, line: &Line) -> [[__m256; 2]; 2] {
        let pairs = Self::load(self, line);
        // SAFETY: the token proves AVX2.
        let lower = pairs.map(|pairs| unsafe { _mm256_slli_epi32::<16>(pairs) });
        let upper = pairs.map(|pairs| self.and(pairs, 0xffff_0000));
        [lower, upper].map(|half| half.map(|bits| Self::floats(self, bits)))
    }

    #[inline(always)]
    fn add_scaled(
        self,
        to: &mut [f32; LINE],
        dots: [__m256i; 2],
        x_scale: f32,
        scales: [__m256; 2],
    ) {
        let (low, high) = to.split_at_mut(LINE / 2);
        Self::add_scaled_half(self, low, dots[0], x_scale, scales[0]);
        Self::add_scaled_half(self, high, dots[1], x_scale, scales[1]);
    }
}
