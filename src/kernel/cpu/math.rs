//! Functions of vectors, the same on every path that uses them.
#![expect(clippy::inline_always, reason = "must melt into the loop that uses it")]
use super::simd::Simd;
use std::f32::consts::LOG2_E;

/// `exp` is 0 below this: the smallest normal f32 is `exp(−87.34)`.
const LEAST: f32 = -87.0;
const MOST: f32 = 88.0;
/// ln 2 in two parts, the first of few bits so that its multiples are exact.
const LN2_HIGH: f32 = 355.0 / 512.0;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `e^x` to about two units in the last place, by `x = n · ln 2 + r` and the series of `e^r`, |r| ≤ 0.35.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    let clamped = simd.min(simd.splat(MOST), simd.max(simd.splat(LEAST), x));
    let n = simd.round(simd.mul(clamped, simd.splat(LOG2_E)));
    let r = simd.mul_add(n, simd.splat(-LN2_HIGH), clamped);
    let r = simd.mul_add(n, simd.splat(-LN2_LOW), r);
    let mut series = simd.splat(1.0 / 5040.0);
    for term in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = simd.mul_add(series, r, simd.splat(term));
    }
    simd.zero_below(simd.scale(series, n), x, LEAST)
}

/// `x · sigmoid(s)`
#[inline(always)]
pub(super) fn times_sigmoid<S: Simd>(simd: S, x: S::V, s: S::V) -> S::V {
    let e = exp(simd, simd.mul(s, simd.splat(-1.0)));
    simd.div(x, simd.add(simd.splat(1.0), e))
}

#[cfg(test)]
mod tests {
    use super::super::isa::{Isa, Level};
    use super::super::simd::Task;
    use super::*;

    struct Exp<'a>(&'a mut [f32]);

    impl Task for Exp<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            for x in self.0.chunks_exact_mut(S::LANES) {
                let y = exp(simd, simd.load(x));
                simd.store(y, x);
            }
        }
    }

    #[test]
    fn exp_is_right_on_every_instruction_set() {
        for level in Isa::ALL.into_iter().filter_map(Level::of) {
            let x: Vec<f32> = (0..2800).map(|i| (i - 1400) as f32 * 0.0621).collect();
            let mut y = x.clone();
            level.run(Exp(&mut y));
            for (x, y) in x.iter().zip(&y) {
                let truth = f64::from(*x).exp();
                let error = (f64::from(*y) - truth).abs() / truth;
                assert!(error < 3e-7, "{:?}: exp({x}) = {y}", level.isa());
            }
        }
    }

    #[test]
    fn exp_ends_at_zero_and_keeps_nan() {
        for level in Isa::ALL.into_iter().filter_map(Level::of) {
            let mut x = [f32::NEG_INFINITY; 16];
            (x[1], x[2]) = (-88.0, f32::NAN);
            level.run(Exp(&mut x));
            assert_eq!((x[0], x[1], x[3]), (0.0, 0.0, 0.0));
            assert!(x[2].is_nan(), "{:?}", level.isa());
        }
    }
}
