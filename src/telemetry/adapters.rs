//! What each adapter's requests do, under so many names and no more.
use super::{
    metrics::ADAPTER_FIRST_TOKEN_BUCKETS,
    series::{Labels, add},
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use std::{
    borrow::Cow,
    collections::HashSet,
    sync::{PoisonError, RwLock},
    time::Duration,
};

/// Stands for every adapter without a place. No adapter can be called so.
const OTHERS: &str = "_other";

/// Series by adapter. The first `most` names have their own; what comes later shares one.
pub(super) struct AdapterSeries {
    most: usize,
    named: RwLock<HashSet<String>>,
    requests: Family<Labels, Counter>,
    prompt_tokens: Family<Labels, Counter>,
    generated_tokens: Family<Labels, Counter>,
    errors: Family<Labels, Counter>,
    first_token: Family<Labels, Histogram, fn() -> Histogram>,
}

/// The series of one adapter, or of those without a place: to be held while a request runs.
#[derive(Clone, Debug)]
pub struct AdapterCounts {
    requests: Counter,
    prompt_tokens: Counter,
    generated_tokens: Counter,
    errors: Counter,
    first_token: Histogram,
}

impl AdapterSeries {
    pub(super) fn register(registry: &mut Registry, most: usize) -> Self {
        let r = registry;
        let first_token: Family<Labels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(ADAPTER_FIRST_TOKEN_BUCKETS));
        Self {
            most,
            named: RwLock::default(),
            requests: add(r, "lorad_requests", Family::default()),
            prompt_tokens: add(r, "lorad_adapter_prompt_tokens", Family::default()),
            generated_tokens: add(r, "lorad_adapter_generated_tokens", Family::default()),
            errors: add(r, "lorad_adapter_errors", Family::default()),
            first_token: add(r, "lorad_adapter_first_token_seconds", first_token),
        }
    }

    /// The base model has the empty name, and always a place.
    pub(super) fn of(&self, adapter: &str) -> AdapterCounts {
        let labels = vec![("adapter", self.label(adapter).into_owned())];
        AdapterCounts {
            requests: self.requests.get_or_create_owned(&labels),
            prompt_tokens: self.prompt_tokens.get_or_create_owned(&labels),
            generated_tokens: self.generated_tokens.get_or_create_owned(&labels),
            errors: self.errors.get_or_create_owned(&labels),
            first_token: self.first_token.get_or_create_owned(&labels),
        }
    }

    /// An adapter is gone: its place is another's.
    pub(super) fn forget(&self, adapter: &str) {
        if !self.named.write().unwrap_or_else(PoisonError::into_inner).remove(adapter) {
            return;
        }
        let labels = vec![("adapter", adapter.to_owned())];
        self.requests.remove(&labels);
        self.prompt_tokens.remove(&labels);
        self.generated_tokens.remove(&labels);
        self.errors.remove(&labels);
        self.first_token.remove(&labels);
    }

    fn label<'a>(&self, adapter: &'a str) -> Cow<'a, str> {
        let has_place = |named: &HashSet<String>| adapter.is_empty() || named.contains(adapter);
        if has_place(&self.named.read().unwrap_or_else(PoisonError::into_inner)) {
            return adapter.into();
        }
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        if has_place(&named) || named.len() < self.most {
            named.insert(adapter.to_owned());
            return adapter.into();
        }
        OTHERS.into()
    }
}

impl AdapterCounts {
    /// A prompt was accepted.
    pub fn accepted(&self, prompt_tokens: usize) {
        self.requests.inc();
        self.prompt_tokens.inc_by(prompt_tokens as u64);
    }

    /// The time from submission to the first token of an answer.
    pub fn first_token(&self, waited: Duration) {
        self.first_token.observe(waited.as_secs_f64());
    }

    /// So many tokens were generated.
    pub fn generated(&self, tokens: usize) {
        self.generated_tokens.inc_by(tokens as u64);
    }

    /// An answer failed.
    pub fn failed(&self) {
        self.errors.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).expect("text");
        text
    }

    fn names(text: &str) -> Vec<&str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("lorad_requests_total{"));
        lines.filter_map(|line| line.split('"').nth(1)).collect()
    }

    #[test]
    fn thousands_of_adapters_do_not_make_thousands_of_series() {
        let mut registry = Registry::default();
        let series = AdapterSeries::register(&mut registry, 3);
        series.of("").accepted(1);
        for index in 0..1000 {
            series.of(&format!("adapter-{index}")).accepted(2);
        }
        series.of("adapter-0").accepted(2);
        let text = exposed(&registry);
        let mut found = names(&text);
        found.sort_unstable();
        assert_eq!(found, ["", "_other", "adapter-0", "adapter-1", "adapter-2"]);
        assert!(text.contains("lorad_requests_total{adapter=\"_other\"} 997\n"), "{text}");
        let tokens = "lorad_adapter_prompt_tokens_total{adapter=\"adapter-0\"} 4\n";
        assert!(text.contains(tokens), "{text}");
    }

    #[test]
    fn an_adapter_that_is_gone_leaves_its_place_to_another() {
        let mut registry = Registry::default();
        let series = AdapterSeries::register(&mut registry, 1);
        let held = series.of("a");
        held.accepted(1);
        series.forget("a");
        series.forget("never-seen");
        held.generated(1);
        let counts = series.of("b");
        counts.accepted(1);
        counts.failed();
        counts.first_token(Duration::from_millis(1));
        let text = exposed(&registry);
        assert_eq!(names(&text), ["b"], "{text}");
        assert!(text.contains("lorad_adapter_errors_total{adapter=\"b\"} 1\n"), "{text}");
    }
}
