//! Records what happens and writes it down for Prometheus.
use super::metrics::{
    FIRST_TOKEN_BUCKETS, HTTP_BUCKETS, INTER_TOKEN_BUCKETS, LATENCY_BUCKETS, METRICS, MetricKind,
    TOKEN_BUCKETS,
};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Adapters with a series of their own in `lorad_requests`; later ones share `_other`.
const MAX_ADAPTER_SERIES: usize = 256;

type Ratio = Gauge<f64, AtomicU64>;
type Labels = Vec<(&'static str, String)>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// How an answer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The model or a stop condition ended it.
    Stop,
    /// The token limit ended it.
    Length,
    /// The client left.
    Abort,
    /// It failed.
    Error,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
            Self::Error => "error",
        }
    }
}

/// Which of the two text formats to write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exposition {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

/// The engine's own numbers, taken when somebody asks.
#[derive(Clone, Debug, Default)]
pub struct EngineFigures {
    /// Sequences in the batch.
    pub running: usize,
    /// Sequences that wait.
    pub waiting: usize,
    /// KV blocks in use.
    pub kv_blocks_used: usize,
    /// All KV blocks.
    pub kv_blocks: usize,
    /// Tokens a block holds.
    pub block_size: usize,
    /// Bytes of the KV cache.
    pub kv_bytes: usize,
    /// Steps since the start.
    pub steps: u64,
    /// Of these, failed.
    pub failed_steps: u64,
    /// Sequences put back.
    pub preemptions: u64,
    /// Prompt tokens computed.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Prompt tokens found there.
    pub prefix_hits: u64,
    /// Adapters in device memory.
    pub resident_adapters: Vec<String>,
    /// Adapters that waiting sequences want.
    pub waiting_adapters: Vec<String>,
    /// Adapter slots there are.
    pub adapter_slots: usize,
    /// Adapters that requests can name.
    pub adapters: usize,
}

/// Every metric of the process. Clones share the numbers.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    /// Held while the gauges of one scrape are set and written, so that scrapes do not mix.
    registry: Mutex<Registry>,
    engine: EngineSeries,
    requests: RequestSeries,
    http: HttpSeries,
    adapter_changes: Family<Labels, Counter>,
}

struct EngineSeries {
    running: Gauge,
    waiting: Gauge,
    kv_usage: Ratio,
    cache_config: Family<Labels, Gauge>,
    lora_info: Family<Labels, Ratio>,
    prompt_tokens: Counter,
    generated_tokens: Counter,
    prefix_queries: Counter,
    prefix_hits: Counter,
    preemptions: Counter,
    adapters: Gauge,
    adapters_resident: Gauge,
    kv_bytes: Gauge,
    steps: Counter,
    failed_steps: Counter,
}

struct RequestSeries {
    accepted: Family<Labels, Counter>,
    adapter_series: AtomicUsize,
    finished: Family<Labels, Counter>,
    first_token: Histogram,
    inter_token: Histogram,
    latency: Histogram,
    queued: Histogram,
    prompt_tokens: Histogram,
    generated_tokens: Histogram,
}

struct HttpSeries {
    responses: Family<Labels, Counter>,
    duration: Histograms,
}

impl Metrics {
    /// All metrics at zero; `model_name` becomes the label that vLLM's dashboards filter by.
    pub fn new(model_name: &str) -> Self {
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
        let requests = RequestSeries::register(of_model);
        let registry = Mutex::new(registry);
        Self(Arc::new(Inner { registry, engine, requests, http, adapter_changes }))
    }

    /// A request was accepted; `None` is the base model.
    pub fn request_started(&self, adapter: Option<&str>) {
        let accepted = &self.0.requests.accepted;
        let labels = vec![("adapter", adapter.unwrap_or_default().to_owned())];
        if let Some(known) = accepted.get(&labels) {
            known.inc();
            return;
        }
        // Two racing firsts of one adapter take two places: the limit bounds series, it counts none.
        let taken = self.0.requests.adapter_series.fetch_add(1, Ordering::Relaxed);
        if taken < MAX_ADAPTER_SERIES {
            accepted.get_or_create(&labels).inc();
        } else {
            accepted.get_or_create(&vec![("adapter", "_other".into())]).inc();
        }
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

    /// An answer ended, `elapsed` after its submission.
    pub fn finished(&self, outcome: Outcome, prompt: usize, generated: usize, elapsed: Duration) {
        let requests = &self.0.requests;
        let reason = vec![("finished_reason", outcome.label().to_owned())];
        requests.finished.get_or_create(&reason).inc();
        requests.prompt_tokens.observe(prompt as f64);
        requests.generated_tokens.observe(generated as f64);
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
        match format {
            Exposition::OpenMetrics => text,
            Exposition::Prometheus => as_prometheus(&text),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl EngineSeries {
    fn register(registry: &mut Registry) -> Self {
        let r = registry;
        let kv_usage = add(r, "vllm:kv_cache_usage_perc", Ratio::default());
        add(r, "vllm:gpu_cache_usage_perc", kv_usage.clone());
        Self {
            kv_usage,
            running: add(r, "vllm:num_requests_running", Gauge::default()),
            waiting: add(r, "vllm:num_requests_waiting", Gauge::default()),
            cache_config: add(r, "vllm:cache_config_info", Family::default()),
            lora_info: add(r, "vllm:lora_requests_info", Family::default()),
            prompt_tokens: add(r, "vllm:prompt_tokens", Counter::default()),
            generated_tokens: add(r, "vllm:generation_tokens", Counter::default()),
            prefix_queries: add(r, "vllm:prefix_cache_queries", Counter::default()),
            prefix_hits: add(r, "vllm:prefix_cache_hits", Counter::default()),
            preemptions: add(r, "vllm:num_preemptions", Counter::default()),
            adapters: add(r, "lorad_adapters", Gauge::default()),
            adapters_resident: add(r, "lorad_adapters_resident", Gauge::default()),
            kv_bytes: add(r, "lorad_kv_cache_bytes", Gauge::default()),
            steps: add(r, "lorad_steps", Counter::default()),
            failed_steps: add(r, "lorad_failed_steps", Counter::default()),
        }
    }

    fn set(&self, figures: &EngineFigures) {
        self.running.set(figures.running as i64);
        self.waiting.set(figures.waiting as i64);
        self.kv_usage.set(figures.kv_blocks_used as f64 / figures.kv_blocks.max(1) as f64);
        self.adapters.set(figures.adapters as i64);
        self.adapters_resident.set(figures.resident_adapters.len() as i64);
        self.kv_bytes.set(figures.kv_bytes as i64);
        for (counter, total) in [
            (&self.prompt_tokens, figures.prompt_tokens),
            (&self.generated_tokens, figures.generated_tokens),
            (&self.prefix_queries, figures.prefix_queries),
            (&self.prefix_hits, figures.prefix_hits),
            (&self.preemptions, figures.preemptions),
            (&self.steps, figures.steps),
            (&self.failed_steps, figures.failed_steps),
        ] {
            counter.inner().store(total, Ordering::Relaxed);
        }
        self.set_info(figures);
    }

    /// Series whose labels carry the news: the previous label set must go, or gateways read both.
    fn set_info(&self, figures: &EngineFigures) {
        self.cache_config.clear();
        let config = vec![
            ("block_size", figures.block_size.to_string()),
            ("num_gpu_blocks", figures.kv_blocks.to_string()),
        ];
        self.cache_config.get_or_create(&config).set(1);
        self.lora_info.clear();
        let loras = vec![
            ("max_lora", figures.adapter_slots.to_string()),
            ("running_lora_adapters", figures.resident_adapters.join(",")),
            ("waiting_lora_adapters", figures.waiting_adapters.join(",")),
        ];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.lora_info.get_or_create(&loras).set(now.as_secs_f64());
    }
}

impl RequestSeries {
    fn register(registry: &mut Registry) -> Self {
        let r = registry;
        Self {
            accepted: add(r, "lorad_requests", Family::default()),
            adapter_series: AtomicUsize::new(0),
            finished: add(r, "vllm:request_success", Family::default()),
            first_token: add_histogram(r, "vllm:time_to_first_token_seconds", &FIRST_TOKEN_BUCKETS),
            inter_token: add_histogram(r, "vllm:inter_token_latency_seconds", &INTER_TOKEN_BUCKETS),
            latency: add_histogram(r, "vllm:e2e_request_latency_seconds", &LATENCY_BUCKETS),
            queued: add_histogram(r, "vllm:request_queue_time_seconds", &LATENCY_BUCKETS),
            prompt_tokens: add_histogram(r, "vllm:request_prompt_tokens", &TOKEN_BUCKETS),
            generated_tokens: add_histogram(r, "vllm:request_generation_tokens", &TOKEN_BUCKETS),
        }
    }
}

impl HttpSeries {
    fn register(registry: &mut Registry) -> Self {
        let duration = Histograms::new_with_constructor(|| Histogram::new(HTTP_BUCKETS));
        Self {
            responses: add(registry, "http_requests", Family::default()),
            duration: add(registry, "http_request_duration_seconds", duration),
        }
    }
}

fn add<M>(registry: &mut Registry, name: &'static str, metric: M) -> M
where
    M: prometheus_client::registry::Metric + Clone,
{
    let info = METRICS.iter().find(|info| info.name == name);
    let info = info.expect("every metric has its line in METRICS");
    registry.register(name, info.help, metric.clone());
    metric
}

fn add_histogram(registry: &mut Registry, name: &'static str, buckets: &[f64]) -> Histogram {
    add(registry, name, Histogram::new(buckets.iter().copied()))
}

/// The older format names a counter's family with its `_total`, and knows no end mark.
fn as_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let family = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        match family.and_then(|family| family.split_once(' ')) {
            Some((name, rest)) if is_counter(name) => {
                text.push_str(&line[..7]);
                text.push_str(name);
                text.push_str("_total ");
                text.push_str(rest);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

fn is_counter(name: &str) -> bool {
    METRICS.iter().any(|info| info.name == name && info.kind == MetricKind::Counter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> (Metrics, EngineFigures) {
        let metrics = Metrics::new("base\"1\"");
        metrics.request_started(Some("rate"));
        metrics.queued(Duration::from_millis(1));
        metrics.first_token(Duration::from_millis(2));
        metrics.inter_token(Duration::from_millis(3));
        metrics.finished(Outcome::Stop, 3, 2, Duration::from_millis(9));
        metrics.adapter_changed("created");
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

    #[test]
    fn thousands_of_adapters_do_not_make_thousands_of_series() {
        let metrics = Metrics::new("base");
        for index in 0..2 * MAX_ADAPTER_SERIES {
            metrics.request_started(Some(&format!("adapter-{index}")));
        }
        let text = metrics.expose(&EngineFigures::default(), Exposition::Prometheus);
        let series = text.lines().filter(|line| line.starts_with("lorad_requests_total")).count();
        assert_eq!(series, MAX_ADAPTER_SERIES + 1);
    }
}
