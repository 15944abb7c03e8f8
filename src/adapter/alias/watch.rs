//! Counts what becomes of an alias' requests, and says once when that is too bad.
use super::{AliasRecord, Counts, Guard, Revision, Target, window::Window};
use crate::adapter::AdapterName;
use std::{
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// The window of an alias without a guard: its counts are only shown.
const SHOWN: Duration = Duration::from_mins(5);

/// How a request ended. One whose client left says nothing, and is not reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Observation {
    /// With an answer, after this time.
    Answered(Duration),
    /// The server failed.
    Failed,
    /// The model's output was not finite.
    NonFinite,
}

impl Observation {
    fn counts(self) -> Counts {
        let one = Counts { requests: 1, ..Counts::default() };
        match self {
            Self::Answered(latency) => Counts { latency, ..one },
            Self::Failed => Counts { errors: 1, ..one },
            Self::NonFinite => Counts { errors: 1, non_finite: 1, ..one },
        }
    }
}

/// A target that went over its guard's limit; said once for each form.
#[derive(Clone, Debug)]
pub struct Trip {
    /// Of which alias.
    pub alias: AdapterName,
    /// Of which of its forms.
    pub revision: Revision,
    /// Which target.
    pub target: Target,
    /// The limit, and what there was.
    pub reason: String,
}

/// The counts of one form: a change begins anew.
#[derive(Debug)]
pub(super) struct Watch {
    windows: Mutex<Vec<Window>>,
    tripped: OnceLock<usize>,
}

impl Watch {
    pub(super) fn new(record: &AliasRecord, now: Instant) -> Self {
        let guard = record.form.guard.as_ref();
        let span = guard.map_or(SHOWN, |guard| Duration::from_secs(guard.window_seconds));
        let windows = record.form.targets.iter().map(|_| Window::new(span, now)).collect();
        Self { windows: Mutex::new(windows), tripped: OnceLock::new() }
    }

    /// Counts one request to the target `at`; returns why that is too much, the first time it is.
    pub(super) fn observe(
        &self,
        record: &AliasRecord,
        at: usize,
        seen: Observation,
        now: Instant,
    ) -> Option<String> {
        let total = {
            let mut windows = self.windows();
            let window = windows.get_mut(at)?;
            window.add(&seen.counts(), now);
            window.total(now)
        };
        let guard = record.form.guard.as_ref()?;
        let target = &record.form.targets.get(at)?.target;
        let reason = over(guard, &total).filter(|_| record.is_new(target))?;
        self.tripped.set(at).ok().map(|()| reason)
    }

    /// The target that is over its limit.
    pub(super) fn tripped(&self) -> Option<usize> {
        self.tripped.get().copied()
    }

    /// Of each target.
    pub(super) fn counts(&self, now: Instant) -> Vec<Counts> {
        self.windows().iter_mut().map(|window| window.total(now)).collect()
    }

    fn windows(&self) -> MutexGuard<'_, Vec<Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn over(guard: &Guard, counts: &Counts) -> Option<String> {
    let Counts { requests, errors, non_finite, .. } = counts;
    if guard.max_non_finite.is_some_and(|most| *non_finite > most) {
        return Some(format!("{non_finite} of {requests} answers were not finite"));
    }
    let most = guard.max_error_rate?;
    let too_many = *requests >= guard.min_requests && counts.error_rate() > most;
    too_many.then(|| format!("{errors} of {requests} requests failed, a rate above {most}"))
}
