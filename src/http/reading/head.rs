//! What every answer of the OpenAI and vLLM dialects says besides what was read.
use super::Cost;
use crate::http::{served, unix_seconds};
use serde::Serialize;
use serde_json::Value;
use std::time::SystemTime;
use uuid::Uuid;

/// Who answers, and what it took.
#[derive(Debug)]
pub(in crate::http) struct Head {
    /// `embd-…`, `classify-…`, `rerank-…`
    pub(in crate::http) id: String,
    /// As the request calls it.
    pub(in crate::http) model: String,
    /// What it took.
    pub(in crate::http) usage: ReadUsage,
}

/// OpenAI's `usage` of an answer without tokens of its own, with vLLM's fields.
#[derive(Clone, Debug, Serialize)]
pub(in crate::http) struct ReadUsage {
    prompt_tokens: usize,
    total_tokens: usize,
    completion_tokens: usize,
    prompt_tokens_details: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adapters: Option<Value>,
}

/// A list of what became of each text.
#[derive(Debug, Serialize)]
pub(in crate::http) struct Listed<T> {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    data: Vec<T>,
    usage: ReadUsage,
}

impl Head {
    /// A new id that begins with `prefix`.
    pub(in crate::http) fn new(prefix: &str, model: String, cost: Cost<'_>) -> Self {
        let usage = ReadUsage {
            prompt_tokens: cost.tokens,
            total_tokens: cost.tokens,
            completion_tokens: 0,
            prompt_tokens_details: None,
            adapters: served::list(cost.served),
        };
        Self { id: format!("{prefix}-{}", Uuid::new_v4().simple()), model, usage }
    }

    /// The whole answer, now.
    pub(in crate::http) fn listing<T>(self, data: Vec<T>) -> Listed<T> {
        let Self { id, model, usage } = self;
        Listed { id, object: "list", created: unix_seconds(SystemTime::now()), model, data, usage }
    }
}
