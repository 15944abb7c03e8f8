//! What forms of answers cost.
use super::{
    Metrics,
    metrics::GRAMMAR_BUCKETS,
    series::{Labels, add},
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use std::time::Duration;

/// Every series of grammars.
pub(super) struct GrammarSeries {
    compiles: Family<Labels, Counter>,
    compile_seconds: Histogram,
    cache_hits: Counter,
    constrained: Counter,
}

impl GrammarSeries {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let r = registry;
        Self {
            compiles: add(r, "lorad_grammar_compiles", Family::default()),
            compile_seconds: add(
                r,
                "lorad_grammar_compile_seconds",
                Histogram::new(GRAMMAR_BUCKETS),
            ),
            cache_hits: add(r, "lorad_grammar_cache_hits", Counter::default()),
            constrained: add(r, "lorad_constrained_answers", Counter::default()),
        }
    }
}

impl Metrics {
    /// A form of answers was compiled, or was not: `result` is one of a few words.
    pub fn grammar_compiled(&self, result: &'static str, took: Duration) {
        let GrammarSeries { compiles, compile_seconds, .. } = self.grammars();
        compiles.get_or_create(&vec![("result", result.to_owned())]).inc();
        compile_seconds.observe(took.as_secs_f64());
    }

    /// A form was known from an earlier request.
    pub fn grammar_found(&self) {
        self.grammars().cache_hits.inc();
    }

    /// So many answers are bound to a form.
    pub fn constrained(&self, answers: usize) {
        self.grammars().constrained.inc_by(answers as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{EngineFigures, Exposition};

    #[test]
    fn compiles_are_counted_by_result() {
        let metrics = Metrics::new("base");
        metrics.grammar_compiled("ok", Duration::from_millis(3));
        metrics.grammar_compiled("invalid", Duration::from_millis(1));
        metrics.grammar_found();
        metrics.constrained(4);
        let text = metrics.expose(&EngineFigures::default(), Exposition::Prometheus);
        for line in [
            "lorad_grammar_compiles_total{model_name=\"base\",engine=\"0\",result=\"invalid\"} 1\n",
            "lorad_grammar_compile_seconds_count{model_name=\"base\",engine=\"0\"} 2\n",
            "lorad_grammar_cache_hits_total{model_name=\"base\",engine=\"0\"} 1\n",
            "lorad_constrained_answers_total{model_name=\"base\",engine=\"0\"} 4\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
