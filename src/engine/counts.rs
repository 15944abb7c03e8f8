//! How often each token occurred, for the penalties.
use super::SamplingOptions;
use std::collections::BTreeMap;

/// Occurrences in the prompt and in the answer; empty for a sequence without penalties.
#[derive(Debug, Default)]
pub(super) struct TokenCounts {
    /// Answer occurrences of every token of prompt or answer; `None` counts nothing.
    answer: Option<BTreeMap<u32, u32>>,
}

impl TokenCounts {
    /// Counts only where `options` have a use for it.
    #[expect(clippy::float_cmp, reason = "exactly the neutral values change nothing")]
    pub(super) fn new(prompt: &[u32], options: &SamplingOptions) -> Self {
        let penalised = options.repetition_penalty != 1.0
            || options.presence_penalty != 0.0
            || options.frequency_penalty != 0.0;
        Self { answer: penalised.then(|| prompt.iter().map(|token| (*token, 0)).collect()) }
    }

    /// One more token of the answer.
    pub(super) fn push(&mut self, token: u32) {
        if let Some(answer) = &mut self.answer {
            *answer.entry(token).or_default() += 1;
        }
    }

    /// Every token that occurred, and how often in the answer.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.answer.iter().flatten().map(|(token, count)| (*token, *count))
    }

    /// Whether nothing is penalised.
    pub(super) fn is_empty(&self) -> bool {
        self.answer.is_none()
    }
}
