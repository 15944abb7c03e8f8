//! The dashboard in `docker/grafana` asks for metrics that there are, in queries that can be read.
use lorad::telemetry::{METRICS, MetricKind};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path};

/// Title and query of everything that a panel asks Prometheus.
fn queries() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/grafana/dashboards/lorad.json");
    let text = fs::read_to_string(path).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries = panels.iter().flat_map(|panel| {
        let title = panel["title"].as_str().expect("a title");
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(move |target| {
            (title.to_owned(), target["expr"].as_str().expect("a query").to_owned())
        })
    });
    queries.collect()
}

/// The names under which Prometheus knows the table's metrics.
fn series() -> BTreeSet<String> {
    let names = METRICS.iter().flat_map(|metric| {
        let suffixes: &[&str] = match metric.kind {
            MetricKind::Counter => &["_total"],
            MetricKind::Gauge => &[""],
            MetricKind::Histogram => &["_bucket", "_sum", "_count"],
        };
        suffixes.iter().map(|suffix| format!("{}{suffix}", metric.name))
    });
    names.collect()
}

const OPERATORS: [&str; 12] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "offset",
    "and",
    "or",
    "unless",
    "inf",
];

/// The metrics that a query names.
///
/// # Panics
/// When a bracket or a string is not closed.
fn metrics(query: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut open = Vec::new();
    let mut word = String::new();
    // Labels of `by (…)` are in round brackets of their own.
    let mut grouping = false;
    let mut quoted = false;
    for character in query.chars().chain([' ']) {
        if quoted {
            quoted = character != '"';
            continue;
        }
        if character.is_ascii_alphanumeric() || "_:$.".contains(character) {
            word.push(character);
            continue;
        }
        let ended = std::mem::take(&mut word);
        let is_name = ended.starts_with(|first: char| first.is_ascii_alphabetic());
        let in_labels = open.iter().any(|bracket| matches!(bracket, '{' | '[' | 'l'));
        match character {
            '(' => {
                let groups = grouping || OPERATORS.contains(&ended.as_str());
                open.push(if groups { 'l' } else { '(' });
                grouping = false;
                continue;
            }
            ')' => assert!(matches!(open.pop(), Some('(' | 'l')), "{query}"),
            '{' | '[' => open.push(character),
            '}' => assert_eq!(open.pop(), Some('{'), "{query}"),
            ']' => assert_eq!(open.pop(), Some('['), "{query}"),
            '"' => quoted = true,
            _ => {}
        }
        if !is_name || in_labels {
            continue;
        }
        if OPERATORS.contains(&ended.as_str()) {
            grouping = true;
        } else if ended != "sum" && ended != "max" {
            // `sum by (…) (…)`: an aggregation whose round brackets come later.
            names.insert(ended);
        }
    }
    assert!(open.is_empty() && !quoted, "not closed: {query}");
    names
}

#[test]
fn every_panel_asks_for_metrics_that_there_are() {
    let (queries, series) = (queries(), series());
    assert!(queries.len() > 50);
    for (panel, query) in queries {
        let asked = metrics(&query);
        assert!(!asked.is_empty(), "{panel} asks for nothing: {query}");
        let unknown: Vec<_> = asked.difference(&series).collect();
        assert!(unknown.is_empty(), "{panel} asks for {unknown:?}, which there is not: {query}");
    }
}

#[test]
fn what_only_this_server_counts_is_on_the_dashboard() {
    let asked: BTreeSet<_> = queries().iter().flat_map(|(_, query)| metrics(query)).collect();
    let ours = METRICS.iter().map(|metric| metric.name).filter(|name| name.starts_with("lorad_"));
    let missing: Vec<_> =
        ours.filter(|name| !asked.iter().any(|series| series.starts_with(name))).collect();
    assert_eq!(missing, ["lorad_kv_cache_bytes"], "it is a setting, and has no panel");
}

#[test]
fn the_metrics_of_a_query_are_found() {
    let found = metrics(
        r#"topk(20, sum by (le, adapter) (rate(a_total{m=~"b(", n="c"}[$__rate_interval])) / on (x) d:e > 0.5)"#,
    );
    assert_eq!(found, BTreeSet::from(["a_total".to_owned(), "d:e".to_owned()]));
    let broken = std::panic::catch_unwind(|| metrics("sum(rate(a_total[5m])"));
    assert!(broken.is_err());
}

/// What the panels of vLLM's `examples/observability/prometheus_grafana/grafana.json` ask for.
const VLLMS_DASHBOARD: [&str; 20] = [
    "vllm:e2e_request_latency_seconds_bucket",
    "vllm:e2e_request_latency_seconds_count",
    "vllm:e2e_request_latency_seconds_sum",
    "vllm:generation_tokens_total",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:inter_token_latency_seconds_count",
    "vllm:inter_token_latency_seconds_sum",
    "vllm:kv_cache_usage_perc",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:prompt_tokens_total",
    "vllm:request_decode_time_seconds_sum",
    "vllm:request_generation_tokens_bucket",
    "vllm:request_max_num_generation_tokens_sum",
    "vllm:request_prefill_time_seconds_sum",
    "vllm:request_prompt_tokens_bucket",
    "vllm:request_queue_time_seconds_sum",
    "vllm:request_success_total",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:time_to_first_token_seconds_sum",
];

#[test]
fn vllms_own_dashboard_works_unchanged() {
    let series = series();
    let missing: Vec<_> = VLLMS_DASHBOARD.iter().filter(|name| !series.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
