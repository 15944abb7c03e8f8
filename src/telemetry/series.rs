//! Every series, registered under its line of [`METRICS`].
use super::{
    EngineFigures, Outcome,
    metrics::{
        ANSWER_BUCKETS, FIRST_TOKEN_BUCKETS, HTTP_BUCKETS, INTER_TOKEN_BUCKETS, LATENCY_BUCKETS,
        METRICS, token_buckets,
    },
    steps::StepHistogram,
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

type Ratio = Gauge<f64, AtomicU64>;
pub(super) type Labels = Vec<(&'static str, String)>;
pub(super) type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// The engine's own numbers, set at each scrape.
pub(super) struct EngineSeries {
    running: Gauge,
    waiting: Gauge,
    waiting_by_reason: Family<Labels, Gauge>,
    kv_usage: Ratio,
    cache_config: Family<Labels, Gauge>,
    lora_info: Family<Labels, Ratio>,
    prompt_tokens: Counter,
    generated_tokens: Counter,
    draft_tokens: Counter,
    accepted_draft_tokens: Counter,
    prefix_queries: Counter,
    prefix_hits: Counter,
    prompt_sources: Family<Labels, Counter>,
    step_tokens: StepHistogram,
    preemptions: Counter,
    adapters: Gauge,
    adapters_warm: Gauge,
    adapters_resident: Gauge,
    adapter_bytes: Family<Labels, Gauge>,
    adapter_reads: Counter,
    adapter_evictions: Family<Labels, Counter>,
    kv_bytes: Gauge,
    steps: Counter,
    failed_steps: Counter,
    non_finite_outputs: Counter,
    slots_used: Gauge,
    loads: Counter,
    prefetches: Counter,
    failed_loads: Counter,
    load_seconds: Counter<f64, AtomicU64>,
}

/// What happens to requests, recorded when it does.
pub(super) struct RequestSeries {
    pub(super) finished: Family<Labels, Counter>,
    pub(super) first_token: Histogram,
    pub(super) inter_token: Histogram,
    pub(super) latency: Histogram,
    pub(super) queued: Histogram,
    pub(super) per_token: Histogram,
    pub(super) prefill: Histogram,
    pub(super) decode: Histogram,
    pub(super) inference: Histogram,
    pub(super) prompt_tokens: Histogram,
    pub(super) generated_tokens: Histogram,
    pub(super) longest_answer: Histogram,
    pub(super) asked_answers: Histogram,
    pub(super) asked_tokens: Histogram,
    pub(super) refused: Family<Labels, Counter>,
}

/// Responses by route.
pub(super) struct HttpSeries {
    pub(super) responses: Family<Labels, Counter>,
    pub(super) duration: Histograms,
}

impl EngineSeries {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let r = registry;
        let kv_usage = add(r, "vllm:kv_cache_usage_perc", Ratio::default());
        add(r, "vllm:gpu_cache_usage_perc", kv_usage.clone());
        let prefix_queries = add(r, "vllm:prefix_cache_queries", Counter::default());
        add(r, "vllm:gpu_prefix_cache_queries", prefix_queries.clone());
        let prefix_hits = add(r, "vllm:prefix_cache_hits", Counter::default());
        add(r, "vllm:gpu_prefix_cache_hits", prefix_hits.clone());
        add(r, "vllm:prompt_tokens_cached", prefix_hits.clone());
        let non_finite_outputs = add(r, "lorad_non_finite_outputs", Counter::default());
        add(r, "vllm:corrupted_requests", non_finite_outputs.clone());
        Self {
            kv_usage,
            running: add(r, "vllm:num_requests_running", Gauge::default()),
            waiting: add(r, "vllm:num_requests_waiting", Gauge::default()),
            waiting_by_reason: add(r, "vllm:num_requests_waiting_by_reason", Family::default()),
            cache_config: add(r, "vllm:cache_config_info", Family::default()),
            lora_info: add(r, "vllm:lora_requests_info", Family::default()),
            prompt_tokens: add(r, "vllm:prompt_tokens", Counter::default()),
            generated_tokens: add(r, "vllm:generation_tokens", Counter::default()),
            draft_tokens: add(r, "vllm:spec_decode_num_draft_tokens", Counter::default()),
            accepted_draft_tokens: add(
                r,
                "vllm:spec_decode_num_accepted_tokens",
                Counter::default(),
            ),
            prefix_queries,
            prefix_hits,
            prompt_sources: add(r, "vllm:prompt_tokens_by_source", Family::default()),
            step_tokens: add(r, "vllm:iteration_tokens_total", StepHistogram::default()),
            preemptions: add(r, "vllm:num_preemptions", Counter::default()),
            adapters: add(r, "lorad_adapters", Gauge::default()),
            adapters_warm: add(r, "lorad_adapters_warm", Gauge::default()),
            adapters_resident: add(r, "lorad_adapters_resident", Gauge::default()),
            adapter_bytes: add(r, "lorad_adapter_bytes", Family::default()),
            adapter_reads: add(r, "lorad_adapter_reads", Counter::default()),
            adapter_evictions: add(r, "lorad_adapter_evictions", Family::default()),
            kv_bytes: add(r, "lorad_kv_cache_bytes", Gauge::default()),
            steps: add(r, "lorad_steps", Counter::default()),
            failed_steps: add(r, "lorad_failed_steps", Counter::default()),
            non_finite_outputs,
            slots_used: add(r, "lorad_adapter_slots_used", Gauge::default()),
            loads: add(r, "lorad_adapter_loads", Counter::default()),
            prefetches: add(r, "lorad_adapter_prefetches", Counter::default()),
            failed_loads: add(r, "lorad_failed_adapter_loads", Counter::default()),
            load_seconds: add(r, "lorad_adapter_load_seconds", Counter::default()),
        }
    }

    pub(super) fn set(&self, figures: &EngineFigures) {
        self.running.set(figures.running as i64);
        self.waiting.set(figures.waiting as i64);
        let deferred = figures.waiting_for_adapters.min(figures.waiting);
        for (reason, waiting) in [("capacity", figures.waiting - deferred), ("deferred", deferred)]
        {
            let reason = vec![("reason", reason.to_owned())];
            self.waiting_by_reason.get_or_create(&reason).set(waiting as i64);
        }
        self.kv_usage.set(figures.kv_blocks_used as f64 / figures.kv_blocks.max(1) as f64);
        self.adapters.set(figures.adapters as i64);
        self.adapters_warm.set(figures.warm_adapters as i64);
        self.adapters_resident.set(figures.resident_adapters.len() as i64);
        self.kv_bytes.set(figures.kv_bytes as i64);
        self.slots_used.set(figures.adapter_slots_used as i64);
        let seconds = figures.adapter_load_seconds.to_bits();
        self.load_seconds.inner().store(seconds, Ordering::Relaxed);
        for (counter, total) in [
            (&self.prompt_tokens, figures.prompt_tokens),
            (&self.generated_tokens, figures.generated_tokens),
            (&self.draft_tokens, figures.draft_tokens),
            (&self.accepted_draft_tokens, figures.accepted_draft_tokens),
            (&self.prefix_queries, figures.prefix_queries),
            (&self.prefix_hits, figures.prefix_hits),
            (&self.preemptions, figures.preemptions),
            (&self.steps, figures.steps),
            (&self.failed_steps, figures.failed_steps),
            (&self.non_finite_outputs, figures.non_finite_outputs),
            (&self.loads, figures.adapter_loads),
            (&self.prefetches, figures.adapter_prefetches),
            (&self.failed_loads, figures.failed_adapter_loads),
            (&self.adapter_reads, figures.adapter_reads),
        ] {
            counter.inner().store(total, Ordering::Relaxed);
        }
        for (source, tokens) in
            [("local_compute", figures.prompt_tokens), ("local_cache_hit", figures.prefix_hits)]
        {
            let source = vec![("source", source.to_owned())];
            self.prompt_sources.get_or_create(&source).inner().store(tokens, Ordering::Relaxed);
        }
        self.step_tokens.set(&figures.step_tokens);
        self.set_tiers(figures);
        self.set_info(figures);
    }

    fn set_tiers(&self, figures: &EngineFigures) {
        for (tier, bytes, evictions) in [
            ("device", figures.adapter_bytes as u64, figures.adapter_evictions),
            ("host", figures.warm_bytes, figures.warm_evictions),
        ] {
            let tier = vec![("tier", tier.into())];
            self.adapter_bytes.get_or_create(&tier).set(bytes as i64);
            self.adapter_evictions.get_or_create(&tier).inner().store(evictions, Ordering::Relaxed);
        }
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
    pub(super) fn register(registry: &mut Registry, max_tokens: usize) -> Self {
        let r = registry;
        let tokens = token_buckets(max_tokens);
        let finished: Family<Labels, Counter> = add(r, "vllm:request_success", Family::default());
        // A rate can be told from the first one on only where there was a zero before.
        for outcome in Outcome::ALL {
            drop(finished.get_or_create(&vec![("finished_reason", outcome.label().to_owned())]));
        }
        Self {
            finished,
            first_token: add_histogram(r, "vllm:time_to_first_token_seconds", &FIRST_TOKEN_BUCKETS),
            inter_token: add_histogram(r, "vllm:inter_token_latency_seconds", &INTER_TOKEN_BUCKETS),
            latency: add_histogram(r, "vllm:e2e_request_latency_seconds", &LATENCY_BUCKETS),
            queued: add_histogram(r, "vllm:request_queue_time_seconds", &LATENCY_BUCKETS),
            per_token: add_histogram(
                r,
                "vllm:request_time_per_output_token_seconds",
                &INTER_TOKEN_BUCKETS,
            ),
            prefill: add_histogram(r, "vllm:request_prefill_time_seconds", &LATENCY_BUCKETS),
            decode: add_histogram(r, "vllm:request_decode_time_seconds", &LATENCY_BUCKETS),
            inference: add_histogram(r, "vllm:request_inference_time_seconds", &LATENCY_BUCKETS),
            prompt_tokens: add_histogram(r, "vllm:request_prompt_tokens", &tokens),
            generated_tokens: add_histogram(r, "vllm:request_generation_tokens", &tokens),
            longest_answer: add_histogram(r, "vllm:request_max_num_generation_tokens", &tokens),
            asked_answers: add_histogram(r, "vllm:request_params_n", &ANSWER_BUCKETS),
            asked_tokens: add_histogram(r, "vllm:request_params_max_tokens", &tokens),
            refused: add(r, "vllm:admission_rejections", Family::default()),
        }
    }
}

impl HttpSeries {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let duration = Histograms::new_with_constructor(|| Histogram::new(HTTP_BUCKETS));
        Self {
            responses: add(registry, "http_requests", Family::default()),
            duration: add(registry, "http_request_duration_seconds", duration),
        }
    }
}

pub(super) fn add<M>(registry: &mut Registry, name: &'static str, metric: M) -> M
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
