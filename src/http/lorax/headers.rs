//! What an answer took, in response headers.
use crate::generation::{ModelCard, Usage, WeightedAdapter};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

/// Where adapters come from where a request does not say.
const LOCAL: &str = "local";

/// What is known before the first token: the model, its adapters and what they have to read.
///
/// `x-adapter-id` has commas between the adapters of a mix; it and `x-adapter-source` are not there for the base.
pub(super) fn known(
    model: &ModelCard,
    adapters: &[WeightedAdapter],
    source: Option<&str>,
    characters: usize,
) -> HeaderMap {
    let ids: Vec<_> = adapters.iter().map(|one| one.adapter.to_string()).collect();
    let source = source.filter(|source| !source.is_empty()).unwrap_or(LOCAL);
    let values = [
        ("x-model-id", model.name.clone()),
        ("x-compute-type", model.device.clone()),
        ("x-compute-characters", characters.to_string()),
        ("x-adapter-id", ids.join(",")),
        ("x-adapter-source", if ids.is_empty() { String::new() } else { source.to_owned() }),
    ];
    let header = |(name, value): (&'static str, String)| {
        let value = HeaderValue::try_from(value).ok().filter(|value| !value.is_empty());
        value.map(|value| (HeaderName::from_static(name), value))
    };
    values.into_iter().filter_map(header).collect()
}

/// How long a request was on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// From its arrival to its answer.
    pub(super) total: Duration,
    /// Of that, until the engine had it.
    pub(super) validation: Duration,
}

/// Tokens, and whole milliseconds: from the request to the answer, until it was in the queue, in the queue, and from
/// there on.
pub(super) fn measured(usage: Usage, times: Times) -> [(&'static str, String); 9] {
    let inference = times.total.saturating_sub(times.validation).saturating_sub(usage.queued);
    let tokens = u32::try_from(usage.completion_tokens).unwrap_or(u32::MAX).max(1);
    let milliseconds = |time: Duration| time.as_millis().to_string();
    [
        ("x-prompt-tokens", usage.prompt_tokens.to_string()),
        ("x-generated-tokens", usage.completion_tokens.to_string()),
        ("x-total-tokens", (usage.prompt_tokens + usage.completion_tokens).to_string()),
        ("x-compute-time", milliseconds(times.total)),
        ("x-total-time", milliseconds(times.total)),
        ("x-validation-time", milliseconds(times.validation)),
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
        let times =
            Times { total: Duration::from_millis(125), validation: Duration::from_millis(5) };
        let headers = measured(usage, times).map(|(_, value)| value);
        assert_eq!(headers, ["3", "5", "8", "125", "125", "5", "20", "100", "20"]);
        let none = Usage { completion_tokens: 0, ..usage };
        assert_eq!(measured(none, Times::default())[8].1, "0");
    }

    #[test]
    fn adapters_are_named_and_the_base_is_not() {
        let [rate, sql] = ["rate", "sql"].map(|name| WeightedAdapter {
            adapter: name.parse().expect("a name"),
            weight: 0.5,
            field: String::new(),
        });
        let model = ModelCard {
            name: "tiny".into(),
            aliases: Vec::new(),
            root: "tiny".into(),
            max_context: 8,
            vocab: 9,
            device: "cpu".into(),
            precision: "f32".into(),
            abilities: crate::generation::Abilities::default(),
        };
        let both = [rate, sql];
        let one = known(&model, &both[..1], None, 3);
        assert_eq!(
            (&one["x-adapter-id"], &one["x-adapter-source"]),
            (&"rate".parse().expect("a header"), &"local".parse().expect("a header"))
        );
        assert_eq!(known(&model, &both, Some("hub"), 3)["x-adapter-id"], "rate,sql");
        assert_eq!(known(&model, &both, Some("hub"), 3)["x-adapter-source"], "hub");
        let base = known(&model, &[], Some("hub"), 3);
        assert_eq!(
            (base.len(), &base["x-compute-characters"]),
            (3, &"3".parse().expect("a header"))
        );
    }
}
