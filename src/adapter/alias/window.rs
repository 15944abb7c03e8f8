//! Counts of the last minutes.
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Pieces of a window: so exactly does old news leave it.
const PIECES: u32 = 32;

/// What requests to one target came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Those that ended, well or not.
    pub requests: u64,
    /// Of these, the server's failures.
    pub errors: u64,
    /// Of these, outputs that were not finite.
    pub non_finite: u64,
    /// The time that those without failures took together.
    pub latency: Duration,
}

impl Counts {
    /// Failures among all, 0 to 1.
    pub fn error_rate(&self) -> f64 {
        self.errors as f64 / self.requests.max(1) as f64
    }

    /// Of a request that did not fail.
    pub fn mean_latency(&self) -> Option<Duration> {
        let answered = u32::try_from(self.requests - self.errors).unwrap_or(u32::MAX);
        (answered > 0).then(|| self.latency / answered)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.non_finite += other.non_finite;
        self.latency += other.latency;
    }
}

/// A sliding window in pieces. Time comes in as an argument and never runs backwards.
#[derive(Debug)]
pub(super) struct Window {
    piece: Duration,
    begun: Instant,
    /// By the number of their piece, oldest first.
    pieces: VecDeque<(u64, Counts)>,
}

impl Window {
    pub(super) fn new(span: Duration, now: Instant) -> Self {
        let piece = (span / PIECES).max(Duration::from_millis(1));
        Self { piece, begun: now, pieces: VecDeque::new() }
    }

    pub(super) fn add(&mut self, counts: &Counts, now: Instant) {
        let at = self.forget(now);
        match self.pieces.back_mut() {
            Some((last, sum)) if *last >= at => sum.add(counts),
            _ => self.pieces.push_back((at, *counts)),
        }
    }

    pub(super) fn total(&mut self, now: Instant) -> Counts {
        self.forget(now);
        let mut total = Counts::default();
        self.pieces.iter().for_each(|(_, counts)| total.add(counts));
        total
    }

    /// Returns the number of the present piece.
    fn forget(&mut self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.begun);
        let at = (since.as_nanos() / self.piece.as_nanos()) as u64;
        while self.pieces.front().is_some_and(|(piece, _)| piece + u64::from(PIECES) <= at) {
            self.pieces.pop_front();
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let start = Instant::now();
        let mut window = Window::new(Duration::from_secs(32), start);
        let one = Counts { requests: 1, ..Counts::default() };
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in [0, 0, 10, 31] {
            window.add(&one, at(second));
        }
        assert_eq!(window.total(at(31)).requests, 4);
        assert_eq!(window.total(at(32)).requests, 2);
        assert_eq!(window.total(at(42)).requests, 1);
        assert_eq!(window.total(at(1000)), Counts::default());
        window.add(&one, at(1000));
        assert_eq!(window.total(at(1000)).requests, 1);
        assert!(window.pieces.len() <= PIECES as usize);
    }

    #[test]
    fn failures_do_not_lower_the_mean_latency() {
        let failed = Counts { requests: 1, errors: 1, ..Counts::default() };
        let mut all = Counts { requests: 1, latency: Duration::from_secs(2), ..Counts::default() };
        all.add(&failed);
        assert_eq!(all.mean_latency(), Some(Duration::from_secs(2)));
        assert_eq!((failed.mean_latency(), all.error_rate()), (None, 0.5));
    }
}
