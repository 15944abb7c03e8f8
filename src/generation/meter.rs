//! Times one answer.
use super::{FinishedBecause, account::Account};
use crate::telemetry::{Milestones, Outcome};
use std::time::{Duration, Instant};

/// From the submission to the end of an answer; an end that nobody told it of is the client's.
pub(super) struct Meter {
    account: Account,
    submitted: Instant,
    times: Milestones,
    prompt_tokens: usize,
    generated_tokens: usize,
    outcome: Outcome,
}

impl Meter {
    /// The answer is submitted now.
    pub(super) fn start(account: Account, prompt_tokens: usize) -> Self {
        Self {
            account,
            submitted: Instant::now(),
            times: Milestones::default(),
            prompt_tokens,
            generated_tokens: 0,
            outcome: Outcome::Abort,
        }
    }

    pub(super) fn token(&mut self) {
        let at = self.submitted.elapsed();
        match self.times.last_token {
            None => {
                self.account.first_token(at);
                self.times.first_token = Some(at);
            }
            Some(last) => self.account.metrics.inter_token(at.saturating_sub(last)),
        }
        self.times.last_token = Some(at);
        self.generated_tokens += 1;
    }

    pub(super) fn queued(&mut self, waited: Duration) {
        self.times.started = Some(waited);
        self.account.metrics.queued(waited);
    }

    /// So many of the prompt's tokens did not have to be computed.
    pub(super) fn cached(&self, tokens: usize) {
        self.account.cached(tokens);
    }

    pub(super) fn finished(&mut self, because: &FinishedBecause) {
        self.outcome = match because {
            FinishedBecause::Stop(_) => Outcome::Stop,
            FinishedBecause::Length => Outcome::Length,
        };
    }

    pub(super) fn failed(&mut self) {
        self.outcome = Outcome::Error;
        self.account.failed();
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let (metrics, elapsed) = (&self.account.metrics, self.submitted.elapsed());
        metrics.finished(self.outcome, self.prompt_tokens, self.generated_tokens, elapsed);
        metrics.spent(self.times, self.generated_tokens);
        self.account.generated(self.generated_tokens);
    }
}
