//! Traces as a collector gets them.
use crate::client::{Answer, Script, Server, scripted};
use axum::{Router, body::Bytes, extract::State, routing::post};
use lorad::{
    http::HttpConfig,
    telemetry::{Traces, TracesConfig},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// What OTLP's messages are made of.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message of Protocol Buffers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (first, rest) = bytes.split_first().expect("a number");
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            shift += 7;
            if first & 0x80 == 0 {
                return value;
            }
        }
    }
    fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(length);
        *bytes = rest;
        taken
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => {
                Field::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().expect("8 bytes")))
            }
            2 => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, length))
            }
            5 => {
                let four = take(&mut bytes, 4).try_into().expect("4 bytes");
                Field::Number(u32::from_le_bytes(four).into())
            }
            other => panic!("no such kind of field: {other}"),
        };
        found.push((tag >> 3, field));
    }
    found
}

/// The messages in field `number`.
fn inner(bytes: &[u8], number: u64) -> Vec<&[u8]> {
    let found = fields(bytes).into_iter().filter(|(at, _)| *at == number);
    found
        .filter_map(|(_, field)| if let Field::Bytes(b) = field { Some(b) } else { None })
        .collect()
}

fn text(bytes: &[u8], number: u64) -> String {
    let found =
        inner(bytes, number).first().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    found.unwrap_or_default()
}

fn number(bytes: &[u8], at: u64) -> u64 {
    let found = fields(bytes).into_iter().find_map(|(number, field)| match field {
        Field::Number(value) if number == at => Some(value),
        _ => None,
    });
    found.unwrap_or_default()
}

fn hex(bytes: &[u8], number: u64) -> String {
    let found = inner(bytes, number).first().copied().unwrap_or_default();
    found
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| format!("{digit:x}"))
        .collect::<Vec<_>>()
        .concat()
}

fn value(any: &[u8]) -> String {
    match fields(any).into_iter().next() {
        Some((1, Field::Bytes(text))) => String::from_utf8_lossy(text).into_owned(),
        Some((2, Field::Number(truth))) => (truth == 1).to_string(),
        Some((3, Field::Number(number))) => number.to_string(),
        Some((4, Field::Number(bits))) => f64::from_bits(bits).to_string(),
        Some((5, Field::Bytes(list))) => {
            inner(list, 1).into_iter().map(value).collect::<Vec<_>>().join(",")
        }
        _ => String::new(),
    }
}

fn attributes(message: &[u8], number: u64) -> BTreeMap<String, String> {
    let pair = |pair: &[u8]| (text(pair, 1), value(inner(pair, 2)[0]));
    inner(message, number).into_iter().map(pair).collect()
}

#[derive(Debug)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: u64,
    nanoseconds: u64,
    attributes: BTreeMap<String, String>,
    status: u64,
}

/// A collector, and what it has got.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Vec<u8>>>>);

impl Collector {
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let take = async |State(Collector(got)): State<Self>, body: Bytes| {
            got.lock().expect("no panic").push(body.to_vec());
        };
        let routes = Router::new().route("/v1/traces", post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        url
    }

    fn spans(&self) -> (BTreeMap<String, String>, Vec<Span>) {
        let (mut resource, mut spans) = (BTreeMap::new(), Vec::new());
        for body in self.0.lock().expect("no panic").iter() {
            for of_resource in inner(body, 1) {
                resource.extend(attributes(inner(of_resource, 1)[0], 1));
                let scopes = inner(of_resource, 2);
                spans.extend(scopes.iter().flat_map(|scope| inner(scope, 2)).map(|span| Span {
                    trace: hex(span, 1),
                    id: hex(span, 2),
                    parent: hex(span, 4),
                    name: text(span, 5),
                    kind: number(span, 6),
                    nanoseconds: number(span, 8) - number(span, 7),
                    attributes: attributes(span, 9),
                    status: inner(span, 15).first().map_or(0, |status| number(status, 3)),
                }));
            }
        }
        (resource, spans)
    }
}

async fn traced(script: Script, endpoint: &str) -> (Server, Traces) {
    let config = TracesConfig {
        otlp_endpoint: Some(endpoint.into()),
        otlp_service_name: Some("the-service".into()),
    };
    let traces = tokio::task::spawn_blocking(move || Traces::start(&config)).await;
    let traces = traces.expect("no panic").expect("a way out");
    let app = scripted(script, HttpConfig::default()).with_traces(traces.clone());
    (Server::start(app), traces)
}

async fn finish(traces: Traces) {
    tokio::task::spawn_blocking(move || traces.finish()).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_is_a_span_of_its_callers_trace_and_says_no_word_of_it() {
    let collector = Collector::default();
    let (server, traces) = traced(Script::Echo, &collector.start().await).await;
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let ask = |path: &str, body: serde_json::Value| {
        let request = server.request("POST", path).header("traceparent", &parent);
        Answer::of(request.header("x-request-id", "the-id").json(&body))
    };
    let chat = json!({"messages": [{"role": "user", "content": "the-prompt"}], "max_tokens": 3,
        "stream": true, "temperature": 0.5, "seed": 7, "stop": ["the-stop"], "model": "twin"});
    ask("/v1/chat/completions", chat).await.events();
    ask("/v1/completions", json!({"prompt": "the-prompt", "model": "none"})).await.error(404);
    server.get("/v1/models").await.ok();
    server.get("/health").await;
    finish(traces).await;
    let (resource, spans) = collector.spans();
    assert_eq!(resource["service.name"], "the-service");
    let named = |name: &str| spans.iter().find(|span| span.name == name).expect(name);

    let (outer, inner) = (named("POST /v1/chat/completions"), named("chat twin"));
    assert_eq!((outer.trace.as_str(), outer.parent.as_str()), (TRACE, "b7ad6b7169203331"));
    assert_eq!((&inner.trace, &inner.parent), (&outer.trace, &outer.id));
    assert_eq!((outer.kind, inner.kind, inner.status), (2, 1, 0), "server, internal, unset");
    assert!(outer.nanoseconds > 0);
    assert_eq!(outer.attributes["http.response.status_code"], "200");
    for (name, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "lorad"),
        ("gen_ai.request.model", "twin"),
        ("gen_ai.request.max_tokens", "3"),
        ("gen_ai.request.temperature", "0.5"),
        ("gen_ai.request.seed", "7"),
        ("gen_ai.request.stream", "true"),
        ("gen_ai.response.finish_reasons", "length"),
        ("gen_ai.usage.output_tokens", "3"),
        ("lorad.request.id", "the-id"),
    ] {
        assert_eq!(inner.attributes[name], value, "{name}");
    }
    assert!(inner.attributes["gen_ai.usage.input_tokens"].parse::<u64>().expect("tokens") > 0);
    assert!(inner.attributes.contains_key("gen_ai.response.time_to_first_chunk"));

    let failed = named("text_completion none");
    assert_eq!((failed.status, failed.attributes["error.type"].as_str()), (2, "model_not_found"));
    assert_eq!(named("GET /v1/models").parent, "", "a trace of its own");
    assert!(!spans.iter().any(|span| span.name.contains("health")), "probes leave none");
    let bodies = collector.0.lock().expect("no panic").concat();
    let all = String::from_utf8_lossy(&bodies);
    assert!(!all.contains("the-prompt") && !all.contains("the-stop"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_is_a_span_of_its_own_kind() {
    let collector = Collector::default();
    let (server, traces) = traced(Script::Echo, &collector.start().await).await;
    for (path, body) in [
        ("/v1/embeddings", json!({"input": "the-text", "model": "twin"})),
        ("/classify", json!({"input": "the-text", "model": "twin"})),
        ("/score", json!({"text_1": "the-text", "text_2": "b", "model": "twin"})),
        ("/rerank", json!({"query": "the-text", "documents": ["b"], "model": "twin"})),
    ] {
        server.post(path, &body).await.error(400);
    }
    finish(traces).await;
    let (_, spans) = collector.spans();
    for operation in ["embeddings", "classify", "score", "rerank"] {
        let name = format!("{operation} twin");
        let span = spans.iter().find(|span| span.name == name).expect(operation);
        assert_eq!(span.attributes["gen_ai.operation.name"], operation);
        assert!(!span.attributes["error.type"].is_empty(), "this base does not read");
    }
    let bodies = collector.0.lock().expect("no panic").concat();
    assert!(!String::from_utf8_lossy(&bodies).contains("the-text"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_samples_nothing_gets_nothing_sampled() {
    let collector = Collector::default();
    let (server, traces) = traced(Script::Echo, &collector.start().await).await;
    let request = server.request("POST", "/v1/completions").json(&json!({"prompt": "a"}));
    let unsampled = format!("00-{TRACE}-b7ad6b7169203331-00");
    Answer::of(request.header("traceparent", unsampled)).await.ok();
    finish(traces).await;
    assert!(collector.spans().1.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_collector_that_is_not_there() {
    let (server, traces) = traced(Script::Echo, "http://127.0.0.1:9").await;
    let begun = Instant::now();
    for _ in 0..50 {
        server.post("/v1/completions", &json!({"prompt": "a", "max_tokens": 1})).await.ok();
    }
    finish(traces).await;
    assert!(begun.elapsed() < Duration::from_secs(30));
}
