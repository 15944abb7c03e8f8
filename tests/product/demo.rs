//! The embedded default answers as `demo/examples.json` says, and learns new tricks while it runs.
use crate::running::{Running, adapter, rescaled};
use futures_util::future::join_all;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

/// One prompt and what transformers and PEFT answer to it, by adapter.
#[derive(Deserialize)]
struct Example {
    prompt: String,
    expected: BTreeMap<String, String>,
    max_tokens: u64,
}

fn examples() -> Vec<Example> {
    serde_json::from_str(include_str!("../../demo/examples.json")).expect("examples")
}

/// What clients call the adapter of an example.
fn model(adapter: &str) -> &str {
    if adapter == "base" { lorad::demo::NAME } else { adapter }
}

async fn every_example_at_once(flags: &[&str]) {
    let server = Running::start(flags).await;
    let (examples, server_ref) = (examples(), &server);
    let asked = examples.iter().flat_map(|example| {
        example.expected.iter().map(move |(adapter, expected)| async move {
            let answer = server_ref.chat(model(adapter), &example.prompt, example.max_tokens).await;
            assert_eq!(answer, *expected, "{adapter}: {}", example.prompt);
        })
    });
    assert!(examples.len() >= 6 && examples[0].expected.len() == 4);
    join_all(asked).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn base_and_adapters_answer_all_examples_in_one_batch() {
    every_example_at_once(&["--precision", "f32"]).await;
    every_example_at_once(&["--precision", "bf16"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_repositorys_directory_serves_what_is_embedded() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/adapters");
    let copy = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(directory).expect("adapters") {
        let entry = entry.expect("an entry");
        let target = copy.path().join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&target).expect("a directory");
            for file in std::fs::read_dir(entry.path()).expect("an adapter") {
                let file = file.expect("a file");
                std::fs::copy(file.path(), target.join(file.file_name())).expect("a copy");
            }
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
    std::fs::create_dir(copy.path().join("broken")).expect("a directory");
    std::fs::write(copy.path().join("broken/adapter_config.json"), "{").expect("a file");
    every_example_at_once(&["--adapters", copy.path().to_str().expect("UTF-8")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_under_load_loses_nothing_and_is_answered_by_the_next_request() {
    let server = Running::start(&[]).await;
    let example = &examples()[0];
    let (running, answered) = (AtomicBool::new(true), AtomicUsize::new(0));
    let load = async {
        let client = |adapter: &'static str| {
            let (server, running, answered) = (&server, &running, &answered);
            async move {
                while running.load(Relaxed) {
                    let answer = server.chat(model(adapter), &example.prompt, example.max_tokens);
                    assert_eq!(answer.await, example.expected[adapter], "{adapter}");
                    answered.fetch_add(1, Relaxed);
                }
            }
        };
        join_all(["base", "rate", "headline", "extract"].map(client)).await;
    };
    let uploads = async {
        for round in 0..8 {
            let twin = if round % 2 == 0 { "headline" } else { "extract" };
            let (config, weights) = adapter(twin);
            let (status, report) = server.put("mine", config, weights).await;
            assert!(status.is_success(), "{report}");
            let answer = server.chat("mine", &example.prompt, example.max_tokens).await;
            assert_eq!(answer, example.expected[twin], "round {round}");
        }
        assert!(server.delete("mine").await.is_success());
        running.store(false, Relaxed);
    };
    tokio::join!(load, uploads);
    assert!(answered.load(Relaxed) >= 4, "the load ran beside the uploads");
    assert!(!server.models().await.contains(&"mine".to_owned()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_kept_where_there_is_a_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let flags = ["--adapters", directory.path().to_str().expect("UTF-8")];
    let server = Running::start(&flags).await;
    let (config, weights) = rescaled("rate", 16);
    let (status, report) = server.put("kept", config, weights).await;
    assert!(status.is_success(), "{report}");
    assert_eq!(report["durable"], true, "{report}");
    server.stop().await;
    let server = Running::start(&flags).await;
    assert_eq!(server.models().await, [lorad::demo::NAME, "kept"]);
    server.stop().await;
}
