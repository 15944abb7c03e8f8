//! What every answer of this dialect says besides text: who answers, why it ended, what it took.
use crate::{
    generation::{FinishedBecause, ServedAdapter, StopReason, Usage},
    http::{served, unix_seconds},
};
use serde_json::{Value, json};
use std::time::SystemTime;
use uuid::Uuid;

/// The fields every object of one response begins with.
#[derive(Debug)]
pub(super) struct Head {
    /// `cmpl-…` or `chatcmpl-…`.
    id: String,
    created: u64,
    model: String,
    served: Vec<ServedAdapter>,
}

impl Head {
    /// A new id, and now. `model` is what the request calls it, `served` what answers.
    pub(super) fn new(prefix: &str, model: String, served: &[ServedAdapter]) -> Self {
        let id = format!("{prefix}-{}", Uuid::new_v4().simple());
        let (created, served) = (unix_seconds(SystemTime::now()), served.to_vec());
        Self { id, created, model, served }
    }

    /// An object of the kind `object` with these choices.
    pub(super) fn json(&self, object: &str, choices: &[Value]) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }
}

/// The usage of a whole request: every prompt once, however many answers it has.
#[derive(Debug)]
pub(super) struct UsageSum {
    answers_per_prompt: usize,
    total: Usage,
}

impl UsageSum {
    /// Nothing yet; every prompt has `answers_per_prompt` answers.
    pub(super) fn new(answers_per_prompt: usize) -> Self {
        Self { answers_per_prompt, total: Usage::default() }
    }

    /// Adds the answer `index`.
    pub(super) fn add(&mut self, index: usize, usage: Usage) {
        self.total.completion_tokens += usage.completion_tokens;
        if index.is_multiple_of(self.answers_per_prompt) {
            self.total.prompt_tokens += usage.prompt_tokens;
            self.total.cached_tokens += usage.cached_tokens;
        }
    }

    /// The `usage` object of the response that begins with `head`. `adapters` is an extension.
    pub(super) fn json(&self, head: &Head) -> Value {
        let Usage { prompt_tokens, completion_tokens, cached_tokens, .. } = self.total;
        let mut usage = json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        });
        if let Some(adapters) = served::list(&head.served) {
            usage["adapters"] = adapters;
        }
        usage
    }
}

/// `finish_reason`.
pub(super) fn finish_reason(because: &FinishedBecause) -> &'static str {
    match because {
        FinishedBecause::Stop(_) => "stop",
        FinishedBecause::Length => "length",
    }
}

/// vLLM's `stop_reason`: the stop string or token that matched, or null.
pub(super) fn stop_reason(because: &FinishedBecause) -> Value {
    match because {
        FinishedBecause::Stop(StopReason::Token(id)) => json!(id),
        FinishedBecause::Stop(StopReason::Text(text)) => json!(text),
        FinishedBecause::Stop(StopReason::EndOfSequence) | FinishedBecause::Length => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_counts_once_and_every_answer_counts() {
        let mut sum = UsageSum::new(2);
        let (prompt_tokens, completion_tokens, cached_tokens) = (5, 3, 1);
        let usage = Usage { prompt_tokens, completion_tokens, cached_tokens, ..Usage::default() };
        (0..4).for_each(|index| sum.add(index, usage));
        let usage = sum.json(&Head::new("cmpl", "rate".into(), &[]));
        assert_eq!(usage.get("adapters"), None);
        assert_eq!(usage["prompt_tokens"], 10);
        assert_eq!(usage["completion_tokens"], 12);
        assert_eq!(usage["total_tokens"], 22);
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 2);
    }
}
