//! AVX-512 VNNI: four products of an unsigned and a signed byte a lane, added without saturation.
//!
//! The weights are the unsigned side: 128 is added to bytes here and 8 to nibbles when they are stored, which the
//! sums' start takes off again.
#![expect(unsafe_code, reason = "vector instructions; the token proves that the machine has them")]
#![expect(clippy::inline_always, reason = "must melt into the loop that uses it")]
use super::dots::{Dots, LINE, Line, Work};
use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_and_si512, _mm512_castsi512_ps,
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32,
    _mm512_srli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_epi8, _mm512_xor_si512,
};

/// The proof that the machine has AVX-512 F, BW, VL and VNNI.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vnni(());

impl Vnni {
    /// The token, where this machine has the instructions.
    pub(super) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        has.then_some(Self(()))
    }

    /// Sixteen words.
    #[inline(always)]
    pub(super) fn load(_: Self, line: &Line) -> __m512i {
        // SAFETY: the token proves AVX-512, a line has 64 bytes.
        unsafe { _mm512_loadu_si512(line.as_ptr().cast()) }
    }

    /// Sixteen sums of nothing.
    #[inline(always)]
    pub(super) fn zeros(_: Self) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    pub(super) fn store(_: Self, sums: __m512, to: &mut [f32; LINE]) {
        // SAFETY: the token proves AVX-512; the array has sixteen values.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), sums) }
    }

    #[inline(always)]
    fn splat(_: Self, word: u32) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_set1_epi32(word.cast_signed()) }
    }

    #[inline(always)]
    fn and(_: Self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_and_si512(a, b) }
    }

    #[inline(always)]
    fn floats(_: Self, bits: __m512i) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_castsi512_ps(bits) }
    }
}

impl Vnni {
    /// What [`Dots::add_scaled`] makes of `sums`.
    #[inline(always)]
    pub(super) fn plus_scaled(
        _: Self,
        sums: __m512,
        dots: __m512i,
        x_scale: f32,
        scales: __m512,
    ) -> __m512 {
        // SAFETY: the token proves AVX-512.
        let dots = unsafe { _mm512_cvtepi32_ps(dots) };
        // SAFETY: as above.
        let x_scale = unsafe { _mm512_set1_ps(x_scale) };
        // SAFETY: as above.
        let scaled = unsafe { _mm512_mul_ps(dots, x_scale) };
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(scaled, scales, sums) }
    }

    /// [`Dots::nibbles`] as signed bytes, for tiles.
    #[inline(always)]
    pub(super) fn signed_nibbles(self, line: &Line, to: [&mut Line; 2]) {
        let eight = Self::splat(self, 0x0808_0808);
        for (nibbles, to) in self.nibbles(line).into_iter().zip(to) {
            // SAFETY: the token proves AVX-512 BW.
            let signed = unsafe { _mm512_sub_epi8(nibbles, eight) };
            // SAFETY: the token proves AVX-512, a line has 64 bytes.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), signed) }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn vectorized<W: Work>(vnni: Vnni, work: W) {
    work.run(vnni);
}

impl Dots for Vnni {
    type Weights = __m512i;
    type Sums = __m512i;
    type Scales = __m512;
    const ROWS: usize = 8;

    #[inline(always)]
    fn vectorize<W: Work>(self, work: W) {
        // SAFETY: the token proves all four features.
        unsafe { vectorized(self, work) }
    }

    #[inline(always)]
    fn prefetch(self, line: &Line, ahead: usize) {
        let line = line.as_ptr().wrapping_add(ahead);
        // SAFETY: the instruction reads nothing and cannot fault, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
    }

    #[inline(always)]
    fn bytes(self, line: &Line) -> __m512i {
        let (signed, top) = (Self::load(self, line), Self::splat(self, 0x8080_8080));
        // SAFETY: the token proves AVX-512. Turning the top bit adds 128.
        unsafe { _mm512_xor_si512(signed, top) }
    }

    #[inline(always)]
    fn nibbles(self, line: &Line) -> [__m512i; 2] {
        let (both, low) = (Self::load(self, line), Self::splat(self, 0x0f0f_0f0f));
        // SAFETY: the token proves AVX-512.
        let upper = unsafe { _mm512_srli_epi32::<4>(both) };
        [Self::and(self, both, low), Self::and(self, upper, low)]
    }

    #[inline(always)]
    fn start(self, bias: i32, x_sum: i32) -> __m512i {
        Self::splat(self, (-bias * x_sum).cast_unsigned())
    }

    #[inline(always)]
    fn add(self, sums: __m512i, weights: __m512i, x: u32) -> __m512i {
        let x = Self::splat(self, x);
        // SAFETY: the token proves AVX-512 VNNI.
        unsafe { _mm512_dpbusd_epi32(sums, weights, x) }
    }

    #[inline(always)]
    fn scales(self, line: &Line) -> __m512 {
        Self::floats(self, Self::load(self, line))
    }

    #[inline(always)]
    fn half_scales(self, line: &Line) -> [__m512; 2] {
        let pairs = Self::load(self, line);
        // SAFETY: the token proves AVX-512.
        let lower = unsafe { _mm512_slli_epi32::<16>(pairs) };
        [
            Self::floats(self, lower),
            Self::floats(self, Self::and(self, pairs, Self::splat(self, 0xffff_0000))),
        ]
    }

    #[inline(always)]
    fn add_scaled(self, to: &mut [f32; LINE], dots: __m512i, x_scale: f32, scales: __m512) {
        // SAFETY: the token proves AVX-512; the array has sixteen values.
        let sums = unsafe { _mm512_loadu_ps(to.as_ptr()) };
        Self::store(self, Self::plus_scaled(self, sums, dots, x_scale, scales), to);
    }
}
