//! Uploads as bodies: every form, never whole in memory, nothing left of those that fail.
use crate::client::{Answer, Script, Server, adapter_files, on_this_machine, scripted};
use axum::{
    body::{Body, Bytes},
    http::Request,
};
use flate2::{Compression, write::GzEncoder};
use futures_util::{StreamExt, stream};
use lorad::{adapter::upload::Staging, http::HttpConfig};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::{convert::Infallible, fs, path::Path, time::Duration};
use tempfile::TempDir;
use tower::ServiceExt;

/// Bytes of all files below.
fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(bytes).sum()
}

/// Uploads that lie in a place for them.
fn uploads_in(place: &Path) -> usize {
    fs::read_dir(place).expect("a directory").count() - 1
}

/// A tar.gz of a golden adapter, in a directory and with a file that is none of its own.
fn packed(adapter: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let files = adapter_files("llama", adapter);
    let readme = ("README.md", &Bytes::from_static(b"# mine"));
    for (name, bytes) in files.named().into_iter().chain([readme]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("mine/{name}"), &bytes[..]).expect("memory");
    }
    tar.into_inner().and_then(GzEncoder::finish).expect("memory")
}

async fn put(server: &Server, name: &str, body: impl Into<reqwest::Body>) -> Answer {
    Answer::of(server.request("PUT", &format!("/admin/adapters/{name}")).body(body)).await
}

#[tokio::test]
async fn an_archive_is_an_adapter_and_what_else_is_in_it_is_told() {
    let server = Server::golden("llama");
    let created = put(&server, "packed", packed("layers")).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    let warnings = &created.json()["warnings"];
    assert!(warnings[0].as_str().expect("a warning").contains("README.md"), "{warnings}");
    let layers = server.get("/admin/adapters/layers").await;
    assert_eq!(layers.headers["etag"], created.headers["etag"]);
    let form = reqwest::multipart::Form::new();
    let part = reqwest::multipart::Part::bytes(packed("layers")).file_name("mine.tar.gz");
    let form = server.request("PUT", "/admin/adapters/part").multipart(form.part("file", part));
    assert_eq!(Answer::of(form).await.status, StatusCode::CREATED);
}

/// A tar of a golden classifier as PEFT saved it, and of these files beside it.
fn classifier(beside: &[(&str, &str)]) -> Vec<u8> {
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama_tied/adapters/labels");
    let own = ["adapter_config.json", "adapter_model.safetensors"];
    let own = own.map(|name| (name, fs::read(directory.join(name)).expect("a golden file")));
    let beside = beside.iter().map(|(name, text)| (*name, text.as_bytes().to_vec()));
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in own.into_iter().chain(beside) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).expect("memory");
    }
    tar.into_inner().expect("memory")
}

#[tokio::test]
async fn names_of_labels_come_with_the_upload_and_are_part_of_the_version() {
    let server = Server::golden("llama_tied");
    let plain = put(&server, "desk", classifier(&[])).await;
    assert_eq!(plain.status, StatusCode::CREATED, "{}", plain.text);
    let labels = |answer: &Answer| answer.json()["labels"].clone();
    assert_eq!(labels(&plain), json!(["LABEL_0", "LABEL_1", "LABEL_2"]));
    assert_eq!(
        (&plain.json()["task"], &plain.json()["head"]),
        (&json!("SEQ_CLS"), &json!([3, 64]))
    );
    let model = r#"{"id2label": {"0": "a", "1": "b", "2": "c"}}"#;
    let beside = put(&server, "desk", classifier(&[("config.json", model)])).await;
    assert_eq!(labels(&beside), json!(["a", "b", "c"]));
    let warnings = beside.json()["warnings"].to_string();
    assert!(!warnings.contains("ignored"), "{warnings}");
    let given =
        put(&server, "desk?labels=no,%20yes,very", classifier(&[("config.json", model)])).await;
    assert_eq!(labels(&given), json!(["no", "yes", "very"]));
    let versions = [&plain, &beside, &given].map(|answer| answer.json()["version"].clone());
    assert!(versions[0] != versions[1] && versions[1] != versions[2]);
    let part = reqwest::multipart::Part::bytes(classifier(&[])).file_name("desk.tar");
    let form = reqwest::multipart::Form::new().text("labels", "no,yes,very").part("archive", part);
    let form = Answer::of(server.request("PUT", "/admin/adapters/desk").multipart(form)).await;
    assert_eq!(
        (form.json()["version"].clone(), &form.json()["outcome"]),
        (versions[2].clone(), &json!("unchanged"))
    );
    let page = server.get("/admin/adapters/desk").await.ok();
    assert_eq!(
        (&page["labels"], &page["versions"][1]["labels"]),
        (&json!(["no", "yes", "very"]), &json!(["a", "b", "c"]))
    );
    let probed = put(&server, "desk?probe=true", classifier(&[])).await.error(400);
    assert_eq!(probed["param"], "probe", "{probed}");
    for wrong in ["no,yes", "no,,yes", "no,no,yes"] {
        let error = put(&server, &format!("desk?labels={wrong}"), classifier(&[])).await.error(400);
        assert_eq!(error["reason"], "invalid_adapter", "{error}");
    }
}

#[tokio::test]
async fn every_refusal_has_its_reason_and_leaves_nothing() {
    let server = Server::golden("llama");
    let before = server.get("/admin/adapters").await.ok();
    let cut = packed("layers");
    let tar = |name: &str| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(0);
        header.set_cksum();
        [header.as_bytes().to_vec(), vec![0; 1024]].concat()
    };
    for (body, reason) in [
        (b"hello".to_vec(), "unknown_upload_form"),
        (cut[..cut.len() / 2].to_vec(), "broken_archive"),
        (tar("../../evil"), "unsafe_archive"),
        (tar("README.md"), "invalid_adapter"),
        (tar("adapter_model.bin"), "unsupported_adapter"),
        (b"GGUF and more".to_vec(), "invalid_adapter"),
    ] {
        let error = put(&server, "bad", body).await.error(400);
        assert_eq!(error["reason"], reason, "{error}");
        assert!(!error["message"].as_str().expect("text").contains("/tmp"), "{error}");
    }
    assert_eq!(server.get("/admin/adapters").await.ok(), before);
    let place = fs::read_dir(server.store().join(".lorad/incoming")).expect("a directory");
    let places: Vec<_> = place.map(|entry| entry.expect("an entry").path()).collect();
    let [place] = &places[..] else { panic!("{places:?}") };
    assert_eq!(uploads_in(place), 0);
}

/// The staged file follows what has been taken from the body: what lies between is in memory.
#[tokio::test]
async fn a_large_upload_is_never_held_in_memory() {
    const PIECE: u64 = 256 << 10;
    const PIECES: u64 = 1200;
    let parent = TempDir::new().expect("a directory");
    let staging = Staging::open(parent.path()).expect("a place");
    let place = staging.path().to_owned();
    let app = scripted(Script::Echo, HttpConfig::default()).with_staging(staging);
    let piece = Bytes::from(vec![7; PIECE as usize]);
    let watched = place.clone();
    let pieces = stream::iter(0..PIECES).map(move |number| {
        let in_memory = (number * PIECE).saturating_sub(bytes_below(&watched));
        assert!(in_memory <= 4 * PIECE, "{in_memory} bytes are in memory");
        Ok::<_, Infallible>(piece.clone())
    });
    let request = Request::put("/admin/adapters/x").body(Body::from_stream(pieces));
    let service = on_this_machine(app);
    let answer = service.clone().oneshot(request.expect("a request")).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert_eq!(uploads_in(&place), 0);
}

#[tokio::test]
async fn an_upload_over_the_limit_is_refused_with_the_limit_and_leaves_nothing() {
    let parent = TempDir::new().expect("a directory");
    let staging = Staging::open(parent.path()).expect("a place");
    let place = staging.path().to_owned();
    let config = HttpConfig { max_upload_bytes: 1000, ..HttpConfig::default() };
    let service = on_this_machine(scripted(Script::Echo, config).with_staging(staging));
    let form = "--x\r\ncontent-disposition: form-data; name=\"config\"\r\n\r\n";
    let long = "a".repeat(2000);
    for (kind, start) in
        [("application/octet-stream", ""), ("multipart/form-data; boundary=x", form)]
    {
        for declared in [true, false] {
            let pieces = stream::iter([start.to_owned(), long.clone()].map(Ok::<_, Infallible>));
            let mut request = Request::put("/admin/adapters/x").header("content-type", kind);
            if declared {
                request = request.header("content-length", start.len() + long.len());
            }
            let request = request.body(Body::from_stream(pieces)).expect("a request");
            let answer = service.clone().oneshot(request).await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "{kind} {declared}");
            let body = axum::body::to_bytes(answer.into_body(), 10_000).await.expect("a body");
            let error: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(error["error"]["reason"], "body_too_large");
            assert_eq!(uploads_in(&place), 0);
        }
    }
}

#[tokio::test]
async fn an_upload_whose_client_leaves_is_removed() {
    let parent = TempDir::new().expect("a directory");
    let staging = Staging::open(parent.path()).expect("a place");
    let place = staging.path().to_owned();
    let app = scripted(Script::Echo, HttpConfig::default()).with_staging(staging);
    let server = Server::start(app);
    let endless = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from(vec![7; 1 << 16])));
    let sent = server.request("PUT", "/admin/adapters/x");
    let sent = tokio::spawn(sent.body(reqwest::Body::wrap_stream(endless)).send());
    while bytes_below(&place) < 1 << 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sent.abort();
    while uploads_in(&place) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
