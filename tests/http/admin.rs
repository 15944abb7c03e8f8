//! Adapters come, change and go while requests run.
use crate::client::{Answer, Server, adapter_files};
use futures_util::future::join_all;
use reqwest::{
    StatusCode,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

fn server() -> Server {
    Server::golden("llama")
}

/// The files of a golden adapter as a form.
fn form(adapter: &str) -> Form {
    let mut form = Form::new();
    for (name, bytes) in adapter_files("llama", adapter).named() {
        let field = if name == "adapter_config.json" { "config" } else { "weights" };
        form = form.part(field, Part::bytes(bytes.to_vec()).file_name(name));
    }
    form
}

async fn put(
    server: &Server,
    name: &str,
    adapter: &str,
    condition: Option<(&str, &str)>,
) -> Answer {
    let mut request = server.request("PUT", &format!("/admin/adapters/{name}"));
    if let Some((header, value)) = condition {
        request = request.header(header, value);
    }
    Answer::of(request.multipart(form(adapter))).await
}

async fn delete(server: &Server, name: &str) -> Answer {
    Answer::of(server.request("DELETE", &format!("/admin/adapters/{name}"))).await
}

async fn ask(server: &Server, model: &str) -> Answer {
    let body = json!({"model": model, "prompt": [5, 6, 7], "max_tokens": 8, "temperature": 0,
                      "ignore_eos": true});
    server.post("/v1/completions", &body).await
}

fn text(answer: &Answer) -> String {
    answer.ok()["choices"][0]["text"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn an_uploaded_adapter_answers_at_once_and_as_if_it_had_always_been_there() {
    let server = server();
    ask(&server, "fresh").await.error(404);
    let created = put(&server, "fresh", "layers", None).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    let told = created.json();
    let version = told["version"].as_str().expect("a version");
    assert_eq!(created.headers["etag"], format!("\"{version}\""));
    assert_eq!((&told["name"], &told["outcome"]), (&json!("fresh"), &json!("created")));
    assert_eq!(told["durable"], true, "this server has a store");
    for count in ["rank", "bytes", "sites"] {
        assert!(told[count].as_u64().expect(count) > 0, "{count}");
    }
    assert_eq!(text(&ask(&server, "fresh").await), text(&ask(&server, "layers").await));
    let listed = server.get("/admin/adapters").await.ok();
    let names = listed["adapters"].as_array().expect("a list").iter().map(|entry| &entry["name"]);
    assert!(names.into_iter().any(|name| name == "fresh"));
    let entry = server.get("/admin/adapters/fresh").await;
    assert_eq!(entry.headers["etag"], created.headers["etag"]);
    assert_eq!(entry.ok()["version"], version);
}

/// A GGUF adapter of `tests/golden`.
fn gguf(name: &str) -> Vec<u8> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/gguf/lora");
    std::fs::read(format!("{directory}/{name}.gguf")).expect("a GGUF adapter")
}

#[tokio::test]
async fn a_gguf_file_is_an_adapter_as_a_part_or_as_the_body() {
    let server = server();
    let layers = text(&ask(&server, "layers").await);
    let body = server.request("PUT", "/admin/adapters/body").body(gguf("llama-layers-f32"));
    let body = Answer::of(body).await;
    assert_eq!(body.status, StatusCode::CREATED, "{}", body.text);
    let part = Part::bytes(gguf("llama-layers-f32")).file_name("mine-f32.gguf");
    let form = Form::new().part("file", part);
    let form = server.request("PUT", "/admin/adapters/part").multipart(form);
    let part = Answer::of(form).await;
    assert_eq!(part.status, StatusCode::CREATED, "{}", part.text);
    assert_eq!(part.headers["etag"], body.headers["etag"]);
    for name in ["body", "part"] {
        assert_eq!(text(&ask(&server, name).await), layers, "{name}");
    }
    let neither = server.request("PUT", "/admin/adapters/x").body("no adapter");
    let refused = Answer::of(neither).await.error(400);
    assert!(refused["message"].as_str().expect("text").contains("GGUF"), "{refused}");
    let other = server.request("PUT", "/admin/adapters/x").body(gguf("qwen3-all-linear-f32"));
    Answer::of(other).await.error(400);
}

#[tokio::test]
async fn the_same_content_changes_nothing_and_other_content_replaces() {
    let server = server();
    let first = put(&server, "a", "layers", None).await;
    let again = put(&server, "a", "layers", None).await;
    assert_eq!(again.ok()["outcome"], "unchanged");
    assert_eq!(again.headers["etag"], first.headers["etag"]);
    let other = put(&server, "a", "all-linear", None).await;
    assert_eq!(other.ok()["outcome"], "replaced");
    assert_ne!(other.headers["etag"], first.headers["etag"]);
    assert_eq!(text(&ask(&server, "a").await), text(&ask(&server, "all-linear").await));
}

#[tokio::test]
async fn conditions_guard_against_overwriting_what_one_has_not_seen() {
    let server = server();
    let none = Some(("if-none-match", "*"));
    let first = put(&server, "a", "layers", none).await;
    assert_eq!(first.status, StatusCode::CREATED);
    put(&server, "a", "all-linear", none).await.error(412);
    let etag = first.headers["etag"].to_str().expect("text").to_owned();
    let replaced = put(&server, "a", "all-linear", Some(("if-match", &etag))).await;
    assert_eq!(replaced.ok()["outcome"], "replaced");
    let lost = put(&server, "a", "layers", Some(("if-match", &etag))).await.error(412);
    let current = replaced.ok()["version"].clone();
    assert!(lost["message"].as_str().expect("text").contains(current.as_str().expect("text")));
    put(&server, "b", "layers", Some(("if-match", &etag))).await.error(412);
    put(&server, "a", "layers", Some(("if-match", "\"nonsense\""))).await.error(400);
    let stale = server.request("DELETE", "/admin/adapters/a").header("if-match", &etag);
    Answer::of(stale).await.error(412);
}

#[tokio::test]
async fn a_retired_adapter_is_gone_and_can_come_back() {
    let server = server();
    put(&server, "a", "layers", None).await;
    assert_eq!(delete(&server, "a").await.ok()["outcome"], "retired");
    let error = ask(&server, "a").await.error(404);
    assert!(error["message"].as_str().expect("text").contains("`a`"));
    delete(&server, "a").await.error(404);
    server.get("/admin/adapters/a").await.error(404);
    assert_eq!(put(&server, "a", "layers", None).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn what_is_no_adapter_is_refused_and_leaves_nothing() {
    let server = server();
    let before = server.get("/admin/adapters").await.ok();
    for name in ["..%2Fa", "a%20b", "-a", "%00", "llama", "%E2%80%AEa"] {
        put(&server, name, "layers", None).await.error(400);
    }
    let send = async |form: Form| {
        Answer::of(server.request("PUT", "/admin/adapters/bad").multipart(form)).await
    };
    let files = adapter_files("llama", "layers");
    let bytes = |bytes: &[u8]| Part::bytes(bytes.to_vec());
    let [(_, config), (_, weights)] = files.named()[..] else { unreachable!("PEFT's form") };
    let (config, weights) = (config.as_ref(), weights.as_ref());
    let cut = &weights[..weights.len() / 2];
    for (form, param) in [
        (Form::new(), "body"),
        (Form::new().part("config", bytes(config)), "weights"),
        (Form::new().part("weights", bytes(weights)), "config"),
        (Form::new().part("other", bytes(config)), "body"),
    ] {
        assert_eq!(send(form).await.error(400)["param"], param);
    }
    for (config, weights) in [
        (config, cut),
        (config, b"".as_slice()),
        (b"{}".as_slice(), weights),
        (b"not json".as_slice(), weights),
        (weights, config),
    ] {
        let form = Form::new().part("config", bytes(config)).part("weights", bytes(weights));
        let error = send(form).await.error(400);
        assert!(!error["message"].as_str().expect("text").contains("/tmp"), "{error}");
    }
    let twice = Form::new().part("config", bytes(config)).part("config", bytes(config));
    send(twice).await.error(400);
    let plain = server.request("PUT", "/admin/adapters/bad").json(&json!({"path": "/etc"}));
    Answer::of(plain).await.error(400);
    let mut after = server.get("/admin/adapters").await.ok();
    let mut before = before;
    for list in [&mut before, &mut after] {
        for entry in list["adapters"].as_array_mut().expect("a list") {
            entry["resident"] = Value::Null;
        }
    }
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_file_name_says_which_part_it_is() {
    let server = server();
    let files = adapter_files("llama", "layers");
    let part = |bytes: &[u8], name: &'static str| Part::bytes(bytes.to_vec()).file_name(name);
    let [(_, config), (_, weights)] = files.named()[..] else { unreachable!("PEFT's form") };
    let form = Form::new()
        .part("file", part(weights, "adapter_model.safetensors"))
        .part("file", part(config, "adapter_config.json"));
    let answer = Answer::of(server.request("PUT", "/admin/adapters/a").multipart(form)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
}

#[tokio::test]
async fn swapping_under_load_loses_no_answer_and_mixes_none() {
    let server = server();
    put(&server, "hot", "layers", None).await;
    let possible = [text(&ask(&server, "layers").await), text(&ask(&server, "all-linear").await)];
    assert_ne!(possible[0], possible[1]);
    let swaps = async {
        for round in 0..12 {
            let content = ["all-linear", "layers"][round % 2];
            assert_eq!(put(&server, "hot", content, None).await.ok()["outcome"], "replaced");
        }
    };
    let load = join_all((0..6).map(async |_| {
        for _ in 0..12 {
            let answered = text(&ask(&server, "hot").await);
            assert!(possible.contains(&answered), "neither version says {answered}");
        }
    }));
    tokio::join!(swaps, load);
    assert_eq!(text(&ask(&server, "hot").await), possible[0], "the last upload won");
}

#[tokio::test]
async fn retiring_under_load_answers_every_request_in_full_or_with_404() {
    let server = server();
    let expected = text(&ask(&server, "layers").await);
    let changes = async {
        for _ in 0..8 {
            put(&server, "hot", "layers", None).await;
            ask(&server, "hot").await;
            delete(&server, "hot").await;
        }
    };
    let load = join_all((0..4).map(async |_| {
        for _ in 0..16 {
            let answer = ask(&server, "hot").await;
            if answer.status == StatusCode::NOT_FOUND {
                continue;
            }
            assert_eq!(text(&answer), expected);
        }
    }));
    tokio::join!(changes, load);
}

#[tokio::test]
async fn a_wrong_name_or_condition_is_told_before_the_upload_is_read() {
    let server = server();
    for (name, condition, param) in
        [("a%20b", None, "name"), ("llama", None, "name"), ("new", Some("\"12\""), "if-match")]
    {
        let mut request = server.request("PUT", &format!("/admin/adapters/{name}"));
        if let Some(version) = condition {
            request = request.header("if-match", version);
        }
        let error = Answer::of(request.body("no form at all")).await.error(400);
        assert_eq!(error["param"], param, "{error}");
    }
}
