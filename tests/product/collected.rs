//! OpenTelemetry's own variables, and the last spans of a program that ends.
use crate::program::Program;
use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use reqwest::Client;
use serde_json::json;
use std::{
    process::Stdio,
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;

type Batches = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A collector's address, and what it has got.
async fn collector() -> (String, Batches) {
    let (listener, got) =
        (TcpListener::bind(("127.0.0.1", 0)).await.expect("a port"), Batches::default());
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let take = async |State(got): State<Batches>, headers: HeaderMap, body: Bytes| {
        got.lock().expect("no panic").push((headers, body));
    };
    let routes = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&got));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (url, got)
}

/// Serves one request and ends; the exit status.
async fn serve_one(variables: &[(&str, &str)]) -> Option<i32> {
    // Until the end nothing is due.
    let variables = [variables, &[("OTEL_BSP_SCHEDULE_DELAY", "600000")]].concat();
    let mut program =
        Program::begin_with(&["--log-level", "warn"], &variables, Stdio::null(), "http");
    let client = Client::new();
    program.wait(&client).await;
    let request = client.post(format!("{}/v1/completions", program.url));
    let answer = request.json(&json!({"prompt": "a", "max_tokens": 1})).send().await;
    assert!(answer.expect("an answer").status().is_success());
    program.signal("TERM");
    program.ended().await.code()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_usual_variables_are_heard_and_the_last_spans_are_sent() {
    let (url, got) = collector().await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=the-tenant"),
        ("OTEL_SERVICE_NAME", "the-service"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=the-stage"),
    ];
    assert_eq!(serve_one(&variables).await, Some(0));
    let got = got.lock().expect("no panic");
    assert!(!got.is_empty(), "the spans came with the end");
    assert!(got.iter().all(|(headers, _)| headers["x-tenant"] == "the-tenant"));
    assert!(got.iter().all(|(headers, _)| headers["content-type"] == "application/x-protobuf"));
    let all = got.iter().map(|(_, body)| String::from_utf8_lossy(body)).collect::<String>();
    for text in
        ["the-service", "the-stage", "text_completion newsdesk", "gen_ai.usage.input_tokens"]
    {
        assert!(all.contains(text), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sampler_that_wants_none_and_a_switched_off_sdk_send_none() {
    let (url, got) = collector().await;
    let endpoint = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{url}/v1/traces"));
    let endpoint = (endpoint.0, endpoint.1.as_str());
    for variables in [
        &[endpoint, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")][..],
        &[endpoint, ("OTEL_SDK_DISABLED", "true")],
        &[endpoint, ("OTEL_TRACES_EXPORTER", "none")],
    ] {
        assert_eq!(serve_one(variables).await, Some(0));
        assert!(got.lock().expect("no panic").is_empty(), "{variables:?}");
    }
}
