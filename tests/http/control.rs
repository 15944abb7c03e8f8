//! What control planes and load balancers ask: probes, load, names of the base, draining.
use crate::client::{Answer, Script, Server, scripted};
use axum::{body::Body, http::Request};
use lorad::{
    engine::{EngineError, Event, FinishReason},
    http::{Entrance, HttpConfig, listen},
};
use serde_json::{Value, json};
use std::{net::TcpListener, time::Duration};
use tokio::sync::{mpsc::unbounded_channel, oneshot};

fn echo() -> Server {
    Server::start(scripted(Script::Echo, HttpConfig::default()))
}

#[tokio::test]
async fn probes_tell_life_from_readiness() {
    let server = echo();
    for path in ["/livez", "/health", "/ping"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""), "{path}");
    }
    assert_eq!(server.get("/v1/health").await.ok(), json!({"status": "ok"}));
    let dead = scripted(Script::Refuse(EngineError::Stopped), HttpConfig::default());
    let dead = Server::start(dead);
    for path in ["/livez", "/health", "/ping", "/v1/health"] {
        dead.get(path).await.error(503);
    }
}

#[tokio::test]
async fn load_and_sleep_are_answered_as_vllm_does() {
    let server = echo();
    assert_eq!(server.get("/load").await.ok(), json!({"server_load": 0}));
    assert_eq!(server.get("/is_sleeping").await.ok(), json!({"is_sleeping": false}));
}

#[tokio::test]
async fn a_load_balancer_gets_its_report_where_it_asks_for_one() {
    let server = echo();
    let ask = |format: &'static str| {
        let request = server.request("POST", "/v1/completions");
        let request = request.header("endpoint-load-metrics-format", format);
        Answer::of(request.json(&json!({"prompt": "a"})))
    };
    let text = ask("TEXT").await.headers["endpoint-load-metrics"].clone();
    let text = text.to_str().expect("text");
    assert!(text.starts_with("TEXT named_metrics.kv_cache_usage_perc=0, "), "{text}");
    let json = ask("json").await.headers["endpoint-load-metrics"].clone();
    let json = json.to_str().expect("text").strip_prefix("JSON ").expect("its mark").to_owned();
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["named_metrics"]["num_requests_waiting"], 0.0);
    assert!(!ask("xml").await.headers.contains_key("endpoint-load-metrics"));
}

#[tokio::test]
async fn the_base_answers_to_each_of_its_names() {
    let server = echo();
    for name in ["tiny", "twin", ""] {
        let body = json!({"model": name, "prompt": "a", "max_tokens": 1});
        let shown = if name.is_empty() { "tiny" } else { name };
        assert_eq!(server.post("/v1/completions", &body).await.ok()["model"], shown);
    }
    let models = server.get("/v1/models").await.ok();
    let cards = models["data"].as_array().expect("a list");
    let names: Vec<_> = cards.iter().map(|card| (&card["id"], &card["parent"])).collect();
    assert_eq!(names, [(&json!("tiny"), &Value::Null), (&json!("twin"), &Value::Null)]);
    assert_eq!(server.get("/v1/models/twin").await.ok()["root"], "tiny");
    let body = json!({"lora_name": "Twin", "lora_path": "x"});
    server.post("/v1/load_lora_adapter", &body).await.error(400);
    let alias = json!({"targets": [{"model": "tiny"}]});
    let alias = server.request("PUT", "/admin/aliases/twin").json(&alias);
    Answer::of(alias).await.error(409);
}

#[tokio::test]
async fn adapters_of_the_command_line_are_there_from_the_start() {
    let modules = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/llama/adapters");
    let flags = [
        "--served-model-name",
        "base",
        "dummy",
        "--lora-modules",
        &format!("mine={modules}/layers"),
        &format!(r#"{{"name": "its", "path": "{modules}/all-linear"}}"#),
    ];
    let server = Server::golden_with("llama", &flags);
    let say = async |model: &str| {
        let body = json!({"model": model, "prompt": [5, 6, 7], "max_tokens": 6, "temperature": 0});
        server.post("/v1/completions", &body).await.ok()["choices"][0]["text"].clone()
    };
    assert_eq!(say("mine").await, say("layers").await);
    assert_eq!(say("its").await, say("all-linear").await);
    assert_eq!(say("dummy").await, say("base").await);
    assert_ne!(say("its").await, say("base").await);
    let upload = json!({"lora_name": "dummy", "lora_path": "layers"});
    server.post("/v1/load_lora_adapter", &upload).await.error(400);
}

/// A listener without a server yet.
struct Early {
    url: String,
    entrance: Entrance,
    stop: oneshot::Sender<()>,
    running: tokio::task::JoinHandle<std::io::Result<()>>,
}

fn early(config: HttpConfig) -> Early {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (entrance, (stop, stopped)) = (Entrance::default(), oneshot::channel::<()>());
    let running = tokio::spawn({
        let entrance = entrance.clone();
        async move {
            let shutdown = async { drop(stopped.await) };
            listen(listener, &config, entrance, shutdown).await
        }
    });
    Early { url, entrance, stop, running }
}

#[tokio::test]
async fn whoever_comes_before_the_model_is_told_that_it_loads() {
    let Early { url, entrance, stop, running } = early(HttpConfig::default());
    let client = reqwest::Client::new();
    let get = |path: &str| Answer::of(client.get(format!("{url}{path}")));
    assert_eq!(get("/livez").await.status.as_u16(), 200);
    for path in ["/health", "/v1/models", "/metrics", "/nowhere"] {
        let answer = get(path).await;
        assert_eq!(answer.headers["retry-after"], "5", "{path}");
        assert!(answer.headers.contains_key("x-request-id"), "{path}");
        assert_eq!(answer.error(503)["reason"], "loading", "{path}");
    }
    let body = json!({"inputs": "a"});
    let lorax = Answer::of(client.post(format!("{url}/generate")).json(&body)).await;
    assert_eq!((lorax.status.as_u16(), &lorax.json()["error_type"]), (503, &json!("healthcheck")));
    // The connections are the same ones.
    entrance.open(scripted(Script::Echo, HttpConfig::default()));
    assert_eq!(get("/health").await.status.as_u16(), 200);
    let body = json!({"prompt": "a", "max_tokens": 1});
    Answer::of(client.post(format!("{url}/v1/completions")).json(&body)).await.ok();
    stop.send(()).expect("it runs");
    running.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn who_gives_up_before_the_model_is_there_ends_at_once() {
    let Early { stop, running, .. } = early(HttpConfig::default());
    stop.send(()).expect("it runs");
    running.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn a_draining_server_listens_refuses_and_lets_streams_finish() {
    let (started, mut running) = unbounded_channel();
    let server = Server::start(scripted(Script::Hold(started), HttpConfig::default()));
    let (url, client) = (server.url.clone(), server.client.clone());
    let stream = server.open("/v1/completions", &json!({"prompt": "a", "stream": true})).await;
    let engine = running.recv().await.expect("a submission");
    let ended = server.stop();
    let get = |path: &str| Answer::of(client.get(format!("{url}{path}")));
    while get("/health").await.status.is_success() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let health = get("/health").await;
    assert_eq!(health.error(503)["reason"], "draining");
    assert_eq!(get("/livez").await.status.as_u16(), 200);
    assert_eq!(get("/metrics").await.status.as_u16(), 200);
    for _ in 0..3 {
        let request = client.post(format!("{url}/v1/completions"));
        let refused = Answer::of(request.json(&json!({"prompt": "a"}))).await;
        assert_eq!(refused.headers["retry-after"], "1");
        assert_eq!(refused.headers["connection"], "close");
        assert_eq!(refused.error(503)["reason"], "draining");
    }
    let generate = client.post(format!("{url}/generate")).json(&json!({"inputs": "a"}));
    assert_eq!(Answer::of(generate).await.json()["error_type"], "healthcheck");
    assert!(!ended.is_finished(), "one still runs");
    engine.send(Event::Finished { reason: FinishReason::Length }).expect("the stream lives on");
    assert!(stream.text().await.expect("a whole stream").ends_with("data: [DONE]\n\n"));
    ended.await.expect("no panic").expect("a clean end");
    client.get(format!("{url}/livez")).send().await.expect_err("nobody listens");
}

#[tokio::test]
async fn what_takes_too_long_is_told_so_before_it_ends() {
    let (started, mut running) = unbounded_channel();
    let config = HttpConfig { drain_timeout: 0, ..HttpConfig::default() };
    let server = Server::start(scripted(Script::Hold(started), config));
    let body = json!({"prompt": "a", "stream": true});
    let stream = server.open("/v1/completions", &body).await;
    let tgi = server.open("/generate_stream", &json!({"inputs": "a"})).await;
    let whole = server.request("POST", "/v1/completions").json(&json!({"prompt": "a"}));
    let whole = tokio::spawn(Answer::of(whole));
    let mut engines = Vec::new();
    for _ in 0..3 {
        engines.push(running.recv().await.expect("a submission"));
    }
    server.stop().await.expect("no panic").expect("a clean end");
    let text = stream.text().await.expect("a stream with an end");
    let events: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    let [.., error, done] = &events[..] else { panic!("{text}") };
    assert!(error.contains("\"reason\":\"shut_down\""), "{error}");
    assert_eq!(*done, "data: [DONE]");
    assert!(tgi.text().await.expect("an end").contains("\"error_type\":\"healthcheck\""));
    assert_eq!(whole.await.expect("no panic").error(503)["reason"], "shut_down");
    for engine in engines {
        engine.closed().await;
    }
}

#[tokio::test]
async fn a_step_that_hangs_ends_the_life_of_the_process_and_nothing_else_does() {
    use tower::ServiceExt;
    let app = scripted(Script::Hang, HttpConfig { step_timeout: 1, ..HttpConfig::default() });
    let patient = scripted(Script::Hang, HttpConfig { step_timeout: 0, ..HttpConfig::default() });
    for (app, expected) in [(app, 503), (patient, 200)] {
        let request = Request::get("/livez").body(Body::empty()).expect("a request");
        let answer = lorad::http::router(app).oneshot(request).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), expected);
    }
}
