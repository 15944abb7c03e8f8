//! What every answer of this dialect says besides text: who answers, why it ended, what it took.
use super::fields::SharedFields;
use crate::{
    generation::{FinishedBecause, ServedAdapter, StopReason, Usage},
    http::{AppState, fan_out::Answers, served, unix_seconds},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{sync::Arc, time::SystemTime};
use uuid::Uuid;

/// The fields every object of one response has.
#[derive(Debug)]
pub(super) struct Head {
    /// `cmpl-…` or `chatcmpl-…`.
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
    served: Vec<ServedAdapter>,
}

impl Head {
    /// A new id, and now. `model` is what the request calls it; `answers` know what answers.
    pub(super) fn new(prefix: &str, app: &AppState, model: String, answers: &Answers) -> Self {
        Self::of(prefix, model, fingerprint(&app.generator.model().root), answers.served())
    }

    fn of(prefix: &str, model: String, fingerprint: String, served: &[ServedAdapter]) -> Self {
        let id = format!("{prefix}-{}", Uuid::new_v4().simple());
        let (created, served) = (unix_seconds(SystemTime::now()), served.to_vec());
        Self { id, created, model, fingerprint, served }
    }

    #[cfg(test)]
    pub(super) fn test(prefix: &str) -> Self {
        Self::of(prefix, "rate".into(), "fp_0".into(), &[])
    }

    /// An object of the kind `object` with these choices.
    pub(super) fn json(&self, object: &str, choices: &[Value]) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "system_fingerprint": self.fingerprint,
        })
    }
}

/// OpenAI's `system_fingerprint`: the same as long as base model and program are.
fn fingerprint(base: &str) -> String {
    let sum = Sha256::new().chain_update(env!("CARGO_PKG_VERSION")).chain_update("\0");
    let sum = sum.chain_update(base).finalize();
    sum.iter().take(5).fold("fp_".to_owned(), |text, byte| format!("{text}{byte:02x}"))
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
        let mut usage = counted(prompt_tokens, completion_tokens);
        usage["prompt_tokens_details"] = json!({"cached_tokens": cached_tokens});
        // Thoughts are part of the text here: none are hidden.
        usage["completion_tokens_details"] = json!({"reasoning_tokens": 0});
        if let Some(adapters) = served::list(&head.served) {
            usage["adapters"] = adapters;
        }
        usage
    }
}

fn counted(prompt_tokens: usize, completion_tokens: usize) -> Value {
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    })
}

/// What a stream says of its usage, as `stream_options` wants it.
#[derive(Debug)]
pub(super) struct StreamUsage {
    include: bool,
    continuous: bool,
    sum: UsageSum,
    answers_per_prompt: usize,
    prompts: Vec<Arc<[u32]>>,
    /// Of each answer.
    completion_tokens: Vec<usize>,
}

impl StreamUsage {
    /// Nothing was sent yet of the answers to these prompts.
    pub(super) fn new(shared: &SharedFields, prompts: &[Arc<[u32]>]) -> Self {
        let answers_per_prompt = shared.answers();
        Self {
            include: shared.include_usage(),
            continuous: shared.continuous_usage(),
            sum: UsageSum::new(answers_per_prompt),
            answers_per_prompt,
            prompts: prompts.to_vec(),
            completion_tokens: vec![0; prompts.len() * answers_per_prompt],
        }
    }

    /// The prompt of the answer `index`.
    pub(super) fn prompt(&self, index: usize) -> &[u32] {
        self.prompts.get(index / self.answers_per_prompt).map_or(&[], |prompt| prompt)
    }

    /// How many answers there are.
    pub(super) fn answers(&self) -> usize {
        self.completion_tokens.len()
    }

    /// So many more tokens of the answer `index`.
    pub(super) fn more(&mut self, index: usize, tokens: usize) {
        if let Some(so_far) = self.completion_tokens.get_mut(index) {
            *so_far += tokens;
        }
    }

    /// The answer `index` has ended.
    pub(super) fn finished(&mut self, index: usize, usage: Usage) {
        self.sum.add(index, usage);
    }

    /// What stands in every chunk of the answer `index`.
    pub(super) fn so_far(&self, index: usize) -> Option<Value> {
        let completion_tokens = self.completion_tokens.get(index).copied().unwrap_or(0);
        self.continuous.then(|| counted(self.prompt(index).len(), completion_tokens))
    }

    /// What stands in a chunk of its own at the end.
    pub(super) fn total(&self, head: &Head) -> Option<Value> {
        self.include.then(|| self.sum.json(head))
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
    use crate::http::json::JsonBody;

    #[test]
    fn a_prompt_counts_once_and_every_answer_counts() {
        let mut sum = UsageSum::new(2);
        let (prompt_tokens, completion_tokens, cached_tokens) = (5, 3, 1);
        let usage = Usage { prompt_tokens, completion_tokens, cached_tokens, ..Usage::default() };
        (0..4).for_each(|index| sum.add(index, usage));
        let usage = sum.json(&Head::test("cmpl"));
        assert_eq!(usage.get("adapters"), None);
        assert_eq!(usage["prompt_tokens"], 10);
        assert_eq!(usage["completion_tokens"], 12);
        assert_eq!(usage["total_tokens"], 22);
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 2);
    }

    #[test]
    fn a_fingerprint_is_that_of_base_and_program() {
        let one = fingerprint("a");
        assert_eq!(one, fingerprint("a"));
        assert_ne!(one, fingerprint("b"));
        assert!(one.len() == 13 && one.starts_with("fp_"), "{one}");
    }

    #[test]
    fn a_running_count_is_an_answer_s_own() {
        let body = r#"{"stream": true, "n": 2,
                      "stream_options": {"include_usage": true, "continuous_usage_stats": true}}"#;
        let body = JsonBody::parse(body.as_bytes()).expect("an object");
        let shared = SharedFields::read(&body, 8).expect("valid");
        let mut usage = StreamUsage::new(&shared, &[vec![1; 5].into(), vec![1; 7].into()]);
        usage.more(2, 3);
        let counts = json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10});
        assert_eq!(usage.so_far(2), Some(counts));
        assert_eq!(usage.so_far(1).expect("asked for")["total_tokens"], 5);
        assert_eq!(usage.answers(), 4);
        let plain = SharedFields::read(&JsonBody::parse(b"{}").expect("an object"), 8);
        let plain = StreamUsage::new(&plain.expect("valid"), &[]);
        assert_eq!((plain.so_far(0), plain.total(&Head::test("cmpl"))), (None, None));
    }
}
