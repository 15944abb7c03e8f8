//! Every metric the server exposes, in one table.
//!
//! Names that begin with `vllm:` are vLLM's, letter for letter and with its meaning, because gateways,
//! autoscalers and dashboards read those. What vLLM has no name for begins with `lorad_`.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MetricKind {
    /// Only rises. The exposition adds `_total` to its name.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

/// One line of [`METRICS`].
#[derive(Clone, Copy, Debug)]
pub struct MetricInfo {
    /// As Prometheus knows it, a counter without its `_total`.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// What one stands for.
    pub unit: &'static str,
    /// One sentence, without a full stop.
    pub help: &'static str,
}

const fn counter(name: &'static str, unit: &'static str, help: &'static str) -> MetricInfo {
    MetricInfo { name, kind: MetricKind::Counter, unit, help }
}

const fn gauge(name: &'static str, unit: &'static str, help: &'static str) -> MetricInfo {
    MetricInfo { name, kind: MetricKind::Gauge, unit, help }
}

const fn histogram(name: &'static str, unit: &'static str, help: &'static str) -> MetricInfo {
    MetricInfo { name, kind: MetricKind::Histogram, unit, help }
}

/// The table. Each line is registered exactly once, and nothing that is not here: a test compares.
pub const METRICS: &[MetricInfo] = &[
    gauge("vllm:num_requests_running", "requests", "Sequences in the running batch"),
    gauge("vllm:num_requests_waiting", "requests", "Sequences that wait for a place in the batch"),
    gauge(
        "vllm:num_requests_waiting_by_reason",
        "requests",
        "The same by reason: capacity, or deferred for an adapter that is not in device memory",
    ),
    gauge("vllm:kv_cache_usage_perc", "ratio", "Share of the KV cache in use, 0 to 1"),
    gauge("vllm:gpu_cache_usage_perc", "ratio", "Older name of vllm:kv_cache_usage_perc"),
    gauge("vllm:cache_config_info", "none", "Block size and block count of the KV cache as labels"),
    gauge(
        "vllm:lora_requests_info",
        "unix seconds",
        "Adapters in device memory, adapters waited for and slots as labels; the value is the time of the scrape",
    ),
    counter("vllm:prompt_tokens", "tokens", "Prompt tokens computed"),
    counter("vllm:prompt_tokens_cached", "tokens", "Prompt tokens that the prefix cache had"),
    counter(
        "vllm:prompt_tokens_by_source",
        "tokens",
        "Prompt tokens by source: local_compute or local_cache_hit",
    ),
    counter("vllm:generation_tokens", "tokens", "Tokens generated"),
    counter("vllm:prefix_cache_queries", "tokens", "Prompt tokens looked up in the prefix cache"),
    counter("vllm:prefix_cache_hits", "tokens", "Prompt tokens found in the prefix cache"),
    counter("vllm:gpu_prefix_cache_queries", "tokens", "Older name of vllm:prefix_cache_queries"),
    counter("vllm:gpu_prefix_cache_hits", "tokens", "Older name of vllm:prefix_cache_hits"),
    counter("vllm:spec_decode_num_draft_tokens", "tokens", "Tokens guessed ahead"),
    counter("vllm:spec_decode_num_accepted_tokens", "tokens", "Guessed tokens that were right"),
    counter("vllm:num_preemptions", "sequences", "Sequences put back because KV blocks ran out"),
    counter("vllm:request_success", "requests", "Answers ended, by reason"),
    counter(
        "vllm:admission_rejections",
        "requests",
        "Requests refused for the server's load or state, by reason: queue_full, draining and so on",
    ),
    counter(
        "vllm:corrupted_requests",
        "requests",
        "Answers that ended because the model's output was not a number",
    ),
    histogram("vllm:time_to_first_token_seconds", "seconds", "From submission to the first token"),
    histogram("vllm:inter_token_latency_seconds", "seconds", "Between one token and the next"),
    histogram("vllm:e2e_request_latency_seconds", "seconds", "From submission to the last token"),
    histogram("vllm:request_queue_time_seconds", "seconds", "From submission to the first step"),
    histogram(
        "vllm:request_time_per_output_token_seconds",
        "seconds",
        "Mean time between the tokens of an answer",
    ),
    histogram(
        "vllm:request_prefill_time_seconds",
        "seconds",
        "From the first step to the first token",
    ),
    histogram("vllm:request_decode_time_seconds", "seconds", "From the first token to the last"),
    histogram(
        "vllm:request_inference_time_seconds",
        "seconds",
        "From the first step to the last token",
    ),
    histogram("vllm:request_prompt_tokens", "tokens", "Prompt tokens of a request"),
    histogram("vllm:request_generation_tokens", "tokens", "Tokens generated for an answer"),
    histogram(
        "vllm:request_max_num_generation_tokens",
        "tokens",
        "Tokens of the longest answer to a prompt",
    ),
    histogram("vllm:request_params_n", "answers", "Answers that a request asks for"),
    histogram("vllm:request_params_max_tokens", "tokens", "Most tokens that an answer may have"),
    histogram("vllm:iteration_tokens_total", "tokens", "Tokens of a forward pass"),
    counter(
        "lorad_requests",
        "requests",
        "Requests accepted, by adapter; a mix counts under each of its adapters, empty is the base model",
    ),
    counter(
        "lorad_adapter_prompt_tokens",
        "tokens",
        "Prompt tokens of accepted requests, by adapter",
    ),
    counter("lorad_adapter_generated_tokens", "tokens", "Tokens generated, by adapter"),
    counter("lorad_adapter_errors", "answers", "Answers that failed, by adapter"),
    histogram(
        "lorad_adapter_first_token_seconds",
        "seconds",
        "From submission to the first token, by adapter",
    ),
    gauge("lorad_adapters", "adapters", "Adapters that requests can name"),
    gauge("lorad_adapters_warm", "versions", "Versions of adapters in host memory"),
    gauge("lorad_adapters_resident", "adapters", "Adapters in device memory"),
    gauge(
        "lorad_adapter_slots_used",
        "slots",
        "Adapter slots that hold an adapter or are about to",
    ),
    gauge(
        "lorad_adapter_bytes",
        "bytes",
        "Memory that adapters hold, by tier: device (in slots) or host",
    ),
    counter(
        "lorad_adapter_reads",
        "versions",
        "Versions of adapters read from the store on demand",
    ),
    counter("lorad_adapter_loads", "adapters", "Adapters brought into a slot"),
    counter(
        "lorad_adapter_prefetches",
        "adapters",
        "Adapters brought into a slot before the batch had room for whoever needs them",
    ),
    counter(
        "lorad_failed_adapter_loads",
        "adapters",
        "Adapters that could not be brought into a slot",
    ),
    counter(
        "lorad_adapter_load_seconds",
        "seconds",
        "Time that loads took; divided by lorad_adapter_loads_total, that of one",
    ),
    counter(
        "lorad_adapter_evictions",
        "adapters",
        "Adapters that made room for others, by tier: device (in slots) or host",
    ),
    gauge("lorad_kv_cache_bytes", "bytes", "Size of the KV cache"),
    counter("lorad_steps", "steps", "Forward passes"),
    counter("lorad_failed_steps", "steps", "Forward passes that failed"),
    counter(
        "lorad_non_finite_outputs",
        "requests",
        "Answers that ended because the model's output was not a number",
    ),
    counter(
        "lorad_adapter_changes",
        "changes",
        "Adapters published, replaced, retired or rejected",
    ),
    counter(
        "lorad_alias_requests",
        "requests",
        "Requests that an alias sent on, by alias and target",
    ),
    counter(
        "lorad_alias_errors",
        "requests",
        "Of these, failed by the server, by alias, target and reason: error or non_finite",
    ),
    counter(
        "lorad_alias_changes",
        "changes",
        "Aliases changed by this server, by alias and action; flipped_back is a guard's",
    ),
    counter(
        "lorad_shadow_requests",
        "requests",
        "Requests that were to go to a shadow too, by alias and outcome: done, failed, skipped or cancelled",
    ),
    counter(
        "lorad_shadow_compared",
        "answers",
        "Greedy answers compared with their shadow's, by alias and result: same or different",
    ),
    histogram(
        "lorad_shadow_first_token_seconds",
        "seconds",
        "From submission to the first token where there is a shadow, by alias and of: answer or shadow",
    ),
    counter(
        "lorad_grammar_compiles",
        "forms",
        "Forms of answers compiled, by result: ok, invalid, too_complex, busy or error",
    ),
    histogram(
        "lorad_grammar_compile_seconds",
        "seconds",
        "From the wish to compile a form of answers to the result",
    ),
    counter(
        "lorad_grammar_cache_hits",
        "requests",
        "Requests whose form of answers was compiled already, or just being compiled",
    ),
    counter("lorad_constrained_answers", "answers", "Answers bound to a form"),
    gauge("lorad_build_info", "none", "1, with the version as a label"),
    counter("http_requests", "requests", "HTTP responses, by route, method and status"),
    histogram(
        "http_request_duration_seconds",
        "seconds",
        "From request to response head, by route",
    ),
];

/// vLLM's buckets for the time to the first token, seconds.
pub(super) const FIRST_TOKEN_BUCKETS: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];

/// A coarser choice of those, for each adapter's own.
pub(super) const ADAPTER_FIRST_TOKEN_BUCKETS: [f64; 8] =
    [0.01, 0.04, 0.1, 0.25, 1.0, 2.5, 10.0, 40.0];

/// Buckets for compiling a form of answers, seconds; the last is its time limit.
pub(super) const GRAMMAR_BUCKETS: [f64; 9] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// vLLM's buckets for the time between tokens, seconds.
pub(super) const INTER_TOKEN_BUCKETS: [f64; 19] = [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];

/// vLLM's buckets for whole requests, seconds.
pub(super) const LATENCY_BUCKETS: [f64; 21] = [
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];

/// vLLM's buckets for answers of a request.
pub(super) const ANSWER_BUCKETS: [f64; 5] = [1.0, 2.0, 5.0, 10.0, 20.0];

/// vLLM's buckets for counts of tokens: 1, 2, 5, 10 and so on, up to the longest sequence.
pub(super) fn token_buckets(most: usize) -> Vec<f64> {
    let decades = (0..).map(|power| 10_f64.powi(power));
    let steps = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * decade));
    steps.take_while(|bound| *bound <= most.max(1) as f64).collect()
}

/// Buckets for HTTP responses, seconds.
pub(super) const HTTP_BUCKETS: [f64; 13] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];
