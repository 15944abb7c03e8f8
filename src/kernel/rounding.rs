//! How int8 and int4 round: groups of neighbouring inputs that share a scale.
//!
//! Every implementation rounds by these functions, so that all of them multiply the same integers.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::Precision;
use half::bf16;

/// Inputs that share a scale at int8.
pub(super) const INT8_GROUP: usize = 64;
/// Inputs that share a scale at int4.
pub(super) const INT4_GROUP: usize = 32;

/// The largest integer an int8 weight and every activation takes; −128 is not used.
const LARGEST: f32 = 127.0;

/// Below this a group counts as zeros: the inverse of its scale would overflow.
const TINY: f32 = 1e-36;

/// What a group's farthest value is divided by to find its scale at int4; the integers end at −8 and 7. A small
/// divisor keeps both ends, a large one cuts them off and makes the steps finer for the many near zero.
const DIVISORS: [f32; 8] = [-8.0, -7.0, -7.5, -8.5, -9.0, -9.5, -10.0, -11.0];

/// Rounds to −127..=127 steps of the scale that is returned: `values ≈ to · scale`, at most half a step off.
///
/// The scale is NaN where a value is not finite, and with it everything computed from the group.
#[inline(always)]
pub(super) fn round_bytes<const N: usize>(values: &[f32; N], to: &mut [i8; N]) -> f32 {
    let step = Step::of(values);
    for (to, value) in to.iter_mut().zip(values) {
        *to = step.round(*value);
    }
    step.size
}

/// What values are rounded by that share a scale.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The scale: what one step is. NaN where a value is not finite, 0 where all are as good as 0.
    pub(super) size: f32,
    /// How many steps 1 is; 0 where no value counts.
    inverse: f32,
}

impl Step {
    /// What is kept as it is.
    pub(super) const NONE: Self = Self { size: 1.0, inverse: 1.0 };

    /// The step of which the largest of `values` is 127.
    #[inline(always)]
    pub(super) fn of(values: &[f32]) -> Self {
        let largest = largest(values);
        if !largest.is_finite() || largest < TINY {
            let size = if largest.is_finite() { 0.0 } else { f32::NAN };
            return Self { size, inverse: 0.0 };
        }
        Self { size: largest / LARGEST, inverse: LARGEST / largest }
    }

    /// How many steps one of the values is, −127..=127; 0 where no value counts, anything where the scale is NaN.
    #[inline(always)]
    pub(super) fn round(self, value: f32) -> i8 {
        // The integer is in the lowest bits of the shifted float: a cast to i8 would saturate, and slowly.
        (value * self.inverse + SHIFT).to_bits() as i8
    }
}

/// Rounds to −8..=7 steps of the scale that is returned, which is a bfloat16: of a few scales the one with the
/// smallest squared error.
///
/// The scale is NaN where a value is not finite, and with it everything computed from the group.
#[inline(always)]
pub(super) fn round_nibbles<const N: usize>(values: &[f32; N], to: &mut [i8; N]) -> f32 {
    let largest = largest(values);
    if !largest.is_finite() || largest < TINY {
        to.fill(0);
        return if largest.is_finite() { 0.0 } else { f32::NAN };
    }
    let farthest = if values.contains(&-largest) { -largest } else { largest };
    let (mut best, mut least) = (0.0, f32::INFINITY);
    for divisor in DIVISORS {
        let scale = bf16::from_f32(farthest / divisor).to_f32();
        let error = squared_error(values, scale, 1.0 / largest);
        if error < least {
            (best, least) = (scale, error);
        }
    }
    let inverse = 1.0 / best;
    for (to, value) in to.iter_mut().zip(values) {
        *to = nibble(value * inverse) as i8;
    }
    best
}

/// `rows` of `in_features` values as they are after rounding, each row in groups of its own.
pub(super) fn rounded(values: &[f32], in_features: usize, round: Rounding) -> Vec<f32> {
    let rows = values.chunks(in_features.max(1));
    rows.flat_map(|row| row.chunks(round.group())).flat_map(|group| round.apply(group)).collect()
}

/// A rule for the values of a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rounding {
    /// [`round_bytes`] in groups of so many.
    Bytes(usize),
    /// [`round_nibbles`] in groups of [`INT4_GROUP`].
    Nibbles,
}

impl Rounding {
    /// What weights of a precision go through; `None` where they are floats.
    pub(super) fn of_weights(precision: Precision) -> Option<Self> {
        match precision {
            Precision::Int8 => Some(Self::Bytes(INT8_GROUP)),
            Precision::Int4 => Some(Self::Nibbles),
            Precision::Auto | Precision::F32 | Precision::Bf16 => None,
        }
    }

    /// What activations before such weights go through.
    pub(super) fn of_activations(precision: Precision) -> Option<Self> {
        Self::of_weights(precision).map(|weights| Self::Bytes(weights.group()))
    }

    fn group(self) -> usize {
        match self {
            Self::Bytes(group) => group,
            Self::Nibbles => INT4_GROUP,
        }
    }

    fn apply(self, group: &[f32]) -> Vec<f32> {
        let mut values = [0.0; INT8_GROUP];
        values[..group.len()].copy_from_slice(group);
        let mut integers = [0; INT8_GROUP];
        let scale = match self {
            // Zeros beyond the group's end change nothing.
            Self::Bytes(_) => round_bytes(&values, &mut integers),
            Self::Nibbles => {
                let (values, _) = values.split_first_chunk::<INT4_GROUP>().expect("it is longer");
                let (integers, _) = integers.split_first_chunk_mut().expect("it is longer");
                round_nibbles::<INT4_GROUP>(values, integers)
            }
        };
        integers[..group.len()].iter().map(|integer| f32::from(*integer) * scale).collect()
    }
}

/// The largest magnitude; infinite or NaN where a value is: as bits, magnitudes are in order with NaN last.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let magnitudes = values.iter().map(|value| value.to_bits() & 0x7fff_ffff);
    f32::from_bits(magnitudes.fold(0, u32::max))
}

/// 1.5 · 2²³: adding it to |x| < 2²² rounds to the nearest integer in the adder, ties to even.
const SHIFT: f32 = 12_582_912.0;

/// To the nearest integer, ties to even, for |x| < 2²².
#[inline(always)]
fn nearest(x: f32) -> f32 {
    (x + SHIFT) - SHIFT
}

#[inline(always)]
fn nibble(x: f32) -> f32 {
    nearest(x.clamp(-8.0, 7.0))
}

/// Of values multiplied by `size`, lest a square overflow or vanish; in eight partial sums, which vectors can hold,
/// always in the same order.
#[inline(always)]
fn squared_error<const N: usize>(values: &[f32; N], scale: f32, size: f32) -> f32 {
    let (inverse, mut sums) = (1.0 / scale, [0.0_f32; 8]);
    for values in values.as_chunks::<8>().0 {
        for (sum, value) in sums.iter_mut().zip(values) {
            let error = (value - nibble(value * inverse) * scale) * size;
            *sum += error * error;
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group<const N: usize>() -> impl Strategy<Value = [f32; N]> {
        let size = prop::sample::select(vec![1e-30_f32, 1e-3, 1.0, 1e20]);
        let values = prop::collection::vec(-1.0_f32..1.0, N);
        (values, size).prop_map(|(values, size)| std::array::from_fn(|i| values[i] * size))
    }

    proptest! {
        #[test]
        fn bytes_are_at_most_half_a_step_off(values in group::<64>()) {
            let mut integers = [0; 64];
            let scale = round_bytes(&values, &mut integers);
            for (value, integer) in values.iter().zip(integers) {
                let error = (value - f32::from(integer) * scale).abs();
                prop_assert!(error <= scale * 0.5001, "{value} is {integer} of {scale}");
            }
        }

        #[test]
        fn nibbles_are_no_worse_than_the_plain_scale(values in group::<32>()) {
            let mut integers = [0; 32];
            let scale = round_nibbles(&values, &mut integers);
            prop_assert_eq!(scale, bf16::from_f32(scale).to_f32());
            prop_assert!(integers.iter().all(|integer| (-8..=7).contains(integer)));
            let error = |integers: &dyn Fn(usize) -> f64| -> f64 {
                values.iter().enumerate().map(|(i, value)| (f64::from(*value) - integers(i)).powi(2)).sum()
            };
            let plain = f64::from(largest(&values) / 7.0);
            let found = error(&|i| f64::from(integers[i]) * f64::from(scale));
            let symmetric = error(&|i| (f64::from(values[i]) / plain).round() * plain);
            // One of the candidates is this scale, but for its rounding to bfloat16.
            prop_assert!(found <= symmetric * 1.1 + plain * plain * 0.01, "{found}, {symmetric}");
        }
    }

    #[test]
    fn what_is_not_finite_is_nan_and_what_is_tiny_is_zero() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (mut values, mut integers) = ([1.0; 32], [1; 32]);
            values[7] = bad;
            assert!(round_bytes(&values, &mut integers).is_nan());
            assert!(round_nibbles(&values, &mut integers).is_nan());
        }
        let mut integers = [1; 32];
        for tiny in [0.0, -0.0, 1e-40, -1e-37] {
            assert_eq!(round_bytes(&[tiny; 32], &mut integers).to_bits(), 0);
            assert_eq!(round_nibbles(&[tiny; 32], &mut integers).to_bits(), 0);
            assert_eq!(integers, [0; 32]);
        }
    }

    #[test]
    fn ends_are_reached_from_both_sides() {
        let mut integers = [0; 32];
        let mut values = [0.0; 32];
        (values[0], values[1]) = (-8.0, 7.0);
        assert_eq!(round_nibbles(&values, &mut integers), 1.0);
        assert_eq!(integers[..3], [-8, 7, 0]);
        (values[0], values[1]) = (8.0, -7.0);
        assert_eq!(round_nibbles(&values, &mut integers), -1.0);
        assert_eq!(integers[..3], [-8, 7, 0]);
        values[0] = -127.0;
        assert_eq!(round_bytes(&values, &mut integers), 1.0);
        assert_eq!(integers[..3], [-127, -7, 0]);
    }

    #[test]
    fn rows_begin_groups_of_their_own() {
        let values: Vec<f32> = (0..70).map(|i| i as f32).chain([1.0; 70]).collect();
        let rounded = rounded(&values, 70, Rounding::Bytes(64));
        assert_eq!(rounded.len(), 140);
        assert_eq!(rounded[70..], [1.0; 70]);
        assert_eq!(rounded[69], 69.0);
    }
}
