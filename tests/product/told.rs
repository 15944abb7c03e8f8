//! What the program's log says of requests at its most talkative, and what it keeps to itself.
use crate::program::Program;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use std::{process::Stdio, time::Duration};
use tempfile::NamedTempFile;

const KEY: &str = "the-secret-key";
/// The beginning of its SHA-256.
const KEY_ID: &str = "f8c03f6f";
const PROMPT: &str = "the-secret-prompt";

struct Talkative {
    program: Program,
    log: NamedTempFile,
    client: Client,
}

impl Talkative {
    async fn start() -> Self {
        let log = NamedTempFile::new().expect("a file");
        let stderr = Stdio::from(log.reopen().expect("the file"));
        let flags =
            ["--json-output", "--log-level", "trace", "--api-key", KEY, "--admin-key", "the-admin"];
        Self { program: Program::start(&flags, stderr).await, log, client: Client::new() }
    }

    fn post(&self, client: &Client, path: &str, id: &str, body: &Value) -> RequestBuilder {
        let request = client.post(format!("{}{path}", self.program.url)).bearer_auth(KEY);
        request.header("x-request-id", id).json(body)
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.log.path()).expect("a log")
    }

    /// The access events with this request id.
    fn events(&self, id: &str) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().filter(|line| line.contains("lorad::access"));
        let events = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        events.filter(|event| event["request_id"] == id).collect()
    }

    /// The one event of a request, once it is there.
    async fn event(&self, id: &str) -> Value {
        for _ in 0..400 {
            if let Some(event) = self.events(id).pop() {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("nothing is told of {id}");
    }
}

const PATH: &str = "/v1/completions";
const IDS: [&str; 10] =
    ["whole", "stream", "http2", "lorax", "chat", "wrong", "unknown", "stranger", "left", "gone"];

fn body(more: &Value) -> Value {
    let mut body = json!({"prompt": PROMPT, "max_tokens": 5, "ignore_eos": true, "model": "rate"});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
    body
}

/// One request for each id: answered, refused, and given up.
async fn ask_all(server: &Talkative) {
    let client = &server.client;
    let http2 = Client::builder().http2_prior_knowledge().build().expect("a client");
    let inputs = json!({"inputs": PROMPT, "parameters": {"max_new_tokens": 2}});
    for (client, path, id, body) in [
        (client, PATH, "whole", body(&json!({}))),
        (client, PATH, "stream", body(&json!({"stream": true, "n": 2}))),
        (&http2, PATH, "http2", body(&json!({"stream": true}))),
        (client, "/generate", "lorax", inputs),
        (client, PATH, "wrong", body(&json!({"temperature": -1}))),
        (client, PATH, "unknown", body(&json!({"model": "none"}))),
    ] {
        let answer = server.post(client, path, id, &body).send().await.expect("an answer");
        answer.text().await.expect("all of it");
    }
    let chat = json!({"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 2,
        "model": "newsdesk"});
    let chat = server.post(client, "/v1/chat/completions", "chat", &chat);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    chat.header("traceparent", parent).send().await.expect("an answer");
    let stranger = client.post(format!("{}{PATH}", server.program.url)).bearer_auth("wrong-secret");
    let stranger = stranger.header("x-request-id", "stranger").json(&body(&json!({})));
    stranger.send().await.expect("an answer");

    let long = |stream: bool| body(&json!({"max_tokens": 200, "n": 32, "stream": stream}));
    drop(server.post(client, PATH, "left", &long(true)).send().await.expect("an answer"));
    let gone = tokio::spawn(server.post(client, PATH, "gone", &long(false)).send());
    tokio::time::sleep(Duration::from_millis(300)).await;
    gone.abort();
}

fn is_complete(event: &Value) {
    for (field, value) in [
        ("level", json!("INFO")),
        ("route", json!(PATH)),
        ("key", json!(KEY_ID)),
        ("model", json!("rate")),
        ("adapter", json!("rate")),
        ("stream", json!(false)),
        ("status", json!(200)),
        ("finish_reason", json!("length")),
        ("completion_tokens", json!(5)),
    ] {
        assert_eq!(event[field], value, "{field} in {event}");
    }
    assert_eq!(event["version"].as_str().map(str::len), Some(64));
    assert!(event["prompt_tokens"].as_u64().is_some_and(|tokens| tokens > 0));
    let time = |field: &str| event[field].as_f64().expect(field);
    assert!(time("queue_ms") <= time("ttft_ms") && time("ttft_ms") <= time("e2e_ms"), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_generation_is_told_of_once_and_no_word_of_it_at_any_level() {
    let mut server = Talkative::start().await;
    ask_all(&server).await;
    is_complete(&server.event("whole").await);
    let stream = server.event("stream").await;
    assert_eq!((&stream["stream"], &stream["completion_tokens"]), (&json!(true), &json!(10)));
    assert_eq!(server.event("http2").await["finish_reason"], "length");
    assert_eq!(server.event("lorax").await["route"], "/generate");
    let chat = server.event("chat").await;
    assert_eq!(chat["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!((&chat["model"], chat.get("adapter")), (&json!("newsdesk"), None));
    for (id, status, reason, error) in [
        ("wrong", 400, "error", Some("invalid_value")),
        ("unknown", 404, "error", Some("model_not_found")),
        ("stranger", 401, "error", Some("invalid_api_key")),
        ("left", 200, "abort", None),
        ("gone", 499, "abort", None),
    ] {
        let event = server.event(id).await;
        let told = (&event["status"], &event["finish_reason"], event["error"].as_str());
        assert_eq!(told, (&json!(status), &json!(reason), error), "{event}");
    }

    server.program.signal("TERM");
    assert_eq!(server.program.ended().await.code(), Some(0));
    for id in IDS {
        assert_eq!(server.events(id).len(), 1, "{id}");
    }
    let text = server.text();
    assert!(text.contains("\"TRACE\""), "it is talkative");
    for secret in [KEY, PROMPT, "the-admin", "wrong-secret"] {
        assert!(!text.contains(secret), "{secret}");
    }
    for line in text.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_commands_speak_tls_with_it() {
    let pem = |name: &str| format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let (cert, key, ca) = (pem("first.pem"), pem("first.key"), pem("ca.pem"));
    let program = Program::begin(&["--tls-cert", &cert, "--tls-key", &key], Stdio::null(), "https");
    let any = Client::builder().tls_danger_accept_invalid_certs(true).build().expect("a client");
    program.wait(&any).await;
    let port = program.url.rsplit(':').next().expect("a port");
    let url = format!("https://localhost:{port}");
    let run = |args: &[&str], env: Option<(&str, &str)>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lorad"));
        command.args(args).env_remove("LORAD_TLS_CERT").envs(env);
        command.output().expect("a result").status.code()
    };
    let check = ["healthcheck", "--port", port];
    assert_eq!(run(&check, None), Some(1), "it does not speak in the open");
    assert_eq!(run(&check, Some(("LORAD_TLS_CERT", &cert))), Some(0));
    assert_eq!(run(&[&check[..], &["--tls"]].concat(), None), Some(0));
    assert_eq!(run(&[&check[..], &["--ca", &ca]].concat(), None), Some(0));
    assert_eq!(run(&[&check[..], &["--ca", &key]].concat(), None), Some(1));
    let list = ["adapter", "list", "--url", &url];
    assert_eq!(run(&list, None), Some(1), "nobody vouches for it");
    assert_eq!(run(&[&list[..], &["--ca", &ca]].concat(), None), Some(0));
    assert_eq!(run(&list, Some(("LORAD_CA", &ca))), Some(0));
    assert_eq!(run(&[&list[..], &["--insecure"]].concat(), None), Some(0));
}
