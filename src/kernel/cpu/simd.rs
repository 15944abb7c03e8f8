//! What a kernel may ask of an instruction set, and how it gets compiled for each.
#![expect(clippy::inline_always, reason = "must melt into the loop that uses it")]
use half::bf16;
use std::ops::Range;

/// A piece of work written once for every instruction set.
pub(super) trait Task {
    /// What it gives back.
    type Output;
    /// The work; `#[inline(always)]`, so that it is compiled with the instruction set of `simd`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Vectors of f32. A value of the type is the proof that this machine has the instructions.
pub(super) trait Simd: Copy + Send + Sync {
    /// [`Simd::LANES`] f32 values.
    type V: Copy;
    /// What one multiplication of bfloat16 pairs takes: a whole pair a lane, or one value of each.
    type Part: Copy;
    /// How many multiplications a pair takes: one where the machine multiplies pairs, else two.
    const PARTS: usize;
    /// f32 values a vector has.
    const LANES: usize;
    /// Rows whose sums over [`VECTORS`](super::linear::VECTORS) vectors of columns fit the registers.
    const ROWS: usize;

    /// Runs `task` compiled for this instruction set.
    fn vectorize<T: Task>(self, task: T) -> T::Output;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::V;
    /// The first lanes of `from`, which is at least as long.
    fn load(self, from: &[f32]) -> Self::V;
    /// The first lanes of `from`, which is at least as long, as f32.
    fn load_halves(self, from: &[bf16]) -> Self::V;
    /// Into the first lanes of `to`, which is at least as long.
    fn store(self, v: Self::V, to: &mut [f32]);
    /// Asks for the cache line of `element`, `ahead` elements on; it need not exist.
    fn prefetch<T>(self, element: &T, ahead: usize);
    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`, rounded once where the machine can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The greater; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest integer.
    fn round(self, v: Self::V) -> Self::V;
    /// `v · 2^n` for integers `n` in −126..=127.
    fn scale(self, v: Self::V, n: Self::V) -> Self::V;
    /// `v`, with 0 where `x < limit`.
    fn zero_below(self, v: Self::V, x: Self::V, limit: f32) -> Self::V;
    /// The sum of the lanes, always in the same order.
    fn sum(self, v: Self::V) -> f32;
    /// The greatest lane.
    fn greatest(self, v: Self::V) -> f32;

    /// The earlier (0) or later (1) values of the first pairs of `from`, which is at least
    /// [`Simd::LANES`] long, as f32.
    fn widen(self, from: &[u32], half: usize) -> Self::V;
    /// Part `part` of the first pairs of `from`, which is at least [`Simd::LANES`] long.
    fn load_part(self, from: &[u32], part: usize) -> Self::Part;
    /// One of the [`Simd::PARTS`] words [`Simd::round_to_parts`] makes of a pair, in every lane.
    fn splat_part(self, word: u32) -> Self::Part;
    /// `sums + w · x`, summed over what a part has in a lane.
    fn add_part(self, sums: Self::V, w: Self::Part, x: Self::Part) -> Self::V;
    /// Rounds `x` to bfloat16; `to` has [`Simd::PARTS`] words for each pair, the last one filled up with 0.
    fn round_to_parts(self, x: &[f32], to: &mut [u32]);

    /// Rounds `x` to bfloat16; `to` has a word for each pair, the last one filled up with 0.
    #[inline(always)]
    fn round_to_pairs(self, x: &[f32], to: &mut [u32]) {
        round_to_pairs(x, to);
    }

    /// Rounds two rows to bfloat16, one beside the other: a word for each two values at one place, `earlier`'s in the
    /// lower half.
    #[inline(always)]
    fn round_side_by_side(self, earlier: &[f32], later: &[f32], to: &mut [u32]) {
        round_side_by_side(earlier, later, to);
    }

    /// Signed byte `number` of the first words of `from`, which is at least [`Simd::LANES`] long, as f32.
    #[inline(always)]
    fn widen_byte(self, from: &[u32], number: usize) -> Self::V {
        let mut wide = [0.0; 16];
        for (wide, word) in wide[..Self::LANES].iter_mut().zip(&from[..Self::LANES]) {
            *wide = byte(*word, number);
        }
        self.load(&wide)
    }

    /// The signed bytes of each word as two pairs of bfloat16, which hold them exactly.
    #[inline(always)]
    fn bytes_to_pairs(self, from: &[u32], earlier: &mut [u32], later: &mut [u32]) {
        bytes_to_pairs(from, earlier, later);
    }

    /// Word `w` of each of the rows `lanes` goes to that lane of line `w` of `to`, `[words, Simd::LANES]`; the other lanes
    /// stay as they are.
    #[inline(always)]
    fn turn(self, rows: &Square, lanes: Range<usize>, to: &mut [u32]) {
        for lane in lanes {
            for (word, line) in rows[lane].iter().zip(to.chunks_exact_mut(Self::LANES)) {
                line[lane] = *word;
            }
        }
    }
}

/// Rows of words, as many as the longest vector has lanes.
pub(super) type Square = [[u32; 16]; 16];

/// What a vector of f32 can be loaded from.
pub(super) trait Stored: Copy + Sync {
    /// The first lanes of `from`, which is at least as long.
    fn load<S: Simd>(simd: S, from: &[Self]) -> S::V;
    /// One of them.
    fn wide(self) -> f32;
}

impl Stored for f32 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[f32]) -> S::V {
        simd.load(from)
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[bf16]) -> S::V {
        simd.load_halves(from)
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Rounds `x` to pairs of bfloat16, a word each.
#[inline(always)]
pub(super) fn round_to_pairs(x: &[f32], to: &mut [u32]) {
    let (full, rest) = x.as_chunks::<2>();
    for ([earlier, later], to) in full.iter().zip(to.iter_mut()) {
        *to = pair(*earlier, *later);
    }
    if let ([last], Some(to)) = (rest, to.last_mut()) {
        *to = pair(*last, 0.0);
    }
}

/// Rounds two rows to pairs of bfloat16, a word for each two values at one place.
#[inline(always)]
pub(super) fn round_side_by_side(earlier: &[f32], later: &[f32], to: &mut [u32]) {
    let both = earlier.iter().zip(later);
    to.iter_mut().zip(both).for_each(|(to, (earlier, later))| *to = pair(*earlier, *later));
}

/// Rounds `x` to bfloat16 and leaves the values as wide as f32, a word each.
#[inline(always)]
pub(super) fn round_wide(x: &[f32], to: &mut [u32]) {
    for (x, to) in x.iter().zip(to.iter_mut()) {
        *to = rounded_bits(*x) & 0xffff_0000;
    }
    to[x.len()..].fill(0);
}

/// Two values as one pair of bfloat16, the earlier in the lower half.
#[inline(always)]
pub(super) fn pair(earlier: f32, later: f32) -> u32 {
    (rounded_bits(earlier) >> 16) | (rounded_bits(later) & 0xffff_0000)
}

/// Signed byte `number` of a word, the lowest first.
#[inline(always)]
pub(super) fn byte(word: u32, number: usize) -> f32 {
    ((word << (24 - 8 * number)).cast_signed() >> 24) as f32
}

/// [`Simd::bytes_to_pairs`], word by word.
#[inline(always)]
pub(super) fn bytes_to_pairs(from: &[u32], earlier: &mut [u32], later: &mut [u32]) {
    for (word, (earlier, later)) in from.iter().zip(earlier.iter_mut().zip(later)) {
        // No more than eight bits of any are significant.
        let [a, b, c, d] = [0, 1, 2, 3].map(|number| byte(*word, number).to_bits());
        (*earlier, *later) = ((a >> 16) | b, (c >> 16) | d);
    }
}

/// The nearest bfloat16 in the upper half, ties to even; NaN stays NaN.
#[inline(always)]
fn rounded_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    if x.is_nan() { bits | 0x0040_0000 } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_pairs_agrees_with_half() {
        let edges =
            [0.0, -0.0, 1.0, 1.003_906_3, -1.011_718_8, 3.0e38, f32::MAX, 1e-40, f32::INFINITY];
        for x in edges.into_iter().chain((0..4096u32).map(|i| f32::from_bits(0x3f80_0000 + i * 19)))
        {
            assert_eq!(pair(x, 0.0), u32::from(bf16::from_f32(x).to_bits()), "{x}");
        }
        assert!(bf16::from_bits(pair(f32::NAN, 0.0) as u16).is_nan());
    }

    #[test]
    fn an_odd_row_ends_with_half_a_pair() {
        let mut pairs = [7; 2];
        round_to_pairs(&[1.0, 2.0, 3.0], &mut pairs);
        assert_eq!(pairs, [0x4000_3f80, 0x0000_4040]);
        let mut wide = [7; 4];
        round_wide(&[1.0, 2.0, 3.0], &mut wide);
        assert_eq!(wide, [0x3f80_0000, 0x4000_0000, 0x4040_0000, 0]);
    }
}
