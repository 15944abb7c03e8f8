//! What an answer took, in response headers.
use crate::generation::{Usage, WeightedAdapter};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

/// `x-adapter-id`, with commas between the adapters of a mix; nothing for the base.
pub(super) fn adapters(adapters: &[WeightedAdapter]) -> HeaderMap {
    let ids: Vec<_> = adapters.iter().map(|one| one.adapter.to_string()).collect();
    let id = HeaderValue::try_from(ids.join(",")).ok().filter(|id| !id.is_empty());
    id.map(|id| (HeaderName::from_static("x-adapter-id"), id)).into_iter().collect()
}

/// Tokens, and whole milliseconds: from the request to the answer, in the queue, and between.
pub(super) fn measured(usage: Usage, total: Duration) -> [(&'static str, String); 7] {
    let inference = total.saturating_sub(usage.queued);
    let tokens = u32::try_from(usage.completion_tokens).unwrap_or(u32::MAX).max(1);
    let milliseconds = |time: Duration| time.as_millis().to_string();
    [
        ("x-prompt-tokens", usage.prompt_tokens.to_string()),
        ("x-generated-tokens", usage.completion_tokens.to_string()),
        ("x-total-tokens", (usage.prompt_tokens + usage.completion_tokens).to_string()),
        ("x-total-time", milliseconds(total)),
        ("x-queue-time", milliseconds(usage.queued)),
        ("x-inference-time", milliseconds(inference)),
        ("x-time-per-token", milliseconds(inference / tokens)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_waiting_is_inference_and_is_shared_by_the_tokens() {
        let queued = Duration::from_millis(20);
        let usage = Usage { prompt_tokens: 3, completion_tokens: 5, cached_tokens: 0, queued };
        let headers = measured(usage, Duration::from_millis(120)).map(|(_, value)| value);
        assert_eq!(headers, ["3", "5", "8", "120", "20", "100", "20"]);
        let none = Usage { completion_tokens: 0, ..usage };
        assert_eq!(measured(none, Duration::ZERO)[6].1, "0");
    }

    #[test]
    fn adapters_are_named_and_the_base_is_not() {
        let [rate, sql] = ["rate", "sql"].map(|name| WeightedAdapter {
            adapter: name.parse().expect("a name"),
            weight: 0.5,
            field: String::new(),
        });
        let both = [rate, sql];
        assert_eq!(adapters(&both[..1])["x-adapter-id"], "rate");
        assert_eq!(adapters(&both)["x-adapter-id"], "rate,sql");
        assert!(adapters(&[]).is_empty());
    }
}
