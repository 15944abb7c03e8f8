//! What operators rely on: keys, health, metrics, request ids, draining.
use crate::client::{Answer, Script, Server, scripted};
use lorad::{
    engine::{EngineError, Event, FinishReason},
    http::{Access, HttpConfig, ROUTES},
};
use reqwest::StatusCode;
use serde_json::json;
use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc::unbounded_channel;

fn echo(config: HttpConfig) -> Server {
    Server::start(scripted(Script::Echo, config))
}

#[tokio::test]
async fn every_route_asks_for_its_key_and_no_other_does() {
    let config = HttpConfig {
        api_keys: vec!["client".into(), "second".into()],
        admin_keys: vec!["admin".into()],
        ..HttpConfig::default()
    };
    let server = echo(config);
    for route in ROUTES {
        let path =
            route.path.replace("{*id}", "tiny").replace("{name}", "a").replace("{alias}", "b");
        let status = async |key: Option<&str>| {
            let request = server.request(route.method, &path);
            let request = if let Some(key) = key { request.bearer_auth(key) } else { request };
            Answer::of(request).await.status
        };
        let denied = StatusCode::UNAUTHORIZED;
        assert_eq!(status(None).await == denied, route.access != Access::Open, "{path}");
        assert_eq!(status(Some("wrong")).await == denied, route.access != Access::Open, "{path}");
        assert_eq!(status(Some("second")).await == denied, route.access == Access::Admin, "{path}");
        assert_ne!(status(Some("admin")).await, denied, "{path}");
    }
    let refused = Answer::of(server.request("GET", "/v1/models")).await;
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    assert_eq!(refused.error(401)["reason"], "invalid_api_key");
}

#[tokio::test]
async fn health_follows_the_engine() {
    let server = echo(HttpConfig::default());
    for path in ["/health", "/ping", "/v1/health"] {
        assert_eq!(server.get(path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(server.get("/version").await.ok()["version"], env!("CARGO_PKG_VERSION"));
    let dead = Script::Refuse(EngineError::Stopped);
    let dead = Server::start(scripted(dead, HttpConfig::default()));
    dead.get("/health").await.error(503);
    let error = dead.post("/v1/completions", &json!({"prompt": "a"})).await;
    assert!(error.headers.contains_key("retry-after"));
    error.error(503);
}

#[tokio::test]
async fn metrics_tell_of_requests_adapters_and_routes() {
    let server = Server::golden("llama");
    let body = json!({"model": "layers", "prompt": "a", "max_tokens": 3, "ignore_eos": true});
    server.post("/v1/completions", &body).await.ok();
    // The engine publishes its numbers after the step that sent the last token.
    let mut scrape = server.get("/metrics").await;
    while scrape.text.contains("vllm:num_requests_running{model_name=\"llama\",engine=\"0\"} 1") {
        scrape = server.get("/metrics").await;
    }
    assert_eq!(scrape.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let listed = server.get("/admin/adapters").await.ok();
    let count = listed["adapters"].as_array().expect("a list").len();
    let adapters = format!("lorad_adapters{{model_name=\"llama\",engine=\"0\"}} {count}");
    for line in [
        "vllm:request_success_total{model_name=\"llama\",engine=\"0\",finished_reason=\"length\"} 1",
        "lorad_requests_total{model_name=\"llama\",engine=\"0\",adapter=\"layers\"} 1",
        "lorad_adapter_generated_tokens_total{model_name=\"llama\",engine=\"0\",adapter=\"layers\"} 3",
        "lorad_adapter_first_token_seconds_count{model_name=\"llama\",engine=\"0\",adapter=\"layers\"} 1",
        "lorad_adapter_errors_total{model_name=\"llama\",engine=\"0\",adapter=\"layers\"} 0",
        &adapters,
        "http_requests_total{handler=\"/v1/completions\",method=\"POST\",status=\"200\"} 1",
        "vllm:generation_tokens_total{model_name=\"llama\",engine=\"0\"} 3",
    ] {
        assert!(scrape.text.lines().any(|found| found == line), "{line} in\n{}", scrape.text);
    }
    assert!(scrape.text.contains("running_lora_adapters=\"layers\""), "{}", scrape.text);
    for tier in ["host", "device"] {
        let prefix =
            format!("lorad_adapter_bytes{{model_name=\"llama\",engine=\"0\",tier=\"{tier}\"}} ");
        let bytes = scrape.text.lines().find_map(|line| line.strip_prefix(&prefix));
        assert!(bytes.expect("a line").parse::<u64>().expect("bytes") > 0, "{tier}");
    }
    let accept = "application/openmetrics-text; version=1.0.0";
    let open = Answer::of(server.request("GET", "/metrics").header("accept", accept)).await;
    assert!(open.text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_request_id_is_echoed_or_made() {
    let server = echo(HttpConfig::default());
    let given = server.request("GET", "/health").header("x-request-id", "abc-1");
    assert_eq!(Answer::of(given).await.headers["x-request-id"], "abc-1");
    let made = server.get("/nowhere").await;
    assert!(made.headers["x-request-id"].len() >= 32);
}

/// What was logged, all levels.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_tells_of_requests_and_keeps_their_secrets() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
    let lines = lines.with_ansi(false).with_writer(move || writer.clone()).finish();
    // For every thread: what another test meets first would be switched off here too.
    tracing::subscriber::set_global_default(lines).expect("nobody else logs");
    let keys = vec!["the-key".to_owned()];
    let server = echo(HttpConfig { api_keys: keys, ..HttpConfig::default() });
    for (path, body) in [
        ("/v1/completions", json!({"prompt": "the-prompt", "user": "the-user"})),
        ("/v1/completions", json!({"prompt": ["the-prompt", 1]})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "the-prompt"}]})),
        ("/generate_stream", json!({"inputs": "the-prompt"})),
    ] {
        let request = server.request("POST", path).bearer_auth("the-key").json(&body);
        Answer::of(request.header("x-request-id", "the-request")).await;
    }
    let log = String::from_utf8(log.0.lock().expect("no panic").clone()).expect("text");
    for told in ["the-request", "/v1/completions", "/generate_stream", "status=200", "status=400"] {
        assert!(log.contains(told), "{told} in {log}");
    }
    for kept in ["the-key", "the-prompt", "the-user"] {
        assert!(!log.contains(kept), "{kept} in {log}");
    }
}

#[tokio::test]
async fn a_shutdown_lets_running_streams_finish() {
    let (started, mut running) = unbounded_channel();
    let server = Server::start(scripted(Script::Hold(started), HttpConfig::default()));
    let body = json!({"prompt": "a", "stream": true});
    let stream = server.open("/v1/completions", &body).await;
    let engine = running.recv().await.expect("a submission");
    let ended = server.stop();
    let finish = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let end = Event::Finished { reason: FinishReason::Length };
        engine.send(end).expect("the stream lives on");
    };
    let (text, ()) = tokio::join!(stream.text(), finish);
    assert!(text.expect("a whole stream").ends_with("data: [DONE]\n\n"));
    ended.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn a_shutdown_waits_no_longer_than_it_was_told() {
    let (started, mut running) = unbounded_channel();
    let config = HttpConfig { drain_timeout: 0, ..HttpConfig::default() };
    let server = Server::start(scripted(Script::Hold(started), config));
    let body = json!({"prompt": "a", "stream": true});
    let _stream = server.open("/v1/completions", &body).await;
    let engine = running.recv().await.expect("a submission");
    server.stop().await.expect("no panic").expect("a clean end");
    engine.closed().await;
}
