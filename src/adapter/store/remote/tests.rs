//! What is special about a store far away.
use super::{
    RemoteObjects,
    fake_s3::{BUCKET, FakeS3, Faults},
    fake_web,
    write::PIECE_BYTES,
};
use crate::adapter::{
    AdapterError, AdapterFiles, AdapterLimits, Content, Objects, WriteRule,
    store::{
        drop_ins, open,
        tests::{check, race},
    },
};
use std::{
    env, fs, iter,
    process::{self, Command},
    sync::Arc,
};

fn memory() -> RemoteObjects {
    RemoteObjects::open(&"memory:///pre/fix".parse().unwrap()).unwrap()
}

fn s3(server: &FakeS3) -> RemoteObjects {
    try_s3(server, BUCKET).unwrap()
}

fn try_s3(server: &FakeS3, bucket: &str) -> Result<RemoteObjects, AdapterError> {
    let url = format!("s3://{bucket}/pre/fix").parse().unwrap();
    RemoteObjects::open_with(&url, server.variables().into_iter())
}

#[test]
fn memory_keeps_the_contract() {
    check(&memory());
}

#[test]
fn of_writers_in_memory_one_wins() {
    let first = memory();
    let others = (0..3).map(|_| Arc::new(first.beside().unwrap()) as Arc<dyn Objects>);
    let stores: Vec<_> = others.collect();
    race(&stores);
}

#[test]
fn s3_keeps_the_contract() {
    let server = FakeS3::start();
    check(&s3(&server));
    let keys = server.keys();
    assert!(!keys.is_empty() && keys.iter().all(|key| key.starts_with("pre/fix/")), "{keys:?}");
}

#[test]
fn of_writers_in_s3_one_wins() {
    let server = FakeS3::start();
    let stores: Vec<_> = (0..4).map(|_| Arc::new(s3(&server)) as Arc<dyn Objects>).collect();
    race(&stores);
}

/// Where this is set, the test below is the child that has the environment.
const CHILD: &str = "LORAD_TEST_S3_CHILD";

#[test]
fn the_environment_says_where_s3_is() {
    if env::var(CHILD).is_ok() {
        check(&*open(&format!("s3://{BUCKET}/from/environment")).unwrap());
        process::exit(77);
    }
    let server = FakeS3::start();
    let done = Command::new(env::current_exe().unwrap())
        .args(["--exact", "adapter::store::remote::tests::the_environment_says_where_s3_is"])
        .envs(server.variables())
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(77), "{done:?}");
    assert!(server.keys().iter().all(|key| key.starts_with("from/environment/")));
}

#[test]
fn a_large_file_goes_in_pieces_and_all_or_nothing() {
    let server = FakeS3::start();
    let store = s3(&server);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("large");
    let bytes: Vec<u8> = (0..2 * PIECE_BYTES + 17).map(|number| (number % 251) as u8).collect();
    fs::write(&file, &bytes).unwrap();
    server.requests();
    let stamp = store.put("v/w", Content::File(&file), WriteRule::IfAbsent).unwrap().unwrap();
    let pieces = server.requests().iter().filter(|request| request.contains("partNumber")).count();
    assert_eq!(pieces, 3);
    server.requests();
    let (read, read_stamp) = store.get("v/w", 1 << 30).unwrap().unwrap();
    assert!(read == bytes && read_stamp == stamp);
    assert_eq!(server.requests().len(), 1 + 3, "one to learn the size, then pieces");
    let small = store.get("v/w", PIECE_BYTES as u64).unwrap_err();
    assert!(matches!(small, AdapterError::TooLarge { .. }), "{small:?}");
    assert_eq!(server.requests().len(), 1);
    assert_eq!(store.put("v/w", Content::File(&file), WriteRule::IfAbsent).unwrap(), None);
    assert_eq!(server.open_uploads(), 0);
}

#[test]
fn a_write_whose_answer_is_lost_is_known_to_be_done() {
    let server = FakeS3::start();
    let store = s3(&server);
    server.fail(Faults { lost_answers: 1, ..Faults::default() });
    let first = store.put("a", Content::Bytes(b"one"), WriteRule::IfAbsent).unwrap().unwrap();
    server.fail(Faults { lost_answers: 1, ..Faults::default() });
    let second = store.put("a", Content::Bytes(b"two"), WriteRule::IfUnchanged(&first)).unwrap();
    let (bytes, stamp) = store.get("a", 10).unwrap().unwrap();
    assert_eq!((&bytes[..], Some(stamp)), (&b"two"[..], second));
    assert_eq!(
        store.put("a", Content::Bytes(b"no"), WriteRule::IfUnchanged(&first)).unwrap(),
        None
    );
}

#[test]
fn a_conflict_over_nothing_is_tried_again() {
    let server = FakeS3::start();
    let store = s3(&server);
    server.fail(Faults { conflicts: 1, ..Faults::default() });
    store.put("a", Content::Bytes(b"one"), WriteRule::IfAbsent).unwrap().unwrap();
}

#[test]
fn a_store_that_may_only_be_read_is_read() {
    let server = FakeS3::start();
    let writer = s3(&server);
    writer.put("a/b", Content::Bytes(b"one"), WriteRule::Always).unwrap();
    writer.delete(".lorad/probe").unwrap();
    server.fail(Faults { read_only: true, ..Faults::default() });
    let reader = s3(&server);
    assert!(!reader.is_writable());
    assert!(reader.get("a/b", 10).unwrap().is_some());
    server.requests();
    let error = reader.put("a/b", Content::Bytes(b"two"), WriteRule::Always).unwrap_err();
    assert!(matches!(error, AdapterError::ReadOnly(_)), "{error:?}");
    assert!(error.to_string().contains("credentials"), "{error}");
    assert!(reader.delete("a/b").is_err() && reader.append("log", "line").is_err());
    assert!(server.requests().is_empty(), "nothing was even tried");
}

#[test]
fn a_store_that_ignores_conditions_is_not_written_to() {
    let server = FakeS3::start();
    server.fail(Faults { careless: true, ..Faults::default() });
    let store = s3(&server);
    assert!(!store.is_writable());
    let error = store.append("log", "line").unwrap_err().to_string();
    assert!(error.contains("If-None-Match"), "{error}");
}

#[test]
fn a_store_that_does_not_answer_says_what_to_check() {
    let server = FakeS3::start();
    let error = try_s3(&server, "other").unwrap_err().to_string();
    assert!(error.contains("s3://other/pre/fix") && error.contains("NoSuchBucket"), "{error}");
    let mut variables = server.variables();
    variables[1].1 = "wrong".to_owned();
    let url = format!("s3://{BUCKET}").parse().unwrap();
    let error = RemoteObjects::open_with(&url, variables.clone().into_iter()).unwrap_err();
    assert_eq!(crate::error::Classified::code(&error), "adapter_store_failed");
    let error = error.to_string();
    assert!(error.contains("AWS_SECRET_ACCESS_KEY") && !error.contains("very-secret"), "{error}");
    variables[0].1 = "http://127.0.0.1:1".to_owned();
    let error = RemoteObjects::open_with(&url, variables.into_iter()).unwrap_err().to_string();
    assert!(error.contains("AWS_ENDPOINT") && error.contains("refused"), "{error}");
}

#[test]
fn listing_for_adapters_does_not_ask_for_the_servers_own_objects() {
    let server = FakeS3::start();
    let store = s3(&server);
    for number in 0..20 {
        store.append(".lorad/events", &number.to_string()).unwrap();
    }
    store.put("a.gguf", Content::Bytes(b"GGUF"), WriteRule::Always).unwrap();
    server.requests();
    assert_eq!(store.list("").unwrap().len(), 1);
    assert_eq!(server.requests().len(), 1);
    assert_eq!(store.tail(".lorad/events", 2).unwrap(), ["18", "19"]);
}

#[tokio::test]
async fn a_store_may_be_dropped_on_an_async_thread() {
    let store = tokio::task::spawn_blocking(memory).await.unwrap();
    drop(store);
}

fn web(address: &str) -> Result<RemoteObjects, AdapterError> {
    RemoteObjects::open_with(&format!("http://{address}/served").parse().unwrap(), iter::empty())
}

#[test]
fn adapters_on_a_web_server_are_found_and_read_and_not_written() {
    let files = [
        ("/served/run/adapter_config.json", "{}"),
        ("/served/run/adapter_model.safetensors", "weights"),
        ("/served/run/deep/er/file", "x"),
        ("/served/one.gguf", "GGUF"),
        ("/elsewhere/two.gguf", "GGUF"),
    ];
    let store = web(&fake_web::start(&files, true)).unwrap();
    assert!(!store.is_writable());
    let found = drop_ins::find(&store).unwrap();
    let names: Vec<_> = found.iter().map(|found| found.name_text.as_str()).collect();
    assert_eq!(names, ["one", "run"]);
    let files = drop_ins::read(&store, &found[1], &AdapterLimits::default()).unwrap();
    assert!(matches!(&files, AdapterFiles::Peft { weights, .. } if weights == "weights"));
    assert!(store.get("missing", 10).unwrap().is_none());
    let error = store.put("x", Content::Bytes(b"x"), WriteRule::Always).unwrap_err();
    assert!(matches!(error, AdapterError::ReadOnly(_)), "{error:?}");
}

#[test]
fn a_web_server_that_cannot_list_says_what_it_lacks() {
    let error = web(&fake_web::start(&[], false)).unwrap_err().to_string();
    assert!(error.contains("PROPFIND"), "{error}");
}
