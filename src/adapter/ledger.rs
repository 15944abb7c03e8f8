//! What a name has answered since the server started.
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A name's counters. Requests write while they run, the admin routes read.
#[derive(Debug, Default)]
pub struct Ledger {
    requests: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    errors: AtomicU64,
    /// Milliseconds since 1970; 0 is never.
    last_used: AtomicU64,
}

/// What a [`Ledger`] says now.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AdapterUsage {
    /// Prompts that were accepted.
    pub requests: u64,
    /// Their tokens.
    pub prompt_tokens: u64,
    /// Of these, found in the prefix cache.
    pub cached_tokens: u64,
    /// Tokens of their answers.
    pub generated_tokens: u64,
    /// Answers that failed.
    pub errors: u64,
    /// When the last prompt was accepted.
    pub last_used: Option<SystemTime>,
}

impl Ledger {
    /// A prompt was accepted.
    pub fn begin(&self, prompt_tokens: usize, now: SystemTime) {
        self.requests.fetch_add(1, Relaxed);
        self.prompt_tokens.fetch_add(prompt_tokens as u64, Relaxed);
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_used.fetch_max(since.as_millis() as u64, Relaxed);
    }

    /// So many of a prompt's tokens did not have to be computed.
    pub fn cached(&self, tokens: usize) {
        self.cached_tokens.fetch_add(tokens as u64, Relaxed);
    }

    /// So many tokens were generated.
    pub fn generated(&self, tokens: usize) {
        self.generated_tokens.fetch_add(tokens as u64, Relaxed);
    }

    /// An answer failed.
    pub fn failed(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    /// Everything so far.
    pub fn usage(&self) -> AdapterUsage {
        let last_used = Some(self.last_used.load(Relaxed)).filter(|time| *time > 0);
        AdapterUsage {
            requests: self.requests.load(Relaxed),
            prompt_tokens: self.prompt_tokens.load(Relaxed),
            cached_tokens: self.cached_tokens.load(Relaxed),
            generated_tokens: self.generated_tokens.load(Relaxed),
            errors: self.errors.load(Relaxed),
            last_used: last_used.map(|time| UNIX_EPOCH + Duration::from_millis(time)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_added_up() {
        let ledger = Ledger::default();
        assert_eq!(ledger.usage(), AdapterUsage::default());
        let noon = UNIX_EPOCH + Duration::from_hours(12);
        ledger.begin(5, noon);
        ledger.begin(3, noon - Duration::from_secs(1));
        ledger.cached(2);
        ledger.generated(4);
        ledger.failed();
        let expected = AdapterUsage {
            requests: 2,
            prompt_tokens: 8,
            cached_tokens: 2,
            generated_tokens: 4,
            errors: 1,
            last_used: Some(noon),
        };
        assert_eq!(ledger.usage(), expected);
    }
}
