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

/// `erfc(a / √2) / 2`, the normal distribution's upper tail, of `a` in `0..=FAR` by powers of `a / (FAR / 2) − 1`: the
/// Chebyshev series of degree 16, off by 1.2e-7 at most.
const TAIL: [f32; 17] = [
    9.251_839e-4,
    -6.902_323e-3,
    2.872_875e-3,
    0.034_173_26,
    -0.041_262_455,
    -0.053_896_748,
    0.132_542_48,
    -0.032_090_925,
    -0.163_216_41,
    0.217_581_84,
    -0.051_266_23,
    -0.177_042_07,
    0.271_865_55,
    -0.206_815_1,
    0.094_559_3,
    -0.025_007_97,
    2.979_763_3e-3,
];
/// The tail is 2e-8 here.
const FAR: f32 = 5.5;

/// GELU, `x/2 · (1 + erf(x / √2))` (Hendrycks and Gimpel 2016), as `max(x, 0) − |x| · tail(|x|)`: nothing cancels, and no
/// division. Off by 6e-7 at most.
#[inline(always)]
pub(super) fn gelu<S: Simd>(simd: S, x: S::V) -> S::V {
    let minus = simd.splat(-1.0);
    let near = simd.min(simd.splat(FAR), simd.max(simd.mul(x, minus), x));
    let at = simd.mul_add(near, simd.splat(2.0 / FAR), minus);
    let mut tail = simd.splat(TAIL[0]);
    for term in &TAIL[1..] {
        tail = simd.mul_add(tail, at, simd.splat(*term));
    }
    simd.mul_add(simd.mul(near, minus), tail, simd.max(simd.splat(0.0), x))
}

/// `tanh x = 1 − 2 / (e^2x + 1)`, off by 2e-7 at most.
#[inline(always)]
pub(super) fn tanh<S: Simd>(simd: S, x: S::V) -> S::V {
    let e = exp(simd, simd.add(x, x));
    simd.add(simd.splat(1.0), simd.div(simd.splat(-2.0), simd.add(e, simd.splat(1.0))))
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
    use candle_core::cpu::erf::erf_f64;
    use std::f64::consts::FRAC_1_SQRT_2;

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

    #[derive(Clone, Copy, Debug)]
    enum Curve {
        Gelu,
        Tanh,
    }

    struct Bend<'a>(Curve, &'a mut [f32]);

    impl Task for Bend<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            for x in self.1.chunks_exact_mut(S::LANES) {
                let y = match self.0 {
                    Curve::Gelu => gelu(simd, simd.load(x)),
                    Curve::Tanh => tanh(simd, simd.load(x)),
                };
                simd.store(y, x);
            }
        }
    }

    impl Curve {
        fn truth(self, x: f64) -> f64 {
            match self {
                Self::Gelu => 0.5 * x * (1.0 + erf_f64(x * FRAC_1_SQRT_2)),
                Self::Tanh => x.tanh(),
            }
        }
    }

    #[test]
    fn gelu_and_tanh_are_right_over_all_numbers() {
        // Numbers of every magnitude, and many where the curves bend.
        let all = (0..16_384_u32).map(|i| f32::from_bits(i * 262_139));
        let bent = (0..16_384_i16).map(|i| f32::from(i - 8192) / 1024.0);
        let x: Vec<f32> = all.chain(bent).filter(|x| x.is_finite()).collect();
        let x = &x[..x.len() / 16 * 16];
        for level in Isa::ALL.into_iter().filter_map(Level::of) {
            for curve in [Curve::Gelu, Curve::Tanh] {
                let mut y = x.to_vec();
                level.run(Bend(curve, &mut y));
                for (x, y) in x.iter().zip(&y) {
                    let truth = curve.truth(f64::from(*x));
                    let error = (f64::from(*y) - truth).abs();
                    assert!(error < 6e-7, "{:?}: {curve:?}({x}) = {y}, not {truth}", level.isa());
                }
            }
        }
    }

    #[test]
    fn gelu_and_tanh_keep_nan_and_end_where_they_should() {
        for level in Isa::ALL.into_iter().filter_map(Level::of) {
            for (curve, high) in [(Curve::Gelu, f32::INFINITY), (Curve::Tanh, 1.0)] {
                let mut x = [0.0; 16];
                (x[1], x[2]) = (f32::NAN, f32::INFINITY);
                level.run(Bend(curve, &mut x));
                assert_eq!((x[0], x[2]), (0.0, high), "{:?}: {curve:?}", level.isa());
                assert!(x[1].is_nan(), "{:?}: {curve:?}", level.isa());
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
