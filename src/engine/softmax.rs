//! Passes over one row of logits, written so that the compiler makes vectors of them.

/// Independent accumulators, so that a pass need not wait for its own last result.
const LANES: usize = 16;

/// Weights whose sum is taken in one go.
pub(super) const BLOCK: usize = 256;

/// The highest logit; minus infinity where there is none.
pub(super) fn highest(logits: &[f32]) -> f32 {
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Sum of at most a few blocks of weights.
pub(super) fn mass(weights: &[f32]) -> f64 {
    let (chunks, rest) = weights.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for chunk in chunks {
        for (lane, weight) in lanes.iter_mut().zip(chunk) {
            *lane += weight;
        }
    }
    lanes.iter().chain(rest).map(|&part| f64::from(part)).sum()
}

/// Sum of any number of weights.
pub(super) fn total(weights: &[f32]) -> f64 {
    weights.chunks(BLOCK).map(mass).sum()
}

/// `exp((logit - highest) / temperature)` of each logit, or 0 where that is below `floor`.
pub(super) fn weigh(
    weights: &mut Vec<f32>,
    logits: &[f32],
    highest: f32,
    (temperature, floor): (f32, f32),
) {
    weights.clear();
    weights.extend(logits.iter().map(|logit| {
        let weight = exp((logit - highest) / temperature);
        if weight >= floor { weight } else { 0.0 }
    }));
}

/// `ln Σ exp(logit)`.
pub(super) fn log_sum_exp(logits: &[f32]) -> f32 {
    let highest = highest(logits);
    let blocks = logits.chunks(BLOCK).map(|block| {
        let mut weights = [0.0; BLOCK];
        for (weight, logit) in weights.iter_mut().zip(block) {
            *weight = exp(logit - highest);
        }
        mass(&weights)
    });
    highest + blocks.sum::<f64>().ln() as f32
}

/// `e^x` for `x <= 0`, to a millionth of itself; 0 below -87, where f32 has few bits left.
///
/// `2^n · e^r` with `|r| <= ln(2) / 2`, and `e^r` by its Taylor polynomial. The system's own `exp` is
/// slower, and its last bits differ between machines; this one draws a seed's tokens everywhere.
fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// `ln 2` in two parts; the first has so few bits that its products here are exact.
    const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    let clamped = if x > -87.0 { x } else { -87.0 };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (clamped - n * LN_2[0]) - n * LN_2[1];
    let tail = 1.0 / 120.0 + r * (1.0 / 720.0);
    let power = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * tail))));
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    if x >= -87.0 { power * f32::from_bits(exponent) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ends_of_exp_are_exact() {
        let bits = |x: f32| exp(x).to_bits();
        assert_eq!([bits(0.0), bits(-0.0)], [1.0_f32.to_bits(); 2]);
        assert_eq!([bits(-87.1), bits(-1e30), bits(f32::NEG_INFINITY)], [0.0_f32.to_bits(); 3]);
        assert!(exp(-87.0) > 0.0);
    }

    proptest! {
        #[test]
        fn exp_is_close(x in -87.0_f32..0.0) {
            let right = f64::from(x).exp();
            prop_assert!((f64::from(exp(x)) - right).abs() <= 1e-6 * right, "{} {right}", exp(x));
        }

        #[test]
        fn sums_and_peaks_are_those_of_plain_loops(
            logits in prop::collection::vec(-20.0_f32..20.0, 1..700),
        ) {
            let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert_eq!(highest(&logits).to_bits(), peak.to_bits());
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            prop_assert!((f64::from(log_sum_exp(&logits)) - sum.ln()).abs() < 1e-5);
            let mut weights = Vec::new();
            weigh(&mut weights, &logits, peak, (0.5, 0.0));
            let plain: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            prop_assert!((total(&weights) - plain).abs() <= 1e-5 * plain);
        }
    }
}
