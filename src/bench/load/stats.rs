//! Quantiles, exact: every value is kept.
use serde::Serialize;
use std::time::Duration;

/// How a set of times is spread, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) count: usize,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(super) fn of(times: impl Iterator<Item = Duration>) -> Option<Self> {
        let mut values: Vec<f64> = times.map(milliseconds).collect();
        values.sort_by(f64::total_cmp);
        let max = *values.last()?;
        Some(Self {
            count: values.len(),
            mean: values.iter().sum::<f64>() / values.len() as f64,
            p50: quantile(&values, 0.5),
            p90: quantile(&values, 0.9),
            p99: quantile(&values, 0.99),
            max,
        })
    }
}

/// In milliseconds.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The smallest value that `share` of all are not above (nearest rank); `values` are ascending and not empty.
fn quantile(values: &[f64], share: f64) -> f64 {
    let rank = (share * values.len() as f64).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

/// The middle value, or the mean of the two in the middle; NaN of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let spread = Spread::of((1..=200).rev().map(Duration::from_millis)).unwrap();
        let expected =
            Spread { count: 200, mean: 100.5, p50: 100.0, p90: 180.0, p99: 198.0, max: 200.0 };
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(spread.mean, expected.mean));
        assert_eq!(Spread { mean: expected.mean, ..spread }, expected);
        let one = Spread::of([Duration::from_millis(7)].into_iter()).unwrap();
        assert_eq!((one.p50, one.p99, one.max), (7.0, 7.0, 7.0));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
