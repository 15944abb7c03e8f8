//! What operators do with versions: try, check, look back, roll back, take along.
use crate::client::{Answer, Server, adapter_files};
use futures_util::StreamExt;
use reqwest::{
    RequestBuilder, StatusCode,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

fn server() -> Server {
    Server::golden("llama")
}

fn form(adapter: &str) -> Form {
    let files = adapter_files("llama", adapter);
    let parts = files.named().into_iter();
    parts.fold(Form::new(), |form, (name, bytes)| {
        form.part("file", Part::bytes(bytes.to_vec()).file_name(name))
    })
}

fn request(server: &Server, name: &str, query: &str, adapter: &str) -> RequestBuilder {
    server.request("PUT", &format!("/admin/adapters/{name}{query}")).multipart(form(adapter))
}

async fn put(server: &Server, name: &str, query: &str, adapter: &str) -> Answer {
    Answer::of(request(server, name, query, adapter)).await
}

async fn roll_back(server: &Server, name: &str, body: Option<Value>) -> Answer {
    let request = server.request("POST", &format!("/admin/adapters/{name}/rollback"));
    Answer::of(match body {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

async fn says(server: &Server, model: &str) -> String {
    let body = json!({"model": model, "prompt": [5, 6, 7], "max_tokens": 8, "temperature": 0,
                      "ignore_eos": true});
    let answer = server.post("/v1/completions", &body).await.ok();
    answer["choices"][0]["text"].as_str().expect("text").to_owned()
}

/// What the events of a stream say together.
fn said(stream: &str) -> String {
    let text = |line: &str| {
        let event: Value = serde_json::from_str(line.strip_prefix("data:")?.trim()).ok()?;
        Some(event["choices"][0]["text"].as_str()?.to_owned())
    };
    stream.lines().filter_map(text).collect()
}

fn version(answer: &Answer) -> String {
    answer.json()["version"].as_str().expect("a version").to_owned()
}

#[tokio::test]
async fn a_report_says_what_was_uploaded() {
    let server = server();
    let told = put(&server, "a", "", "layers").await.json();
    for count in ["rank", "bytes", "file_bytes", "sites", "layers", "parameters"] {
        assert!(told[count].as_u64().expect(count) > 0, "{count}");
    }
    let rows = told["projections"].as_array().expect("a list");
    let norms = rows.iter().map(|row| row["delta_norm"].as_f64().expect("a norm").powi(2));
    let norm = told["delta_norm"].as_f64().expect("a norm");
    assert!((norms.sum::<f64>().sqrt() - norm).abs() < 1e-9 * norm, "{told}");
    let warnings = told["warnings"].to_string();
    assert!(warnings.contains("tiny-llama") && warnings.contains("1 of 2"), "{warnings}");
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_does_nothing() {
    let server = server();
    let before = server.get("/admin/adapters").await.ok();
    let dry = put(&server, "a", "?dry_run=true", "layers").await;
    let told = dry.ok();
    assert_eq!((&told["outcome"], &told["previous"]), (&json!("valid"), &Value::Null));
    assert_eq!(server.get("/admin/adapters").await.ok(), before);
    let first = put(&server, "a", "", "layers").await;
    assert_eq!(version(&first), version(&dry));
    let again = put(&server, "a", "?dry_run=true", "all-linear").await.ok();
    assert_eq!(again["previous"], version(&first));
    let create = request(&server, "a", "?dry_run=true", "all-linear").header("if-none-match", "*");
    assert_eq!(Answer::of(create).await.error(412)["current"], version(&first));
    let broken = server.request("PUT", "/admin/adapters/a?dry_run=true").body("no adapter");
    Answer::of(broken).await.error(400);
    put(&server, "a", "?dry_runn=true", "layers").await.error(400);
}

#[tokio::test]
async fn a_probe_shows_both_texts_and_a_failed_one_publishes_nothing() {
    let server = server();
    let query = "?probe=true&probe_prompt=abc";
    let told = put(&server, "a", query, "all-linear").await;
    assert_eq!(told.status, StatusCode::CREATED, "{}", told.text);
    let probe = told.json()["probe"].clone();
    let text = |model: &'static str| {
        let body = json!({"model": model, "prompt": "abc", "max_tokens": 16, "temperature": 0});
        let server = &server;
        async move { server.post("/v1/completions", &body).await.ok()["choices"][0]["text"].clone() }
    };
    assert_eq!((&probe["base"], &probe["adapter"]), (&text("llama").await, &text("a").await));
    let said = probe["adapter"].as_str().expect("text").trim().to_owned();
    let piece: String = said.chars().take(3).collect();
    let kept = server.request("PUT", "/admin/adapters/b").multipart(form("all-linear"));
    let kept = kept.query(&[("probe_prompt", "abc"), ("probe_expect", &piece)]);
    assert_eq!(Answer::of(kept).await.status, StatusCode::CREATED);
    let lost = put(&server, "a", "?probe_expect=Atlantis", "layers").await.error(422);
    assert_eq!(lost["reason"], "probe_failed", "{lost}");
    assert!(lost["message"].as_str().expect("text").contains("Atlantis"), "{lost}");
    assert!(lost["probe"]["base"].is_string() && lost["probe"]["adapter"].is_string());
    assert_eq!(server.get("/admin/adapters/a").await.ok()["version"], version(&told));
    put(&server, "c", "?probe=false&probe_expect=x", "layers").await.error(400);
    put(&server, "c", "?probe_prompt=", "layers").await.error(400);
}

#[tokio::test]
async fn a_rollback_is_one_call_and_back_again_another() {
    let server = server();
    let (layers, all) = (says(&server, "layers").await, says(&server, "all-linear").await);
    let first = version(&put(&server, "a", "", "layers").await);
    roll_back(&server, "a", None).await.error(409);
    let second = version(&put(&server, "a", "", "all-linear").await);
    assert_eq!(says(&server, "a").await, all);
    let back = roll_back(&server, "a", None).await.ok();
    assert_eq!((&back["version"], &back["previous"]), (&json!(first), &json!(second)));
    assert_eq!(back["outcome"], "rolled_back");
    assert_eq!(says(&server, "a").await, layers);
    assert_eq!(says(&server, &format!("a@{second}")).await, all);
    assert_eq!(roll_back(&server, "a", None).await.ok()["version"], second);
    let to = roll_back(&server, "a", Some(json!({"version": first}))).await;
    assert_eq!((version(&to), says(&server, "a").await), (first.clone(), layers));
    let same = roll_back(&server, "a", Some(json!({"version": first}))).await.ok();
    assert_eq!(same["outcome"], "unchanged");
    roll_back(&server, "a", Some(json!({"version": "ab".repeat(32)}))).await.error(404);
    roll_back(&server, "a", Some(json!({"version": "latest"}))).await.error(400);
    roll_back(&server, "a", Some(json!({"to": first}))).await.error(400);
    roll_back(&server, "none", None).await.error(404);
    let page = server.get("/admin/adapters/a").await.ok();
    let history = page["versions"].as_array().expect("a history");
    assert_eq!((&history[0]["version"], &history[0]["current"]), (&json!(first), &json!(true)));
    assert_eq!((&history[1]["version"], &history[1]["current"]), (&json!(second), &json!(false)));
    assert_eq!(history[0]["source"]["kind"], "upload");
}

#[tokio::test]
async fn a_lost_race_says_what_is_current() {
    let server = server();
    let first = version(&put(&server, "a", "", "layers").await);
    let second = version(&put(&server, "a", "", "all-linear").await);
    let stale = format!("\"{first}\"");
    for (method, path) in [("DELETE", "/admin/adapters/a"), ("POST", "/admin/adapters/a/rollback")]
    {
        let lost = server.request(method, path).header("if-match", &stale);
        let error = Answer::of(lost).await.error(412);
        assert_eq!(error["current"], second, "{error}");
        assert!(error["message"].as_str().expect("text").contains(&second), "{error}");
    }
    let gone = request(&server, "b", "", "layers").header("if-match", &stale);
    assert!(Answer::of(gone).await.error(412)["current"].is_null());
}

#[tokio::test]
async fn an_adapter_can_be_taken_along_and_brought_back() {
    let server = server();
    let first = version(&put(&server, "a", "", "layers").await);
    put(&server, "a", "", "all-linear").await;
    let taken = server.get(&format!("/admin/adapters/a/files?version={first}")).await;
    assert_eq!(taken.headers["content-type"], "application/x-tar");
    assert_eq!(taken.headers["etag"], format!("\"{first}\""));
    let tar = server.client.get(format!("{}/admin/adapters/a/files", server.url)).send().await;
    let tar = tar.expect("an answer").bytes().await.expect("a body");
    let back = Answer::of(server.request("PUT", "/admin/adapters/b").body(tar)).await;
    assert_eq!(back.status, StatusCode::CREATED, "{}", back.text);
    assert_eq!(version(&back), server.get("/admin/adapters/a").await.ok()["version"]);
    assert!(back.json()["warnings"].to_string().find("ignored").is_none());
    server.get("/admin/adapters/none/files").await.error(404);
    server.get(&format!("/admin/adapters/a/files?version={}", "ab".repeat(32))).await.error(404);
    server.get("/admin/adapters/a/files?version=latest").await.error(400);
}

#[tokio::test]
async fn terms_are_changed_one_by_one_and_kept_over_versions() {
    let server = server();
    put(&server, "a", "", "layers").await;
    let patch = async |body: Value| {
        Answer::of(server.request("PATCH", "/admin/adapters/a").json(&body)).await
    };
    let told = patch(json!({"terms": {"pin": true, "max_requests": 4}})).await.ok();
    assert_eq!((&told["terms"]["pin"], &told["terms"]["max_requests"]), (&json!(true), &json!(4)));
    put(&server, "a", "", "all-linear").await;
    let told = patch(json!({"terms": {"max_requests": null, "share": 2.0}})).await.ok();
    assert_eq!((&told["terms"]["pin"], &told["terms"]["share"]), (&json!(true), &json!(2.0)));
    assert!(told["terms"].get("max_requests").is_none_or(Value::is_null), "{told}");
    for (body, param) in [
        (json!({"terms": {"pinn": true}}), "terms."),
        (json!({"terms": {"pin": "yes"}}), "terms.pin"),
        (json!({"terms": {"share": 0}}), "share"),
        (json!({"terms": {}, "pin": true}), ""),
        (json!({}), ""),
    ] {
        let error = patch(body).await.error(400);
        assert!(error["param"].as_str().unwrap_or_default().contains(param), "{error}");
    }
    let none = server.request("PATCH", "/admin/adapters/none").json(&json!({"terms": {}}));
    Answer::of(none).await.error(404);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let server = server();
    let all = server.get("/admin/adapters").await.ok();
    let names = |page: &Value| {
        let entries = page["adapters"].as_array().expect("a list").iter();
        entries.map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert!(all["next"].is_null() && all["total"] == names(&all).len());
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/admin/adapters?limit=1{after}")).await.ok();
        found.extend(names(&page));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(found, names(&all));
    let some = server.get("/admin/adapters?prefix=all").await.ok();
    assert!(!names(&some).is_empty() && names(&some).iter().all(|name| name.starts_with("all")));
    says(&server, "layers").await;
    let device = server.get("/admin/adapters?tier=device").await.ok();
    assert!(names(&device).contains(&"layers".to_owned()), "{device}");
    for wrong in ["limit=0", "limit=1001", "limit=x", "tier=moon", "after=a%20b", "page=2"] {
        server.get(&format!("/admin/adapters?{wrong}")).await.error(400);
    }
}

#[tokio::test]
async fn a_swap_disturbs_a_running_text_only_when_it_is_told_to() {
    let server = server();
    put(&server, "a", "", "layers").await;
    let body = json!({"model": "a", "prompt": [5, 6, 7], "max_tokens": 200, "temperature": 0,
                      "ignore_eos": true, "stream": true});
    let alone = said(&server.post("/v1/completions", &body).await.text);
    for (query, other) in [
        ("?policy=pin", "all-linear"),
        ("?policy=drain&drain_seconds=600", "all-linear"),
        ("?policy=cancel", "all-linear"),
    ] {
        put(&server, "a", "", "layers").await;
        let first = server.open("/v1/completions", &body).await;
        let mut stream = first.bytes_stream();
        let mut text = stream.next().await.expect("an event").expect("bytes").to_vec();
        assert_eq!(put(&server, "a", query, other).await.ok()["outcome"], "replaced");
        while let Some(piece) = stream.next().await {
            text.extend(piece.expect("bytes"));
        }
        let text = String::from_utf8(text).expect("text");
        // A fast machine may be done before the swap.
        let was_ended = query.contains("cancel") && text.contains("adapter_replaced");
        assert!(was_ended || said(&text) == alone, "{query}: {text}");
        assert!(alone.starts_with(&said(&text)), "{query}: {text}");
    }
    put(&server, "a", "?policy=kill", "layers").await.error(400);
    put(&server, "a", "?drain_seconds=3", "layers").await.error(400);
}

#[tokio::test]
async fn a_reference_is_followed_only_where_the_operator_allows_it() {
    let server = server();
    for source in ["http://169.254.169.254/x", "/etc/passwd", "file:///etc/passwd", "s3://b/x"] {
        let request = server.request("PUT", "/admin/adapters/a").json(&json!({"source": source}));
        let error = Answer::of(request).await.error(403);
        assert_eq!(error["reason"], "source_not_allowed", "{error}");
        assert!(error["message"].as_str().expect("text").contains("--adapter-sources"), "{error}");
    }
    for body in [json!({"source": "hf://nothing"}), json!({"path": "/x"}), json!({})] {
        let request = server.request("PUT", "/admin/adapters/a").json(&body);
        Answer::of(request).await.error(400);
    }
}
