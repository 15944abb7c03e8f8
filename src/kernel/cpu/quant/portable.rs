//! Dots of bytes in plain arrays; the compiler does what it can.
#![expect(clippy::inline_always, reason = "must melt into the loop that uses it")]
use super::dots::{Dots, LINE, Line, Work};
use std::array::from_fn;

/// Every machine can do this.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

impl Dots for Portable {
    type Weights = [[i8; 4]; LINE];
    type Sums = [i32; LINE];
    type Scales = [f32; LINE];
    const ROWS: usize = 1;

    #[inline(always)]
    fn vectorize<W: Work>(self, work: W) {
        work.run(self);
    }

    #[inline(always)]
    fn prefetch(self, _: &Line, _: usize) {}

    #[inline(always)]
    fn bytes(self, line: &Line) -> Self::Weights {
        line.map(|word| word.to_le_bytes().map(u8::cast_signed))
    }

    #[inline(always)]
    fn nibbles(self, line: &Line) -> [Self::Weights; 2] {
        let half = |shift: u32| {
            line.map(|word| word.to_le_bytes().map(|byte| (byte >> shift & 15_u8) as i8 - 8))
        };
        [half(0), half(4)]
    }

    #[inline(always)]
    fn start(self, _: i32, _: i32) -> Self::Sums {
        [0; LINE]
    }

    #[inline(always)]
    fn add(self, sums: Self::Sums, weights: Self::Weights, x: u32) -> Self::Sums {
        let x = x.to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
        let dot = |w: [i8; 4]| (0..4).map(|i| i32::from(w[i]) * x[i]).sum::<i32>();
        from_fn(|column| sums[column] + dot(weights[column]))
    }

    #[inline(always)]
    fn scales(self, line: &Line) -> Self::Scales {
        line.map(f32::from_bits)
    }

    #[inline(always)]
    fn half_scales(self, line: &Line) -> [Self::Scales; 2] {
        [
            line.map(|pair| f32::from_bits(pair << 16)),
            line.map(|pair| f32::from_bits(pair & !0xffff)),
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
        for ((to, dot), scale) in to.iter_mut().zip(dots).zip(scales) {
            *to = (dot as f32 * x_scale).mul_add(scale, *to);
        }
    }
}
