//! Records what happens and writes it down for Prometheus.
use super::{
    AdapterCounts, EngineFigures, Exposition, MetricsConfig, Milestones, Outcome,
    adapters::AdapterSeries,
    aliases::AliasSeries,
    grammars::GrammarSeries,
    series::{EngineSeries, HttpSeries, Labels, RequestSeries, add},
};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Tokens of the longest sequence, where nobody says.
const ANY_LENGTH: usize = 200_000;

/// Every metric of the process. Clones share the numbers.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    /// Held while the gauges of one scrape are set and written, so that scrapes do not mix.
    registry: Mutex<Registry>,
    engine: EngineSeries,
    requests: RequestSeries,
    adapters: AdapterSeries,
    http: HttpSeries,
    adapter_changes: Family<Labels, Counter>,
    aliases: AliasSeries,
    grammars: GrammarSeries,
}

impl Metrics {
    /// All metrics at zero; `model_name` becomes the label that vLLM's dashboards filter by.
    pub fn new(model_name: &str) -> Self {
        Self::with(model_name, ANY_LENGTH, &MetricsConfig::default())
    }

    /// The same, as the settings have it, for sequences of up to `max_tokens`.
    pub fn with(model_name: &str, max_tokens: usize, config: &MetricsConfig) -> Self {
        let mut registry = Registry::default();
        let http = HttpSeries::register(&mut registry);
        let adapter_changes = add(&mut registry, "lorad_adapter_changes", Family::default());
        let build: Family<Labels, Gauge> =
            add(&mut registry, "lorad_build_info", Family::default());
        build.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION").into())]).set(1);

        let labels = [("model_name", model_name.to_owned()), ("engine", "0".to_owned())];
        let labels = labels.into_iter().map(|(key, value)| (key.into(), value.into()));
        let of_model = registry.sub_registry_with_labels(labels);
        let engine = EngineSeries::register(of_model);
        let requests = RequestSeries::register(of_model, max_tokens);
        let adapters = AdapterSeries::register(of_model, config.metrics_adapters);
        let aliases = AliasSeries::register(of_model);
        let grammars = GrammarSeries::register(of_model);
        let inner = Inner {
            registry: Mutex::new(registry),
            engine,
            requests,
            adapters,
            http,
            adapter_changes,
            aliases,
            grammars,
        };
        Self(Arc::new(inner))
    }

    pub(super) fn aliases(&self) -> &AliasSeries {
        &self.0.aliases
    }

    pub(super) fn grammars(&self) -> &GrammarSeries {
        &self.0.grammars
    }

    /// The series of an adapter: a mix counts under each of its own, so that mixes make no series; the base model has
    /// the empty name.
    pub fn of_adapter(&self, adapter: &str) -> AdapterCounts {
        self.0.adapters.of(adapter)
    }

    /// An adapter is retired: its series go, and their places with them.
    pub fn adapter_gone(&self, adapter: &str) {
        self.0.adapters.forget(adapter);
    }

    /// The time from submission to the first step of an answer.
    pub fn queued(&self, waited: Duration) {
        self.0.requests.queued.observe(waited.as_secs_f64());
    }

    /// The time from submission to the first token of an answer.
    pub fn first_token(&self, waited: Duration) {
        self.0.requests.first_token.observe(waited.as_secs_f64());
    }

    /// The time from one token of an answer to the next.
    pub fn inter_token(&self, waited: Duration) {
        self.0.requests.inter_token.observe(waited.as_secs_f64());
    }

    /// A prompt was accepted that wants so many answers of at most so many tokens.
    pub fn asked(&self, answers: usize, max_tokens: usize) {
        self.0.requests.asked_answers.observe(answers as f64);
        self.0.requests.asked_tokens.observe(max_tokens as f64);
    }

    /// All answers to a prompt have ended; the longest has so many tokens.
    pub fn longest_answer(&self, tokens: usize) {
        self.0.requests.longest_answer.observe(tokens as f64);
    }

    /// A request was refused for the server's load or state.
    pub fn refused(&self, reason: &str) {
        self.0.requests.refused.get_or_create(&vec![("reason", reason.to_owned())]).inc();
    }

    /// How the time of an answer of so many tokens was spent, as far as it came.
    pub fn spent(&self, times: Milestones, tokens: usize) {
        let Milestones { started, first_token, last_token } = times;
        let requests = &self.0.requests;
        let observe = |histogram: &Histogram, from: Option<Duration>, to: Option<Duration>| {
            if let (Some(from), Some(to)) = (from, to) {
                histogram.observe(to.saturating_sub(from).as_secs_f64());
            }
        };
        observe(&requests.prefill, started, first_token);
        observe(&requests.inference, started, last_token);
        observe(&requests.decode, first_token, last_token);
        if let (Some(first), Some(last), 2..) = (first_token, last_token, tokens) {
            let each = last.saturating_sub(first).as_secs_f64() / (tokens - 1) as f64;
            requests.per_token.observe(each);
        }
    }

    /// An answer ended, `elapsed` after its submission.
    pub fn finished(&self, outcome: Outcome, prompt: usize, generated: usize, elapsed: Duration) {
        self.read(outcome, prompt, elapsed);
        self.0.requests.generated_tokens.observe(generated as f64);
    }

    /// A text that has no answer was read, `elapsed` after its submission.
    pub fn read(&self, outcome: Outcome, tokens: usize, elapsed: Duration) {
        let requests = &self.0.requests;
        let reason = vec![("finished_reason", outcome.label().to_owned())];
        requests.finished.get_or_create(&reason).inc();
        requests.prompt_tokens.observe(tokens as f64);
        requests.latency.observe(elapsed.as_secs_f64());
    }

    /// An adapter was published, replaced, retired or rejected.
    pub fn adapter_changed(&self, result: &'static str) {
        self.0.adapter_changes.get_or_create(&vec![("result", result.to_owned())]).inc();
    }

    /// A response head went out. `route` is the pattern that matched, never the path itself.
    pub fn responded(&self, route: &str, method: &str, status: u16, elapsed: Duration) {
        let handler = ("handler", route.to_owned());
        let method = ("method", method.to_owned());
        self.0.http.duration.get_or_create(&vec![handler.clone()]).observe(elapsed.as_secs_f64());
        let labels = vec![handler, method, ("status", status.to_string())];
        self.0.http.responses.get_or_create(&labels).inc();
    }

    /// Everything recorded so far, with the engine's numbers of now.
    ///
    /// # Panics
    /// Never: text is written to memory.
    pub fn expose(&self, figures: &EngineFigures, format: Exposition) -> String {
        let registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.engine.set(figures);
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a String cannot fail");
        format.of(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{METRICS, MetricKind},
        *,
    };

    fn recorded() -> (Metrics, EngineFigures) {
        let metrics = Metrics::new("base\"1\"");
        let rate = metrics.of_adapter("rate");
        rate.accepted(3);
        rate.first_token(Duration::from_millis(2));
        metrics.queued(Duration::from_millis(1));
        metrics.first_token(Duration::from_millis(2));
        metrics.inter_token(Duration::from_millis(3));
        metrics.finished(Outcome::Stop, 3, 2, Duration::from_millis(9));
        let at = |ms| Some(Duration::from_millis(ms));
        let times = Milestones { started: at(1), first_token: at(2), last_token: at(8) };
        metrics.spent(times, 2);
        metrics.asked(2, 16);
        metrics.longest_answer(2);
        metrics.refused("queue_full");
        metrics.adapter_changed("created");
        metrics.grammar_compiled("ok", Duration::from_millis(3));
        metrics.alias_requested("chat", "rate");
        metrics.alias_failed("chat", "rate", "error");
        metrics.alias_changed("chat", "put");
        metrics.shadowed("chat", "done");
        metrics.shadow_compared("chat", true);
        metrics.shadow_first_token("chat", "shadow", Duration::from_millis(1));
        metrics.responded("/v1/models", "GET", 200, Duration::from_millis(1));
        let figures = EngineFigures {
            running: 2,
            kv_blocks_used: 1,
            kv_blocks: 4,
            prompt_tokens: 3,
            resident_adapters: vec!["a".into(), "b".into()],
            adapter_slots: 8,
            ..EngineFigures::default()
        };
        (metrics, figures)
    }

    #[test]
    fn the_table_and_the_exposition_name_the_same_metrics() {
        let (metrics, figures) = recorded();
        let text = metrics.expose(&figures, Exposition::Prometheus);
        let mut exposed: Vec<_> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
        let mut listed: Vec<String> = METRICS
            .iter()
            .map(|info| match info.kind {
                MetricKind::Counter => format!("{}_total counter", info.name),
                MetricKind::Gauge => format!("{} gauge", info.name),
                MetricKind::Histogram => format!("{} histogram", info.name),
            })
            .collect();
        exposed.sort_unstable();
        listed.sort_unstable();
        assert_eq!(exposed, listed);
        assert!(!text.contains("# EOF"));
        assert!(metrics.expose(&figures, Exposition::OpenMetrics).ends_with("# EOF\n"));
    }

    #[test]
    fn a_scrape_shows_the_engine_as_it_is_now_and_nothing_older() {
        let (metrics, mut figures) = recorded();
        metrics.expose(&figures, Exposition::Prometheus);
        figures.resident_adapters.pop();
        let text = metrics.expose(&figures, Exposition::Prometheus);
        let labels = "model_name=\"base\\\"1\\\"\",engine=\"0\"";
        assert!(text.contains(&format!("vllm:num_requests_running{{{labels}}} 2\n")), "{text}");
        assert!(text.contains(&format!("vllm:kv_cache_usage_perc{{{labels}}} 0.25\n")), "{text}");
        assert!(text.contains(&format!("vllm:prompt_tokens_total{{{labels}}} 3\n")), "{text}");
        let loras: Vec<_> =
            text.lines().filter(|line| line.starts_with("vllm:lora_requests_info{")).collect();
        assert_eq!(loras.len(), 1);
        assert!(loras[0].contains("max_lora=\"8\",running_lora_adapters=\"a\""), "{}", loras[0]);
    }
}
