//! How many requests a name takes: at one time, and in a minute.
use super::{AdapterError, AdapterName, AdapterTerms};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A name's counts. They outlive changes of its terms, which are given anew with every request.
#[derive(Debug, Default)]
pub struct Gate(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    running: u32,
    /// There is none until the name has had a rate.
    bucket: Option<Bucket>,
}

/// Requests that may start at once; a minute brings as many new ones as the rate says.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// What a request asks of one name.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The name.
    pub name: AdapterName,
    /// Its counts.
    pub gate: Arc<Gate>,
    /// Its terms now.
    pub terms: Arc<AdapterTerms>,
}

/// The right to be worked on. Dropping it is the end of the request.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub struct Permit(Arc<Gate>);

impl Permit {
    /// A permit of each name, or none and nothing counted.
    ///
    /// # Errors
    /// [`AdapterError::Busy`] and [`AdapterError::RateLimited`].
    pub fn for_each(wanted: &[Wanted], now: Instant) -> Result<Vec<Self>, AdapterError> {
        let mut permits = Vec::with_capacity(wanted.len());
        for one in wanted {
            match one.enter(now) {
                Ok(permit) => permits.push(permit),
                Err(error) => {
                    permits.into_iter().for_each(Self::undo);
                    return Err(error);
                }
            }
        }
        Ok(permits)
    }

    /// The request did not start after all.
    fn undo(self) {
        if let Some(bucket) = &mut self.0.lock().bucket {
            bucket.tokens += 1.0;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let running = &mut self.0.lock().running;
        *running = running.saturating_sub(1);
    }
}

impl Wanted {
    fn enter(&self, now: Instant) -> Result<Permit, AdapterError> {
        let mut counts = self.gate.lock();
        if let Some(limit) = self.terms.max_requests.filter(|limit| counts.running >= *limit) {
            return Err(AdapterError::Busy { name: self.name.clone(), limit });
        }
        if let Some(limit) = self.terms.requests_per_minute {
            let burst = burst(limit);
            let full = Bucket { tokens: burst, filled: now };
            let bucket = counts.bucket.get_or_insert(full);
            bucket.take(f64::from(limit) / 60.0, burst, now).map_err(|wait| {
                let retry_after = whole_seconds(wait);
                AdapterError::RateLimited { name: self.name.clone(), limit, retry_after }
            })?;
        }
        counts.running += 1;
        Ok(Permit(Arc::clone(&self.gate)))
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    /// Takes one, or says how long it is until there is one.
    fn take(&mut self, per_second: f64, burst: f64, now: Instant) -> Result<(), Duration> {
        let elapsed = now.saturating_duration_since(self.filled);
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * per_second).min(burst);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / per_second))
    }
}

/// A tenth of a minute's requests may come together.
fn burst(per_minute: u32) -> f64 {
    f64::from((per_minute / 10).max(1))
}

/// Not sooner than it is true.
fn whole_seconds(wait: Duration) -> u64 {
    let rounded_up = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    rounded_up.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Classified, ErrorKind};

    struct Room(Wanted);

    impl Room {
        fn new(name: &str, max_requests: Option<u32>, requests_per_minute: Option<u32>) -> Self {
            let name = name.parse().expect("a name");
            let terms = AdapterTerms { max_requests, requests_per_minute, ..Default::default() };
            Self(Wanted { name, gate: Arc::default(), terms: Arc::new(terms) })
        }

        fn change(&mut self, max_requests: Option<u32>, requests_per_minute: Option<u32>) {
            let terms = AdapterTerms { max_requests, requests_per_minute, ..Default::default() };
            self.0.terms = Arc::new(terms);
        }

        fn wanted(&self) -> Wanted {
            self.0.clone()
        }

        fn enter(&self, now: Instant) -> Result<Vec<Permit>, AdapterError> {
            Permit::for_each(&[self.wanted()], now)
        }
    }

    #[test]
    fn a_place_is_free_again_when_its_permit_is_dropped() {
        let room = Room::new("a", Some(2), None);
        let now = Instant::now();
        let first = room.enter(now).expect("free");
        let _second = room.enter(now).expect("free");
        let refused = room.enter(now).expect_err("full");
        assert_eq!((refused.code(), refused.kind()), ("adapter_busy", ErrorKind::Overloaded));
        drop(first);
        room.enter(now).expect("free again");
    }

    #[test]
    fn changed_terms_count_those_that_run_already() {
        let mut room = Room::new("a", None, None);
        let now = Instant::now();
        let running: Vec<_> = (0..3).map(|_| room.enter(now).expect("no limit")).collect();
        room.change(Some(3), None);
        room.enter(now).expect_err("three run");
        room.change(Some(4), None);
        room.enter(now).expect("a fourth");
        drop(running);
        room.change(Some(1), None);
        room.enter(now).expect("none runs");
    }

    #[test]
    fn a_minute_takes_its_requests_and_a_tenth_may_come_together() {
        let room = Room::new("a", None, Some(30));
        let start = Instant::now();
        for _ in 0..3 {
            drop(room.enter(start).expect("in the burst"));
        }
        let refused = room.enter(start).expect_err("the burst is over");
        assert_eq!(refused.code(), "adapter_rate_limited");
        assert_eq!(refused.retry_after(), Some(2));
        let mut taken = 0;
        for millisecond in 1..=60_000 {
            taken += u32::from(room.enter(start + Duration::from_millis(millisecond)).is_ok());
        }
        assert!((29..=30).contains(&taken), "{taken}");
    }

    #[test]
    fn the_wait_that_is_told_is_true() {
        for per_minute in [1, 7, 60, 599, 100_000] {
            let room = Room::new("a", None, Some(per_minute));
            let start = Instant::now();
            while room.enter(start).is_ok() {}
            let wait = room.enter(start).expect_err("empty").retry_after().expect("a wait");
            room.enter(start + Duration::from_secs(wait)).expect("as told");
        }
    }

    #[test]
    fn a_changed_rate_holds_at_once_and_forgets_nothing() {
        let mut room = Room::new("a", None, Some(100));
        let start = Instant::now();
        while room.enter(start).is_ok() {}
        room.change(None, Some(6));
        let wait = room.enter(start).expect_err("still empty").retry_after().expect("a wait");
        assert_eq!(wait, 10, "at the new rate");
        room.change(None, None);
        room.enter(start).expect("no rate");
    }

    #[test]
    fn a_mix_is_let_in_by_all_or_counts_with_none() {
        let [open, full] = [Room::new("a", Some(1), Some(1)), Room::new("b", Some(1), None)];
        let now = Instant::now();
        let only = full.enter(now).expect("free");
        let both = [open.wanted(), full.wanted()];
        let refused = Permit::for_each(&both, now).expect_err("one is full");
        assert!(refused.to_string().contains("`b`"), "{refused}");
        drop(only);
        let permits = Permit::for_each(&both, now).expect("the first kept place and rate");
        assert_eq!(permits.len(), 2);
        assert_eq!(open.enter(now).expect_err("taken").code(), "adapter_busy");
    }
}
