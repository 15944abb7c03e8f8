//! vLLM's routes to load and unload adapters, as its control planes call them.
use crate::client::{Answer, Server, adapter_files};
use lorad::adapter::write;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

const LOAD: &str = "/v1/load_lora_adapter";
const UNLOAD: &str = "/v1/unload_lora_adapter";

/// A server, and directories below and beside the one that clients may name.
struct Yard {
    server: Server,
    disk: TempDir,
}

impl Yard {
    fn new() -> Self {
        let disk = TempDir::new().expect("a directory");
        for (place, adapter) in [("in/a", "layers"), ("in/b", "all-linear"), ("out/a", "layers")] {
            let place = disk.path().join(place);
            std::fs::create_dir_all(place.parent().expect("a parent")).expect("made");
            write(&adapter_files("llama", adapter), &place, false).expect("written");
        }
        let prefix = disk.path().join("in");
        let prefix = prefix.to_str().expect("UTF-8");
        let flags = ["--lora-path-prefixes", prefix, "--adapter-sources", "hf://mine/"];
        Self { server: Server::golden_with("llama", &flags), disk }
    }

    fn path(&self, name: &str) -> String {
        self.disk.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    async fn load(&self, name: &str, path: &str) -> Answer {
        self.server.post(LOAD, &json!({"lora_name": name, "lora_path": path})).await
    }

    async fn has(&self, name: &str) -> bool {
        let models = self.server.get("/v1/models").await.ok();
        let cards = models["data"].as_array().expect("a list");
        cards.iter().any(|card| card["id"] == name && !card["parent"].is_null())
    }
}

fn said(answer: &Answer, status: u16, text: &str) {
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (status, text));
    assert!(answer.headers["content-type"].to_str().expect("text").starts_with("text/plain"));
}

/// The error object; the same fields stand beside it, where some control planes look for them.
fn refused(answer: &Answer, status: u16, kind: &str) -> String {
    let error = answer.error(status);
    let body = answer.json();
    for field in ["message", "type", "param", "code"] {
        assert_eq!(body[field], error[field], "{body}");
    }
    assert_eq!((&body["object"], &error["type"]), (&json!("error"), &json!(kind)), "{body}");
    assert_eq!(error["code"], status);
    error["message"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn an_adapter_comes_answers_and_goes() {
    let yard = Yard::new();
    let loaded = yard.load("new", &yard.path("in/a")).await;
    said(&loaded, 200, "Success: LoRA adapter 'new' added successfully.");
    assert!(yard.has("new").await);
    let ask = |model: &str| json!({"model": model, "prompt": [5, 6, 7], "max_tokens": 6, "temperature": 0});
    let new = yard.server.post("/v1/completions", &ask("new")).await.ok();
    let old = yard.server.post("/v1/completions", &ask("layers")).await.ok();
    assert_eq!(new["choices"][0]["text"], old["choices"][0]["text"]);

    let body = json!({"lora_name": "new", "lora_int_id": 3});
    let gone = yard.server.post(UNLOAD, &body).await;
    said(&gone, 200, "Success: LoRA adapter 'new' removed successfully.");
    assert!(!yard.has("new").await);
    let again = yard.server.post(UNLOAD, &body).await;
    let message = refused(&again, 404, "NotFoundError");
    assert_eq!(message, "The lora adapter 'new' cannot be found.");
    let nothing = yard.server.post(UNLOAD, &json!({})).await;
    let message = refused(&nothing, 400, "InvalidUserInput");
    assert_eq!(message, "'lora_name' needs to be provided to unload a LoRA adapter.");
}

#[tokio::test]
async fn the_same_again_is_done_and_other_content_must_say_in_place() {
    let yard = Yard::new();
    let (a, b) = (yard.path("in/a"), yard.path("in/b"));
    for _ in 0..2 {
        let loaded = yard.load("x", &a).await;
        said(&loaded, 200, "Success: LoRA adapter 'x' added successfully.");
    }
    let taken = refused(&yard.load("x", &b).await, 400, "InvalidUserInput");
    assert_eq!(
        taken,
        "The lora adapter 'x' has already been loaded. If you want to load the adapter in place, set \
         'load_inplace' to True."
    );
    // What the lora-syncer sends besides, and what vLLM knows and lorad does not need.
    let body = json!({"lora_name": "x", "lora_path": b, "load_inplace": true, "base_model_name": "any",
                      "is_3d_lora_weight": false});
    said(
        &yard.server.post(LOAD, &body).await,
        200,
        "Success: LoRA adapter 'x' added successfully.",
    );
    let version = |page: Value| page["version"].as_str().expect("a version").to_owned();
    let now = version(yard.server.get("/admin/adapters/x").await.ok());
    assert_eq!(now, version(yard.server.get("/admin/adapters/all-linear").await.ok()));
}

#[tokio::test]
async fn a_name_of_the_store_is_a_path() {
    let yard = Yard::new();
    for (name, path) in [("layers", "layers"), ("twin", "layers")] {
        let expected = format!("Success: LoRA adapter '{name}' added successfully.");
        said(&yard.load(name, path).await, 200, &expected);
    }
    refused(&yard.load("layers", "all-linear").await, 400, "InvalidUserInput");
}

#[tokio::test]
async fn what_is_not_allowed_is_answered_alike_whether_it_is_there_or_not() {
    let yard = Yard::new();
    let mut messages = Vec::new();
    for path in [
        yard.path("out/a"),
        yard.path("out/none"),
        yard.path("in/../out/a"),
        "/etc/passwd".into(),
        "/no/such/place".into(),
        "~/a".into(),
        "./a".into(),
        "unknown".into(),
        "other/name".into(),
        "hf://other/name@main".into(),
        "s3://bucket/a".into(),
    ] {
        let answer = yard.load("x", &path).await;
        messages.push(refused(&answer, 400, "InvalidUserInput"));
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(!yard.has("x").await);
}

#[tokio::test]
async fn what_cannot_be_loaded_says_why_in_vllms_words() {
    let yard = Yard::new();
    let none = yard.path("in/none");
    let message = refused(&yard.load("x", &none).await, 404, "NotFoundError");
    assert_eq!(message, format!("Loading lora x failed: No adapter found for {none}"));

    std::fs::write(Path::new(&yard.path("in/a")).join("adapter_config.json"), "{}")
        .expect("written");
    let message = refused(&yard.load("x", &yard.path("in/a")).await, 400, "BadRequestError");
    assert!(message.starts_with("Loading lora x failed: "), "{message}");

    for body in [
        json!({"lora_name": "x"}),
        json!({"lora_path": "y"}),
        json!({"lora_name": "", "lora_path": "y"}),
    ] {
        let answer = yard.server.post(LOAD, &body).await;
        let message = refused(&answer, 400, "InvalidUserInput");
        assert_eq!(message, "Both 'lora_name' and 'lora_path' must be provided.");
    }
    refused(&yard.load("../x", &none).await, 400, "InvalidUserInput");
    refused(&yard.load("llama", &none).await, 400, "InvalidUserInput");
}
