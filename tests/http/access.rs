//! Who may do what, how much of it, and what is remembered of it.
use crate::client::{Answer, Script, Server, adapter_files, adapters, scripted};
use lorad::{
    adapter::{AdapterName, AdapterTerms, Permit, VersionId},
    http::{AppState, HttpConfig},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{fs, time::Duration};
use tempfile::TempDir;

/// A server over the adapters of `llama`, with these flags.
fn server(flags: &[&str]) -> (Server, AppState, TempDir) {
    let store = adapters("llama");
    let (server, state) = Server::over("llama", store.path(), flags);
    (server, state, store)
}

fn name(text: &str) -> AdapterName {
    text.parse().expect("a name")
}

fn hash(key: &str) -> String {
    VersionId(Sha256::digest(key).into()).to_string()
}

async fn set_terms(state: &AppState, adapter: &str, terms: AdapterTerms) {
    let set = state.registry.set_terms(name(adapter), terms, "test".into());
    set.await.expect("terms that can be kept");
}

async fn make_private(state: &AppState, adapter: &str, key: &str) {
    let keys = vec![hash(key)];
    set_terms(state, adapter, AdapterTerms { keys, ..AdapterTerms::default() }).await;
}

async fn with_key(
    server: &Server,
    (method, path): (&str, &str),
    key: Option<&str>,
    body: Option<&Value>,
) -> Answer {
    let mut request = server.request(method, path);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    Answer::of(if let Some(body) = body { request.json(body) } else { request }).await
}

/// A request that names `adapter`, in every way there is.
fn requests(adapter: &str) -> Vec<(&'static str, &'static str, Option<Value>)> {
    let chat = json!([{"role": "user", "content": "a"}]);
    vec![
        (
            "POST",
            "/v1/completions",
            Some(json!({"model": adapter, "prompt": "a", "max_tokens": 1})),
        ),
        (
            "POST",
            "/v1/completions",
            Some(json!({"prompt": "a", "adapters": [adapter], "max_tokens": 1})),
        ),
        (
            "POST",
            "/v1/completions",
            Some(json!({"prompt": "a", "lora": [{"name": adapter, "scale": 1}], "max_tokens": 1})),
        ),
        (
            "POST",
            "/v1/chat/completions",
            Some(json!({"model": adapter, "messages": chat, "max_tokens": 1})),
        ),
        (
            "POST",
            "/v1/chat/completions",
            Some(json!({"model": adapter, "messages": chat, "stream": true, "max_tokens": 1})),
        ),
        (
            "POST",
            "/generate",
            Some(
                json!({"inputs": "a", "parameters": {"adapter_id": adapter, "max_new_tokens": 1}}),
            ),
        ),
        (
            "POST",
            "/generate_stream",
            Some(
                json!({"inputs": "a", "parameters": {"adapter_id": adapter, "max_new_tokens": 1}}),
            ),
        ),
        (
            "POST",
            "/",
            Some(json!({"inputs": "a", "parameters": {"max_new_tokens": 1,
            "merged_adapters": {"ids": [adapter], "weights": [1.0]}}})),
        ),
    ]
}

#[tokio::test]
async fn anothers_private_adapter_does_not_exist_in_any_dialect() {
    for flags in [&[][..], &["--api-key=client", "--admin-key=admin"]] {
        let (server, state, _store) = server(flags);
        make_private(&state, "layers", "owner").await;
        let stranger = (!flags.is_empty()).then_some("client");
        for ((method, path, body), (_, _, unknown)) in
            requests("layers").into_iter().zip(requests("nobody"))
        {
            let foreign = with_key(&server, (method, path), stranger, body.as_ref()).await;
            let missing = with_key(&server, (method, path), stranger, unknown.as_ref()).await;
            assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{path} {}", foreign.text);
            assert_eq!(foreign.text.replace("layers", "nobody"), missing.text, "{path}");
            let own = with_key(&server, (method, path), Some("owner"), body.as_ref()).await;
            assert_eq!(own.status, StatusCode::OK, "{path} {}", own.text);
        }
        let id = state.registry.get(&name("layers")).expect("there").number;
        let by_number = json!({"prompt": "a", "lora": [{"id": id, "scale": 1}]});
        let completions = ("POST", "/v1/completions");
        let foreign = with_key(&server, completions, stranger, Some(&by_number)).await;
        assert_eq!(foreign.status, StatusCode::NOT_FOUND);
        with_key(&server, completions, Some("owner"), Some(&by_number)).await.ok();

        let names = async |path: &str, key| {
            let listed = with_key(&server, ("GET", path), key, None).await.ok();
            let list = if path == "/v1/models" { &listed["data"] } else { &listed };
            let field = if path == "/v1/models" { "id" } else { "path" };
            let list = list.as_array().expect("a list").clone();
            list.iter().filter_map(|one| one[field].as_str().map(String::from)).collect::<Vec<_>>()
        };
        for path in ["/v1/models", "/lora-adapters"] {
            assert!(!names(path, stranger).await.contains(&"layers".into()), "{path}");
            assert!(names(path, Some("owner")).await.contains(&"layers".into()), "{path}");
        }
        let card = ("GET", "/v1/models/layers");
        with_key(&server, card, stranger, None).await.error(404);
        with_key(&server, card, Some("owner"), None).await.ok();
        if !flags.is_empty() {
            assert_eq!(names("/v1/models", Some("owner")).await, ["layers"], "its own alone");
            assert!(names("/v1/models", Some("admin")).await.contains(&"layers".into()));
            with_key(&server, card, Some("admin"), None).await.ok();
        }
    }
}

#[tokio::test]
async fn a_key_of_an_adapter_is_for_that_adapter_alone() {
    let (server, state, _store) = server(&["--api-key=client"]);
    let ask = async |key, body: Value| {
        with_key(&server, ("POST", "/v1/completions"), Some(key), Some(&body)).await
    };
    ask("owner", json!({"model": "layers", "prompt": "a"})).await.error(401);
    make_private(&state, "layers", "owner").await;
    ask("owner", json!({"model": "layers", "prompt": "a"})).await.ok();
    ask("owner", json!({"model": "all-linear", "prompt": "a"})).await.error(404);
    let base = ask("owner", json!({"prompt": "a"})).await.error(403);
    assert_eq!(base["reason"], "key_needs_adapter");
    let beside = json!({"prompt": "a", "adapters": ["layers", "all-linear"]});
    ask("owner", beside).await.error(404);
    ask("client", json!({"model": "all-linear", "prompt": "a"})).await.ok();
    set_terms(&state, "layers", AdapterTerms::default()).await;
    ask("owner", json!({"model": "layers", "prompt": "a"})).await.error(401);
    ask("client", json!({"model": "layers", "prompt": "a"})).await.ok();
}

#[tokio::test]
async fn without_an_admin_key_only_this_machine_is_an_admin() {
    let api_keys = vec!["client".to_owned()];
    let config = HttpConfig { api_keys, ..HttpConfig::default() };
    let server = Server::start(scripted(Script::Echo, config));
    let path = "/admin/adapters";
    server.get(path).await.ok();
    for (header, value) in [
        ("forwarded", "for=10.0.0.1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("host", "rebound.example"),
    ] {
        let request = server.request("GET", path).header(header, value).bearer_auth("client");
        let refused = Answer::of(request).await.error(403);
        assert_eq!(refused["reason"], "admin_needs_key", "{header}");
        assert!(refused["message"].as_str().expect("text").contains("--admin-key"), "{refused}");
    }
    let admin_keys = vec!["admin".to_owned()];
    let config = HttpConfig { admin_keys, ..HttpConfig::default() };
    let server = Server::start(scripted(Script::Echo, config));
    server.get(path).await.error(401);
    let proxied = server.request("GET", path).header("x-forwarded-for", "10.0.0.1");
    Answer::of(proxied.bearer_auth("admin")).await.ok();
}

#[tokio::test]
async fn keys_come_from_files_too() {
    let files = TempDir::new().expect("a directory");
    let path = |name: &str| files.path().join(name).display().to_string();
    fs::write(path("api"), "# clients\none\ntwo\n").expect("written");
    fs::write(path("admin"), "root\n").expect("written");
    let (api, admin) = (path("api"), path("admin"));
    let flags = [format!("--api-key-file={api}"), format!("--admin-key-file={admin}")];
    let (server, _, _store) = server(&[&flags[0], &flags[1]]);
    let status = async |path, key| with_key(&server, ("GET", path), key, None).await.status;
    assert_eq!(status("/v1/models", Some("two")).await, StatusCode::OK);
    assert_eq!(status("/v1/models", Some("three")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status("/admin/adapters", Some("two")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status("/admin/adapters", Some("root")).await, StatusCode::OK);
}

fn free(state: &AppState) -> Option<Vec<Permit>> {
    state.registry.admit([&name("layers")]).ok()
}

/// When the request that held the only place is over.
async fn freed(state: &AppState) {
    while free(state).is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_adapter_takes_so_many_requests_at_one_time() {
    let (server, state, _store) = server(&[]);
    set_terms(&state, "layers", AdapterTerms { max_requests: Some(1), ..Default::default() }).await;
    let place = free(&state).expect("nobody is there");
    let routes = requests("layers");
    for (method, path, body) in &routes {
        let refused = with_key(&server, (method, path), None, body.as_ref()).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{path} {}", refused.text);
        assert_eq!(refused.headers["retry-after"], "1");
    }
    let body = json!({"model": "layers", "prompt": "a", "max_tokens": 1});
    let refused = server.post("/v1/completions", &body).await.error(429);
    assert_eq!((&refused["reason"], &refused["param"]), (&json!("adapter_busy"), &json!("model")));
    let mix = json!({"prompt": "a", "adapters": ["all-linear", "layers"]});
    let refused = server.post("/v1/completions", &mix).await.error(429);
    assert_eq!(refused["param"], "adapters[1]");
    drop(place);
    for (method, path, body) in &routes {
        let answer = with_key(&server, (method, path), None, body.as_ref()).await;
        assert_eq!(answer.status, StatusCode::OK, "{path} {}", answer.text);
        freed(&state).await;
    }
}

#[tokio::test]
async fn a_place_comes_back_when_the_answer_ends_fails_or_loses_its_client() {
    let (server, state, _store) = server(&[]);
    set_terms(&state, "layers", AdapterTerms { max_requests: Some(1), ..Default::default() }).await;
    let long = json!({"model": "layers", "prompt": "a", "n": 8, "max_tokens": 200,
                      "ignore_eos": true, "stream": true});
    let stream = server.open("/v1/completions", &long).await;
    assert!(free(&state).is_none(), "the stream has the place until its end");
    assert!(stream.text().await.expect("a whole stream").ends_with("data: [DONE]\n\n"));
    freed(&state).await;

    let stream = server.open("/v1/completions", &long).await;
    drop(stream);
    freed(&state).await;

    let too_long = json!({"model": "layers", "prompt": vec![5; 400]});
    server.post("/v1/completions", &too_long).await.error(400);
    freed(&state).await;
    let whole = json!({"model": "layers", "prompt": "a", "n": 8, "max_tokens": 200,
                       "ignore_eos": true});
    let left = server.open("/v1/completions", &whole);
    tokio::time::timeout(Duration::from_millis(5), left).await.expect_err("the client left");
    freed(&state).await;
}

#[tokio::test]
async fn an_adapter_takes_so_many_requests_a_minute() {
    let (server, state, _store) = server(&[]);
    let slow = AdapterTerms { requests_per_minute: Some(1), ..AdapterTerms::default() };
    set_terms(&state, "layers", slow).await;
    let body = json!({"model": "layers", "prompt": ["a", "b"], "max_tokens": 1});
    server.post("/v1/completions", &body).await.ok();
    let refused = server.post("/v1/completions", &body).await;
    let wait: u64 =
        refused.headers["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((30..=60).contains(&wait), "{wait}");
    let error = refused.error(429);
    assert_eq!(error["reason"], "adapter_rate_limited");
    assert!(error["message"].as_str().expect("text").contains(&wait.to_string()), "{error}");
    set_terms(&state, "layers", AdapterTerms::default()).await;
    server.post("/v1/completions", &body).await.ok();
}

#[tokio::test]
async fn what_an_adapter_answers_is_counted_under_its_name() {
    let (server, _, _store) = server(&[]);
    let usage = async |adapter: &str| {
        server.get(&format!("/admin/adapters/{adapter}")).await.ok()["usage"].clone()
    };
    assert_eq!(usage("layers").await["last_used"], Value::Null);
    let body = json!({"model": "layers", "prompt": [5, 6, 7], "max_tokens": 4, "n": 2,
                      "ignore_eos": true});
    server.post("/v1/completions", &body).await.ok();
    let mix = json!({"adapters": ["layers", "all-linear"], "prompt": [5], "max_tokens": 1,
                     "ignore_eos": true, "stream": true});
    server.post("/v1/completions", &mix).await.events();
    let expected = |requests, prompt, generated| {
        json!({"requests": requests, "prompt_tokens": prompt, "cached_tokens": 0,
               "generated_tokens": generated, "errors": 0})
    };
    for (adapter, expected) in [("layers", expected(2, 4, 9)), ("all-linear", expected(1, 1, 1))] {
        let mut usage = usage(adapter).await;
        let last_used = usage.as_object_mut().expect("an object").remove("last_used");
        assert!(last_used.expect("a field").as_u64().expect("seconds") > 1_700_000_000);
        assert_eq!(usage, expected, "{adapter}");
    }
}

/// The events of a name: who, what.
async fn events(server: &Server, path: &str, key: Option<&str>) -> Vec<(String, String)> {
    let listed = with_key(server, ("GET", path), key, None).await.ok();
    let text = |event: &Value, field: &str| event[field].as_str().expect(field).to_owned();
    let events = listed["events"].as_array().expect("a list");
    events.iter().map(|event| (text(event, "actor"), text(event, "action"))).collect()
}

async fn put(server: &Server, adapter: &str, files: &str, key: Option<&str>) {
    let mut form = reqwest::multipart::Form::new();
    for (name, bytes) in adapter_files("llama", files).named() {
        let part = reqwest::multipart::Part::bytes(bytes.to_vec()).file_name(name);
        form = form.part(name, part);
    }
    let mut request = server.request("PUT", &format!("/admin/adapters/{adapter}"));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let answer = Answer::of(request.multipart(form)).await;
    assert!(answer.status.is_success(), "{}", answer.text);
}

#[tokio::test]
async fn who_did_what_is_remembered_over_restarts() {
    let store = adapters("llama");
    let (server, state) = Server::over("llama", store.path(), &[]);
    put(&server, "a", "layers", None).await;
    put(&server, "a", "all-linear", None).await;
    set_terms(&state, "a", AdapterTerms { max_requests: Some(1), ..Default::default() }).await;
    let told = |events: &[(&str, &str)]| -> Vec<(String, String)> {
        events.iter().map(|(actor, action)| (actor.to_string(), action.to_string())).collect()
    };
    let of_a = "/admin/events?name=a";
    let before = told(&[("test", "terms"), ("loopback", "replace"), ("loopback", "publish")]);
    assert_eq!(events(&server, of_a, None).await, before);
    let all = events(&server, "/admin/events?limit=1000", None).await;
    assert!(all.contains(&("start".into(), "publish".into())), "drop-ins too: {all:?}");
    drop(state);
    server.stop().await.expect("no panic").expect("a clean end");

    let (server, _) = Server::over("llama", store.path(), &["--admin-key=the-secret"]);
    let key = Some("the-secret");
    let gone = with_key(&server, ("DELETE", "/admin/adapters/a"), key, None).await;
    gone.ok();
    let actor = &hash("the-secret")[..8];
    let mut after = told(&[(actor, "retire")]);
    after.extend(before);
    assert_eq!(events(&server, of_a, key).await, after);
    let listed = with_key(&server, ("GET", of_a), key, None).await;
    assert!(!listed.text.contains("the-secret"));
    let events = listed.ok()["events"].clone();
    assert_eq!(events[0]["previous"], events[2]["version"]);
    assert_eq!(events[2]["previous"], events[3]["version"]);
    for wrong in ["limit=0", "limit=1001", "limit=x", "actor=a"] {
        let path = format!("/admin/events?{wrong}");
        with_key(&server, ("GET", &path), key, None).await.error(400);
    }
}
