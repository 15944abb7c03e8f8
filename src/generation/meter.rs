//! Times one answer.
use super::{FinishedBecause, account::Account};
use crate::telemetry::Outcome;
use std::time::{Duration, Instant};

/// From the submission to the end of an answer; an end that nobody told it of is the client's.
pub(super) struct Meter {
    account: Account,
    submitted: Instant,
    last_token: Option<Instant>,
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
            last_token: None,
            prompt_tokens,
            generated_tokens: 0,
            outcome: Outcome::Abort,
        }
    }

    pub(super) fn token(&mut self) {
        let now = Instant::now();
        match self.last_token {
            None => self.account.first_token(now - self.submitted),
            Some(last) => self.account.metrics.inter_token(now - last),
        }
        self.last_token = Some(now);
        self.generated_tokens += 1;
    }

    pub(super) fn queued(&self, waited: Duration) {
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
        self.account.generated(self.generated_tokens);
    }
}
