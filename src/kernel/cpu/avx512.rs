//! AVX-512: sixteen lanes, and dot products of bfloat16 pairs where the machine has them.
#![expect(unsafe_code, reason = "vector instructions; the token proves that the machine has them")]
#![expect(clippy::inline_always, reason = "a lane operation must melt into the loop that uses it")]
use super::simd::{
    Simd, Square, Task, bytes_to_pairs, round_side_by_side, round_to_pairs, round_wide,
};
use half::bf16;
use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, _CMP_LT_OQ, _MM_FROUND_NO_EXC,
    _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm256_storeu_si256,
    _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh,
    _mm512_div_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_mov_epi16, _mm512_mask_mov_ps, _mm512_mask_storeu_epi32, _mm512_max_ps,
    _mm512_min_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_reduce_add_ps, _mm512_reduce_max_ps,
    _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_slli_epi32, _mm512_srai_epi32,
    _mm512_srli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::ops::Range;

/// The proof that the machine has AVX-512 F, BW and VL, and with `DOT` also BF16.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512<const DOT: bool>(());

impl<const DOT: bool> Avx512<DOT> {
    /// The token, where this machine has the instructions.
    pub(super) fn detect() -> Option<Self> {
        let base = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        (base && (!DOT || is_x86_feature_detected!("avx512bf16"))).then_some(Self(()))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn plain<const DOT: bool, T: Task>(simd: Avx512<DOT>, task: T) -> T::Output {
    task.run(simd)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn with_dot<const DOT: bool, T: Task>(simd: Avx512<DOT>, task: T) -> T::Output {
    task.run(simd)
}

impl<const DOT: bool> Simd for Avx512<DOT> {
    type V = __m512;
    type Part = __m512i;
    const PARTS: usize = if DOT { 1 } else { 2 };
    const LANES: usize = 16;
    const ROWS: usize = 6;

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) -> T::Output {
        if DOT {
            // SAFETY: the token proves all four features.
            unsafe { with_dot(self, task) }
        } else {
            // SAFETY: the token proves the three features.
            unsafe { plain(self, task) }
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m512 {
        let from = &from[..Self::LANES];
        // SAFETY: the token proves AVX-512, the slice has sixteen elements.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn load_halves(self, from: &[bf16]) -> __m512 {
        let from = &from[..Self::LANES];
        // SAFETY: the token proves AVX-512, the slice has sixteen elements of two bytes.
        let halves = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
        // SAFETY: the token proves AVX-512.
        let words = unsafe { _mm512_cvtepu16_epi32(halves) };
        // SAFETY: as above.
        let bits = unsafe { _mm512_slli_epi32::<16>(words) };
        // SAFETY: as above.
        unsafe { _mm512_castsi512_ps(bits) }
    }

    #[inline(always)]
    fn store(self, v: __m512, to: &mut [f32]) {
        let to = &mut to[..Self::LANES];
        // SAFETY: the token proves AVX-512, the slice has sixteen elements.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn prefetch<T>(self, element: &T, ahead: usize) {
        let line = std::ptr::from_ref(element).wrapping_add(ahead);
        // SAFETY: the instruction reads nothing and cannot fault, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, v: __m512) -> __m512 {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_roundscale_ps::<NEAREST>(v) }
    }

    #[inline(always)]
    fn scale(self, v: __m512, n: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_scalef_ps(v, n) }
    }

    #[inline(always)]
    fn zero_below(self, v: __m512, x: __m512, limit: f32) -> __m512 {
        let limit = self.splat(limit);
        // SAFETY: the token proves AVX-512.
        let below = unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, limit) };
        // SAFETY: as above.
        let zero = unsafe { _mm512_setzero_ps() };
        // SAFETY: as above.
        unsafe { _mm512_mask_mov_ps(v, below, zero) }
    }

    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_reduce_add_ps(v) }
    }

    #[inline(always)]
    fn greatest(self, v: __m512) -> f32 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_reduce_max_ps(v) }
    }

    #[inline(always)]
    fn widen(self, from: &[u32], half: usize) -> __m512 {
        let wide = self.half(Self::load_pairs(self, from), half);
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_castsi512_ps(wide) }
    }

    #[inline(always)]
    fn load_part(self, from: &[u32], part: usize) -> __m512i {
        let pairs = Self::load_pairs(self, from);
        if DOT { pairs } else { self.half(pairs, part) }
    }

    #[inline(always)]
    fn splat_part(self, word: u32) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_set1_epi32(word.cast_signed()) }
    }

    #[inline(always)]
    fn add_part(self, sums: __m512, w: __m512i, x: __m512i) -> __m512 {
        if DOT {
            // SAFETY: the token proves AVX-512 BF16.
            return unsafe { _mm512_dpbf16_ps(sums, halves(w), halves(x)) };
        }
        // SAFETY: the token proves AVX-512.
        let w = unsafe { _mm512_castsi512_ps(w) };
        // SAFETY: as above.
        let x = unsafe { _mm512_castsi512_ps(x) };
        self.mul_add(w, x, sums)
    }

    #[inline(always)]
    fn round_to_parts(self, x: &[f32], to: &mut [u32]) {
        if !DOT {
            return round_wide(x, to);
        }
        let (lines, x) = x.as_chunks::<32>();
        let (to_lines, to) = to.split_at_mut(lines.len() * 16);
        for (x, to) in lines.iter().zip(to_lines.as_chunks_mut::<16>().0) {
            let (lower, upper) = (self.load(x), self.load(&x[16..]));
            // SAFETY: the token proves AVX-512 BF16.
            let rounded = unsafe { _mm512_cvtne2ps_pbh(upper, lower) };
            // SAFETY: both types are thirty-two bfloat16 bit patterns.
            let rounded: __m512i = unsafe { std::mem::transmute(rounded) };
            // SAFETY: the array has 64 bytes.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), rounded) }
        }
        let (full, rest) = x.as_chunks::<16>();
        let (to, to_rest) = to.split_at_mut(full.len() * 8);
        for (x, to) in full.iter().zip(to.as_chunks_mut::<8>().0) {
            let x = self.load(x);
            // SAFETY: the token proves AVX-512 BF16.
            let rounded = unsafe { _mm512_cvtneps_pbh(x) };
            // SAFETY: both types are sixteen bfloat16 bit patterns.
            let rounded: __m256i = unsafe { std::mem::transmute(rounded) };
            // SAFETY: the array has 32 bytes.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), rounded) }
        }
        round_to_pairs(rest, to_rest);
    }

    #[inline(always)]
    fn round_to_pairs(self, x: &[f32], to: &mut [u32]) {
        if DOT { self.round_to_parts(x, to) } else { round_to_pairs(x, to) }
    }

    #[inline(always)]
    fn round_side_by_side(self, earlier: &[f32], later: &[f32], to: &mut [u32]) {
        if !DOT {
            return round_side_by_side(earlier, later, to);
        }
        let len = to.len();
        assert!(earlier.len() == len && later.len() == len, "a word for each two values");
        let ((earlier, earlier_rest), (later, later_rest)) =
            (earlier.as_chunks::<16>(), later.as_chunks::<16>());
        let (to, to_rest) = to.as_chunks_mut::<16>();
        for (to, (earlier, later)) in to.iter_mut().zip(earlier.iter().zip(later)) {
            // SAFETY: the token proves AVX-512 BF16.
            unsafe { round_both(earlier, later, to) }
        }
        round_side_by_side(earlier_rest, later_rest, to_rest);
    }

    #[inline(always)]
    fn widen_byte(self, from: &[u32], number: usize) -> __m512 {
        let words = Self::load_pairs(self, from);
        // SAFETY: the token proves AVX-512.
        unsafe { widen_byte(words, number) }
    }

    #[inline(always)]
    fn bytes_to_pairs(self, from: &[u32], earlier: &mut [u32], later: &mut [u32]) {
        let len = from.len();
        assert!(earlier.len() == len && later.len() == len, "a pair each for two of four bytes");
        let ((from, from_rest), vectors) = (from.as_chunks::<16>(), len / 16);
        let (earlier, earlier_rest) = earlier.split_at_mut(16 * vectors);
        let (later, later_rest) = later.split_at_mut(16 * vectors);
        let to = earlier.as_chunks_mut::<16>().0.iter_mut().zip(later.as_chunks_mut::<16>().0);
        for (from, (earlier, later)) in from.iter().zip(to) {
            // SAFETY: the token proves AVX-512.
            unsafe { split_bytes(from, earlier, later) }
        }
        bytes_to_pairs(from_rest, earlier_rest, later_rest);
    }

    #[inline(always)]
    fn turn(self, rows: &Square, lanes: Range<usize>, to: &mut [u32]) {
        assert!(lanes.end <= Self::LANES, "a vector has no more lanes");
        let mask = ((1_u32 << lanes.len()) - 1) << lanes.start;
        // SAFETY: the token proves AVX-512.
        unsafe { turn(rows, mask as u16, to) }
    }
}

/// Signed byte `number` of each word.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn widen_byte(words: __m512i, number: usize) -> __m512 {
    let bytes = match number {
        0 => _mm512_slli_epi32::<24>(words),
        1 => _mm512_slli_epi32::<16>(words),
        2 => _mm512_slli_epi32::<8>(words),
        _ => words,
    };
    _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(bytes))
}

/// Rounds both to bfloat16: words of their values at one place, `earlier`'s in the lower half.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
fn round_both(earlier: &[f32; 16], later: &[f32; 16], to: &mut [u32; 16]) {
    let mut both = [_mm512_setzero_si512(); 2];
    for (values, to) in [earlier, later].into_iter().zip(&mut both) {
        // SAFETY: the array has 64 bytes.
        let rounded = _mm512_cvtneps_pbh(unsafe { _mm512_loadu_ps(values.as_ptr()) });
        // SAFETY: both types are sixteen bfloat16 bit patterns.
        *to = _mm512_cvtepu16_epi32(unsafe { std::mem::transmute::<__m256bh, __m256i>(rounded) });
    }
    let words = _mm512_or_si512(both[0], _mm512_slli_epi32::<16>(both[1]));
    // SAFETY: the array has 64 bytes.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), words) }
}

/// The bytes of each word as pairs of bfloat16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn split_bytes(from: &[u32; 16], earlier: &mut [u32; 16], later: &mut [u32; 16]) {
    /// The upper halves of all words.
    const UPPER: u32 = 0xaaaa_aaaa;
    // SAFETY: the array has 64 bytes.
    let words = unsafe { _mm512_loadu_si512(from.as_ptr().cast()) };
    for (number, to) in [(0, earlier), (2, later)] {
        let lower = _mm512_castps_si512(widen_byte(words, number));
        let upper = _mm512_castps_si512(widen_byte(words, number + 1));
        let pairs = _mm512_mask_mov_epi16(_mm512_srli_epi32::<16>(lower), UPPER, upper);
        // SAFETY: the array has 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs) }
    }
}

/// The lanes in `mask` of the lines of `to` become the columns of `rows`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn turn(rows: &Square, mask: u16, to: &mut [u32]) {
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    let zero = _mm512_setzero_si512();
    // Loops, no closures: those would be compiled without the instruction set.
    let (mut twos, mut fours, mut eights) = ([zero; 16], [zero; 16], [zero; 16]);
    for i in (0..16).step_by(2) {
        // SAFETY: a row has sixteen words.
        let first = unsafe { _mm512_loadu_si512(rows[i].as_ptr().cast()) };
        // SAFETY: as above.
        let second = unsafe { _mm512_loadu_si512(rows[i + 1].as_ptr().cast()) };
        twos[i] = _mm512_unpacklo_epi32(first, second);
        twos[i + 1] = _mm512_unpackhi_epi32(first, second);
    }
    // Quarter `q` of `fours[4 * g + j]` is column `4 * q + j` of the rows from `4 * g` on.
    for i in (0..16).step_by(2) {
        let at = i / 4 * 4 + i % 4 / 2;
        fours[i] = _mm512_unpacklo_epi64(twos[at], twos[at + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(twos[at], twos[at + 2]);
    }
    // First the even quarters, then the odd ones; of each the upper eight rows, then the lower.
    for i in 0..8 {
        let at = i % 4 + i / 4 * 8;
        eights[i] = _mm512_shuffle_i32x4::<EVEN>(fours[at], fours[at + 4]);
        eights[i + 8] = _mm512_shuffle_i32x4::<ODD>(fours[at], fours[at + 4]);
    }
    for (i, line) in to.as_chunks_mut::<16>().0.iter_mut().take(16).enumerate() {
        let at = i % 4 + i / 4 % 2 * 8;
        let (upper, lower) = (eights[at], eights[at + 4]);
        let column = if i < 8 {
            _mm512_shuffle_i32x4::<EVEN>(upper, lower)
        } else {
            _mm512_shuffle_i32x4::<ODD>(upper, lower)
        };
        // SAFETY: a line has sixteen words.
        unsafe { _mm512_mask_storeu_epi32(line.as_mut_ptr().cast(), mask, column) }
    }
}

impl<const DOT: bool> Avx512<DOT> {
    #[inline(always)]
    fn load_pairs(_: Self, from: &[u32]) -> __m512i {
        let from = &from[..Self::LANES];
        // SAFETY: the token proves AVX-512, the slice has sixteen elements.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    /// The earlier (0) or later (1) values of pairs, as f32 bits.
    #[inline(always)]
    fn half(self, pairs: __m512i, half: usize) -> __m512i {
        if half == 0 {
            // SAFETY: the token proves AVX-512.
            return unsafe { _mm512_slli_epi32::<16>(pairs) };
        }
        let later = self.splat_part(0xffff_0000);
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_and_si512(pairs, later) }
    }
}

#[inline(always)]
fn halves(pairs: __m512i) -> __m512bh {
    // SAFETY: both types are 512 bits without invalid patterns.
    unsafe { std::mem::transmute(pairs) }
}
