//! What aliases do, with a bounded number of series.
use super::{
    Metrics,
    metrics::FIRST_TOKEN_BUCKETS,
    series::{Histograms, Labels, add},
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// Label sets of each family; later ones share `_other`.
const MAX_SERIES: usize = 256;

/// Every series of aliases.
pub(super) struct AliasSeries {
    requests: Bounded,
    errors: Bounded,
    changes: Bounded,
    shadows: Bounded,
    compared: Bounded,
    first_token: Histograms,
    histograms: AtomicUsize,
}

/// Counters whose labels come from people.
struct Bounded {
    family: Family<Labels, Counter>,
    taken: AtomicUsize,
}

impl Bounded {
    fn register(registry: &mut Registry, name: &'static str) -> Self {
        Self { family: add(registry, name, Family::default()), taken: AtomicUsize::new(0) }
    }

    fn inc(&self, labels: Labels) {
        if let Some(known) = self.family.get(&labels) {
            known.inc();
            return;
        }
        let labels = within(&self.taken, labels);
        self.family.get_or_create(&labels).inc();
    }
}

/// The labels, or where there are enough of them already, those that all others share. Two racing firsts of one set
/// take two places: the limit bounds series, it counts none.
fn within(taken: &AtomicUsize, labels: Labels) -> Labels {
    if taken.fetch_add(1, Ordering::Relaxed) < MAX_SERIES {
        return labels;
    }
    // The others are one of a few words each, and stay.
    let of_people = |key| matches!(key, "alias" | "target");
    let other = |(key, value)| if of_people(key) { (key, "_other".into()) } else { (key, value) };
    labels.into_iter().map(other).collect()
}

impl AliasSeries {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let first_token = Histograms::new_with_constructor(|| Histogram::new(FIRST_TOKEN_BUCKETS));
        Self {
            requests: Bounded::register(registry, "lorad_alias_requests"),
            errors: Bounded::register(registry, "lorad_alias_errors"),
            changes: Bounded::register(registry, "lorad_alias_changes"),
            shadows: Bounded::register(registry, "lorad_shadow_requests"),
            compared: Bounded::register(registry, "lorad_shadow_compared"),
            first_token: add(registry, "lorad_shadow_first_token_seconds", first_token),
            histograms: AtomicUsize::new(0),
        }
    }
}

impl Metrics {
    /// A request to `alias` went to `target`.
    pub fn alias_requested(&self, alias: &str, target: &str) {
        let labels = vec![("alias", alias.to_owned()), ("target", target.to_owned())];
        self.aliases().requests.inc(labels);
    }

    /// The server failed it.
    pub fn alias_failed(&self, alias: &str, target: &str, reason: &'static str) {
        let reason = ("reason", reason.to_owned());
        let labels = vec![("alias", alias.to_owned()), ("target", target.to_owned()), reason];
        self.aliases().errors.inc(labels);
    }

    /// An alias was put, rolled back, flipped back or deleted.
    pub fn alias_changed(&self, alias: &str, action: &'static str) {
        let labels = vec![("alias", alias.to_owned()), ("action", action.to_owned())];
        self.aliases().changes.inc(labels);
    }

    /// A request was to go to an alias' shadow too.
    pub fn shadowed(&self, alias: &str, outcome: &'static str) {
        let labels = vec![("alias", alias.to_owned()), ("outcome", outcome.to_owned())];
        self.aliases().shadows.inc(labels);
    }

    /// A greedy answer and its shadow's say the same, or do not.
    pub fn shadow_compared(&self, alias: &str, is_same: bool) {
        let result = if is_same { "same" } else { "different" };
        let labels = vec![("alias", alias.to_owned()), ("result", result.to_owned())];
        self.aliases().compared.inc(labels);
    }

    /// The time to the first token of an answer, or of its shadow.
    pub fn shadow_first_token(&self, alias: &str, of: &'static str, waited: Duration) {
        let labels = vec![("alias", alias.to_owned()), ("of", of.to_owned())];
        let AliasSeries { first_token, histograms, .. } = self.aliases();
        let labels = match first_token.get(&labels) {
            Some(_) => labels,
            None => within(histograms, labels),
        };
        first_token.get_or_create(&labels).observe(waited.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{EngineFigures, Exposition};

    #[test]
    fn thousands_of_aliases_do_not_make_thousands_of_series() {
        let metrics = Metrics::new("base");
        for index in 0..2 * MAX_SERIES {
            let alias = format!("alias-{index}");
            metrics.alias_requested(&alias, "a");
            metrics.alias_failed(&alias, "a", "error");
            metrics.shadow_first_token(&alias, "shadow", Duration::ZERO);
        }
        metrics.alias_requested("alias-0", "a");
        let text = metrics.expose(&EngineFigures::default(), Exposition::Prometheus);
        let series = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(series("lorad_alias_requests_total"), MAX_SERIES + 1);
        assert_eq!(series("lorad_alias_errors_total"), MAX_SERIES + 1);
        assert_eq!(series("lorad_shadow_first_token_seconds_count"), MAX_SERIES + 1);
        let first = "alias=\"alias-0\",target=\"a\"} 2";
        assert!(text.contains(first), "{text}");
        assert!(
            text.contains("alias=\"_other\",target=\"_other\",reason=\"error\"} 256"),
            "{text}"
        );
    }
}
