//! Counts and times one text that is read.
use crate::{
    engine::EngineError,
    generation::{GenerateError, account::Account},
    telemetry::Outcome,
};
use std::time::{Duration, Instant};

/// From a text's submission to its end; an end that nobody told it of is the client's.
pub(super) struct Tally {
    account: Account,
    submitted: Instant,
    tokens: usize,
    outcome: Outcome,
}

impl Tally {
    /// The engine took a text of so many tokens just now.
    pub(super) fn start(account: Account, tokens: usize) -> Self {
        account.reads(tokens);
        Self { account, submitted: Instant::now(), tokens, outcome: Outcome::Abort }
    }

    pub(super) fn started(&self, cached: usize, queued: Duration) {
        self.account.metrics.queued(queued);
        self.account.cached(cached);
    }

    pub(super) fn read(&mut self) {
        self.outcome = Outcome::Stop;
    }

    pub(super) fn failed(&mut self, error: EngineError) -> GenerateError {
        self.outcome = Outcome::Error;
        self.account.failed();
        error.into()
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.account.metrics.read(self.outcome, self.tokens, self.submitted.elapsed());
    }
}
