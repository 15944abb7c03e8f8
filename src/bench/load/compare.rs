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
    "pair: A/s, B/s, A/B; A/B of p50: to the first token, between tokens, end to end";

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
    /// Of output tokens or texts a second; above 1, the first is faster.
    throughput: f64,
    /// Below 1, the first is faster.
    first_token_p50: f64,
    /// Below 1, the first is faster.
    inter_token_p50: f64,
    /// Below 1, the first is faster.
    end_to_end_p50: f64,
}

impl Pair {
    pub(super) fn new([first, second]: [Summary; 2]) -> Self {
        let p50 = |spread: Option<Spread>| spread.map_or(f64::NAN, |spread| spread.p50);
        let (a, b) = (&first.all, &second.all);
        let ratios = Ratios {
            throughput: first.pace().0 / second.pace().0,
            first_token_p50: p50(a.first_token) / p50(b.first_token),
            inter_token_p50: p50(a.inter_token) / p50(b.inter_token),
            end_to_end_p50: p50(a.end_to_end) / p50(b.end_to_end),
        };
        Self { first, second, ratios }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b, ratios) = (&self.first, &self.second, &self.ratios);
        write!(
            f,
            "{:9.1} {:9.1} {:8.3}; {:8.3} {:8.3} {:8.3}",
            a.pace().0,
            b.pace().0,
            ratios.throughput,
            ratios.first_token_p50,
            ratios.inter_token_p50,
            ratios.end_to_end_p50
        )?;
        let failed = a.all.failed + b.all.failed;
        if failed > 0 { write!(f, " ({failed} requests failed)") } else { Ok(()) }
    }
}

/// All pairs, and what is in their middle.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Comparison {
    servers: [String; 2],
    /// What servers are measured by, a second.
    unit: &'static str,
    /// Each server's own.
    medians: [f64; 2],
    ratio: Range,
    first_token_ratio: Range,
    inter_token_ratio: Range,
    end_to_end_ratio: Range,
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
            unit: pairs.first().map_or("", |pair| pair.first.pace().1),
            medians: [
                median(&all(|pair| pair.first.pace().0)),
                median(&all(|pair| pair.second.pace().0)),
            ],
            ratio: Range::of(&all(|pair| pair.ratios.throughput)),
            first_token_ratio: Range::of(&all(|pair| pair.ratios.first_token_p50)),
            inter_token_ratio: Range::of(&all(|pair| pair.ratios.inter_token_p50)),
            end_to_end_ratio: Range::of(&all(|pair| pair.ratios.end_to_end_p50)),
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
        let ([a, b], [fast, slow], unit) = (&self.servers, self.medians, self.unit);
        writeln!(f, "A {a}: {fast:.1} {unit}/s (median of {})", self.pairs.len())?;
        writeln!(f, "B {b}: {slow:.1} {unit}/s")?;
        writeln!(f, "A/B {unit}/s: {}, median and extremes of the pairs", self.ratio)?;
        writeln!(f, "A/B p50 to the first token: {}", self.first_token_ratio)?;
        writeln!(f, "A/B p50 between tokens: {}", self.inter_token_ratio)?;
        writeln!(f, "A/B p50 end to end: {}", self.end_to_end_ratio)
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
