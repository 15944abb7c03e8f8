//! Two servers, run in alternation: what the machine does to one it does to the other.
use super::{
    stats::{Spread, median},
    summary::Summary,
    target::Target,
};
use serde::Serialize;
use std::fmt;

/// The names of a pair's columns.
pub(super) const HEAD: &str =
    "pair: tokens/s A, tokens/s B, A/B; p50 to the first token A/B, between tokens A/B";

/// What to add to the second server's seed: it gets the same prompts, unless it is the first one again, which would
/// know them already.
pub(super) fn apart(first: &Target, second: &Target) -> u64 {
    if first.url == second.url { 1 << 32 } else { 0 }
}

/// One run on each server, with the same prompts.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Pair {
    pub(super) first: Summary,
    pub(super) second: Summary,
    ratios: Ratios,
}

/// The first server's figure over the second's.
#[derive(Clone, Copy, Debug, Serialize)]
struct Ratios {
    /// Above 1, the first is faster.
    output_tokens_per_second: f64,
    /// Below 1, the first is faster.
    first_token_p50: f64,
    /// Below 1, the first is faster.
    inter_token_p50: f64,
}

impl Pair {
    pub(super) fn new([first, second]: [Summary; 2]) -> Self {
        let p50 = |spread: Option<Spread>| spread.map_or(f64::NAN, |spread| spread.p50);
        let (a, b) = (&first.all, &second.all);
        let ratios = Ratios {
            output_tokens_per_second: first.output_tokens_per_second
                / second.output_tokens_per_second,
            first_token_p50: p50(a.first_token) / p50(b.first_token),
            inter_token_p50: p50(a.inter_token) / p50(b.inter_token),
        };
        Self { first, second, ratios }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b, ratios) = (&self.first, &self.second, &self.ratios);
        write!(
            f,
            "{:9.1} {:9.1} {:8.3}; {:8.3} {:8.3}",
            a.output_tokens_per_second,
            b.output_tokens_per_second,
            ratios.output_tokens_per_second,
            ratios.first_token_p50,
            ratios.inter_token_p50
        )?;
        let failed = a.all.failed + b.all.failed;
        if failed > 0 { write!(f, " ({failed} requests failed)") } else { Ok(()) }
    }
}

/// All pairs, and what is in their middle.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Comparison {
    servers: [String; 2],
    /// Each server's own, output tokens a second.
    medians: [f64; 2],
    ratio: Range,
    first_token_ratio: Range,
    inter_token_ratio: Range,
    pairs: Vec<Pair>,
}

/// The median of the pairs' ratios and the extremes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Range {
    median: f64,
    least: f64,
    most: f64,
}

impl Range {
    fn of(values: &[f64]) -> Self {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Self { median: median(values), least, most }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.median.is_finite() {
            return f.write_str("nothing to compare");
        }
        write!(f, "{:.3} ({:.3} to {:.3})", self.median, self.least, self.most)
    }
}

impl Comparison {
    pub(super) fn new(pairs: Vec<Pair>) -> Self {
        let all = |figure: fn(&Pair) -> f64| pairs.iter().map(figure).collect::<Vec<_>>();
        let server = |summary: fn(&Pair) -> &Summary| {
            pairs.first().map(|pair| summary(pair).server.clone()).unwrap_or_default()
        };
        Self {
            servers: [server(|pair| &pair.first), server(|pair| &pair.second)],
            medians: [
                median(&all(|pair| pair.first.output_tokens_per_second)),
                median(&all(|pair| pair.second.output_tokens_per_second)),
            ],
            ratio: Range::of(&all(|pair| pair.ratios.output_tokens_per_second)),
            first_token_ratio: Range::of(&all(|pair| pair.ratios.first_token_p50)),
            inter_token_ratio: Range::of(&all(|pair| pair.ratios.inter_token_p50)),
            pairs,
        }
    }

    /// The last pair, for the plots.
    pub(super) fn last(&self) -> Option<&Pair> {
        self.pairs.last()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([a, b], [fast, slow]) = (&self.servers, self.medians);
        writeln!(f, "A {a}: {fast:.1} output tokens/s (median of {})", self.pairs.len())?;
        writeln!(f, "B {b}: {slow:.1} output tokens/s")?;
        writeln!(f, "A/B output tokens/s: {}, median and extremes of the pairs", self.ratio)?;
        writeln!(f, "A/B p50 to the first token: {}", self.first_token_ratio)?;
        writeln!(f, "A/B p50 between tokens: {}", self.inter_token_ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_the_middle_and_the_extremes() {
        let range = Range::of(&[2.0, 1.0, 4.0]);
        assert_eq!(range, Range { median: 2.0, least: 1.0, most: 4.0 });
        assert_eq!(range.to_string(), "2.000 (1.000 to 4.000)");
        let single_tokens = Range::of(&[f64::NAN, f64::NAN]);
        assert_eq!(single_tokens.to_string(), "nothing to compare");
    }
}
