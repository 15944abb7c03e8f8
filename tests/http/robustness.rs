//! Whatever clients and engines do: a right status, no panic, and the next request is answered.
use crate::client::{Answer, Script, Server, on_this_machine, scripted};
use axum::{
    body::{Body, Bytes},
    http::Request,
};
use futures_util::stream;
use lorad::{
    engine::{EngineError, Event},
    http::{HttpConfig, ROUTES},
};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use std::{convert::Infallible, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc::unbounded_channel,
};
use tower::ServiceExt;

fn server(script: Script) -> Server {
    Server::start(scripted(script, HttpConfig::default()))
}

async fn still_answers(server: &Server) {
    let body = json!({"prompt": "a", "max_tokens": 2});
    assert_eq!(server.post("/v1/completions", &body).await.ok()["usage"]["completion_tokens"], 2);
}

/// Names that handlers look for.
const NAMES: &[&str] = &[
    "prompt",
    "messages",
    "model",
    "inputs",
    "parameters",
    "input",
    "documents",
    "query",
    "texts",
    "text_1",
    "text_2",
    "source_sentence",
    "sentences",
    "truncate",
    "truncate_prompt_tokens",
    "dimensions",
    "n",
    "stop",
    "stream",
    "role",
    "content",
    "max_tokens",
    "logit_bias",
    "logprobs",
    "temperature",
    "tools",
    "tool_choice",
    "tool_calls",
    "tool_call_id",
    "function",
    "arguments",
    "tokens",
    "type",
    "text",
    "stream_options",
    "chat_template_kwargs",
    "adapter_id",
    "adapters",
    "lora",
    "merged_adapters",
    "name",
    "weight",
    "id",
    "scale",
    "ids",
    "weights",
    "top_k",
    "seed",
];

/// JSON of any shape, with names that mean something.
fn any_json() -> impl Strategy<Value = Value> {
    let number =
        prop_oneof![any::<i64>().prop_map(Value::from), any::<f64>().prop_map(Value::from)];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!("user")),
        Just(json!(1)),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        let name = prop_oneof![prop::sample::select(NAMES).prop_map(String::from), "\\PC{0,4}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

#[test]
fn garbage_is_never_a_failure_of_the_server() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let service = on_this_machine(scripted(Script::Echo, HttpConfig::default()));
    let posts: Vec<_> = ROUTES.iter().filter(|route| route.method == "POST").collect();
    let body = prop_oneof![
        any_json().prop_map(|json| json.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..64),
    ];
    let cases = (prop::sample::select(posts), body);
    let mut runner = TestRunner::new(ProptestConfig { cases: 2000, ..ProptestConfig::default() });
    let checked = runner.run(&cases, |(route, body)| {
        let request = Request::post(route.path)
            .header("content-type", "application/json")
            .body(Body::from(body))
            .expect("a request");
        let answer = runtime.block_on(service.clone().oneshot(request)).expect("an answer");
        let status = answer.status().as_u16();
        prop_assert!(status < 500 || status == 501, "{} answered {status}", route.path);
        Ok(())
    });
    checked.expect("every answer is the client's fault or a success");
}

#[tokio::test]
async fn a_full_queue_is_429_with_a_time_to_come_again() {
    let server = server(Script::Refuse(EngineError::Overloaded { waiting: 9 }));
    let body = json!({"prompt": "a", "stream": true});
    let answer = server.post("/v1/completions", &body).await;
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.error(429)["reason"], "queue_full");
    let lorax = server.post("/generate", &json!({"inputs": "a"})).await;
    assert_eq!((lorax.status.as_u16(), &lorax.json()["error_type"]), (429, &json!("overloaded")));
}

#[tokio::test]
async fn a_failure_midway_is_an_event_in_a_stream_and_500_without_one() {
    let server = server(Script::Fail);
    let answer = server.post("/v1/completions", &json!({"prompt": "a"})).await;
    let error = answer.error(500);
    assert_eq!(
        (&error["message"], &error["reason"]),
        (&json!("internal error"), &json!("step_failed"))
    );
    let chat = json!({"messages": [{"role": "user", "content": "a"}], "stream": true});
    for (path, body) in [
        ("/v1/completions", json!({"prompt": "a", "stream": true})),
        ("/v1/chat/completions", chat),
    ] {
        let events = server.post(path, &body).await.events();
        let [.., error, done] = events.as_slice() else { panic!("{events:?}") };
        assert!(error.contains("step_failed"), "{error}");
        assert_eq!(done, "[DONE]");
    }
    let events = server.post("/generate_stream", &json!({"inputs": "a"})).await.events();
    assert!(events.last().expect("an event").contains("\"error_type\":\"generation\""));
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_generation_along() {
    let (started, mut running) = unbounded_channel();
    let server = server(Script::Hold(started));
    let body = json!({"prompt": ["a", "b"], "n": 2, "stream": true});
    let stream = server.open("/v1/completions", &body).await;
    let mut engines = Vec::new();
    for _ in 0..4 {
        engines.push(running.recv().await.expect("a submission"));
    }
    assert!(engines.iter().all(|engine| !engine.is_closed()));
    drop(stream);
    for engine in engines {
        engine.closed().await;
    }

    let body = json!({"prompt": "a"});
    let waiting = tokio::spawn(server.request("POST", "/v1/completions").json(&body).send());
    let engine = running.recv().await.expect("a submission");
    waiting.abort();
    engine.closed().await;
}

#[tokio::test]
async fn a_client_that_stops_reading_loses_its_stream() {
    let (started, mut running) = unbounded_channel();
    let config = HttpConfig { write_timeout: 0, ..HttpConfig::default() };
    let service = on_this_machine(scripted(Script::Hold(started), config));
    let body = json!({"prompt": "a", "stream": true, "max_tokens": 200}).to_string();
    let request = Request::post("/v1/completions").header("content-type", "application/json");
    let request = request.body(Body::from(body)).expect("a request");
    let unread = service.oneshot(request).await.expect("an answer");
    let engine = running.recv().await.expect("a submission");
    // One by one: tokens that come together go out together.
    while engine.send(Event::Token { id: 75, logprobs: None }).is_ok() {
        tokio::task::yield_now().await;
    }
    drop(unread);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let config = HttpConfig { max_connections: 1, ..HttpConfig::default() };
    let server = Server::start(scripted(Script::Echo, config));
    let address = server.url.strip_prefix("http://").expect("plain").to_owned();
    let first = TcpStream::connect(&address).await.expect("a connection");
    let mut second = TcpStream::connect(&address).await.expect("the system accepts");
    let mut answer = Vec::new();
    assert_eq!(second.read_to_end(&mut answer).await.unwrap_or(0), 0);
    drop(first);
    while server.request("GET", "/health").send().await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn places_are_limited_and_come_back() {
    let (started, mut running) = unbounded_channel();
    let config = HttpConfig { max_requests: 1, ..HttpConfig::default() };
    let server = Server::start(scripted(Script::Hold(started), config));
    let body = json!({"prompt": "a", "stream": true});
    let stream = server.open("/v1/completions", &body).await;
    let engine = running.recv().await.expect("a submission");
    let refused = server.post("/v1/completions", &body).await;
    assert_eq!(refused.headers["retry-after"], "1");
    refused.error(429);
    server.get("/v1/models").await.ok();
    assert!(server.get("/health").await.status.is_success(), "health costs no place");
    drop(stream);
    engine.closed().await;
    // The place goes with the body, a moment after the generation.
    while server.open("/v1/completions", &body).await.status() == 429 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_panic_is_500_and_the_next_request_is_answered() {
    let server = server(Script::Panic);
    let error = server.post("/v1/completions", &json!({"prompt": "a"})).await.error(500);
    assert_eq!(error["message"], "internal error");
    let lorax = server.post("/generate", &json!({"inputs": "a"})).await;
    assert_eq!(lorax.json()["error_type"], "generation", "every dialect in its own form");
    assert!(server.get("/health").await.status.is_success());
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_504_and_cancelled() {
    let (started, mut running) = unbounded_channel();
    let config = HttpConfig { request_timeout: 0, ..HttpConfig::default() };
    let server = Server::start(scripted(Script::Hold(started), config));
    let body = json!({"prompt": "a"});
    server.post("/v1/completions", &body).await.error(504);
    running.recv().await.expect("a submission").closed().await;
}

#[tokio::test]
async fn what_is_not_a_request_is_told_so_in_json() {
    let config =
        HttpConfig { max_body_bytes: 1000, max_upload_bytes: 1000, ..HttpConfig::default() };
    let server = Server::start(scripted(Script::Echo, config));
    server.get("/nowhere").await.error(404);
    server.get("/v1/completions").await.error(405);
    let send = |body: &'static str, content_type: &'static str| {
        let request = server.request("POST", "/v1/completions");
        Answer::of(request.header("content-type", content_type).body(body))
    };
    send("{\"prompt\": \"a\"}", "text/plain").await.error(400);
    send("{\"prompt\": \"a\"}", "").await.error(400);
    let error = send("{\"prompt\": ", "application/json").await.error(400);
    assert_eq!((&error["type"], &error["param"]), (&json!("Bad Request"), &json!("body")));
    let large = json!({"prompt": "a".repeat(2000)});
    let answer = server.post("/v1/completions", &large).await;
    assert_eq!(answer.headers["connection"], "close", "the rest of the body is still to come");
    let error = answer.error(413);
    assert!(error["message"].as_str().expect("text").contains("1000"));
    let part = reqwest::multipart::Part::bytes(vec![0; 2000]);
    let form = reqwest::multipart::Form::new().part("weights", part);
    let upload = server.request("PUT", "/admin/adapters/a").multipart(form);
    Answer::of(upload).await.error(413);
    still_answers(&server).await;
}

#[tokio::test]
async fn a_client_that_stops_sending_is_not_waited_for() {
    let config = HttpConfig { read_timeout: 1, ..HttpConfig::default() };
    let server = Server::start(scripted(Script::Echo, config));
    let address = server.url.strip_prefix("http://").expect("plain").to_owned();
    let silent = async |sent: &str| {
        let mut connection = TcpStream::connect(&address).await.expect("a connection");
        connection.write_all(sent.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        let ended = connection.read_to_string(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends");
        answer
    };
    let head = "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let body_missing = format!("{head}content-length: 100\r\nconnection: close\r\n\r\n{{");
    let (nothing, half_head, half_body) =
        tokio::join!(silent(""), silent("GET / HTTP/1.1\r\nhos"), silent(&body_missing));
    assert_eq!(nothing, "");
    assert!(!half_head.starts_with("HTTP/1.1 2"), "{half_head}");
    assert!(half_body.starts_with("HTTP/1.1 408"), "{half_body}");
    still_answers(&server).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = server(Script::Echo);
    let many = (0..200).fold(server.request("GET", "/health"), |request, index| {
        request.header(format!("x-{index}"), "1")
    });
    assert_eq!(Answer::of(many).await.status.as_u16(), 431);
    let long = server.request("GET", "/health").header("x-long", "a".repeat(100 << 10));
    assert_eq!(Answer::of(long).await.status.as_u16(), 431);
    still_answers(&server).await;
}

#[tokio::test]
async fn a_large_body_is_read_and_refused_for_what_it_says() {
    let server = server(Script::Echo);
    let body = json!({"prompt": "a".repeat(200_000), "max_tokens": 1});
    let error = server.post("/v1/completions", &body).await.error(400);
    assert_eq!(error["reason"], "context_length_exceeded");
    let body = json!({"prompt": ["a".repeat(100_000), 1]});
    assert_eq!(server.post("/v1/completions", &body).await.error(400)["param"], "prompt[1]");
}

#[tokio::test]
async fn a_body_in_the_smallest_pieces_is_read_like_any_other() {
    let server = server(Script::Echo);
    let body = json!({"prompt": "a", "max_tokens": 2}).to_string().into_bytes();
    let pieces = body.into_iter().map(|byte| Ok::<_, Infallible>(Bytes::from(vec![byte])));
    let request = server.request("POST", "/v1/completions");
    let request = request.header("content-type", "application/json");
    let pieces = reqwest::Body::wrap_stream(stream::iter(pieces.collect::<Vec<_>>()));
    Answer::of(request.body(pieces)).await.ok();
}
