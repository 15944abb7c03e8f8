//! Streams byte by byte, but for their ids and times: what lies in `transcripts/` is what clients were written for.
//!
//! Tool calls have their transcript beside their tests.
use crate::client::{Answer, Script, Server, scripted};
use lorad::http::HttpConfig;
use serde_json::{Value, json};

/// `text` with whatever follows `key`, up to the next of `ends`, made `instead`.
fn masked(text: &str, key: &str, ends: &[char], instead: &str) -> String {
    let mut parts = text.split(key);
    let head = parts.next().unwrap_or_default().to_owned();
    parts.fold(head, |made, part| {
        let end = part.find(ends).unwrap_or(part.len());
        made + key + instead + &part[end..]
    })
}

fn transcript(answer: &Answer) -> String {
    let text = masked(&answer.text, r#""id":"c"#, &['"'], "…");
    let text = masked(&text, r#""created":"#, &[',', '}'], "0");
    let text = masked(&text, r#""system_fingerprint":"fp_"#, &['"'], "…");
    masked(&text, r#""seed":"#, &[',', '}'], "0")
}

async fn says(script: Script, path: &str, body: Value, expected: &str) {
    let server = Server::start(scripted(script, HttpConfig::default()));
    let answer = server.post(path, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let said = transcript(&answer);
    assert!(said == expected, "{path} says:\n{said}");
}

fn with_usage(fields: &Value) -> Value {
    let mut body = json!({"stream": true, "stream_options": {"include_usage": true}});
    let all = body.as_object_mut().expect("an object");
    all.extend(fields.as_object().expect("an object").clone());
    body
}

#[tokio::test]
async fn completions() {
    let body = with_usage(&json!({"prompt": "one", "max_tokens": 2}));
    let expected = include_str!("transcripts/completions.sse");
    says(Script::Echo, "/v1/completions", body, expected).await;
}

#[tokio::test]
async fn chat_completions() {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let body = with_usage(&json!({"messages": messages, "max_tokens": 2}));
    let expected = include_str!("transcripts/chat_completions.sse");
    says(Script::Echo, "/v1/chat/completions", body, expected).await;
}

#[tokio::test]
async fn completions_that_fail() {
    let body = json!({"prompt": "one", "max_tokens": 2, "stream": true});
    let expected = include_str!("transcripts/completions_that_fail.sse");
    says(Script::Fail, "/v1/completions", body, expected).await;
}

#[tokio::test]
async fn chat_completions_that_fail() {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let body = json!({"messages": messages, "max_tokens": 2, "stream": true});
    let expected = include_str!("transcripts/chat_completions_that_fail.sse");
    says(Script::Fail, "/v1/chat/completions", body, expected).await;
}

#[tokio::test]
async fn generate_stream() {
    let body = json!({"inputs": "one", "parameters": {"max_new_tokens": 2, "details": true}});
    let expected = include_str!("transcripts/generate_stream.sse");
    says(Script::Echo, "/generate_stream", body, expected).await;
}

#[tokio::test]
async fn generate_stream_that_fails() {
    let body = json!({"inputs": "one", "parameters": {"max_new_tokens": 2}});
    let expected = include_str!("transcripts/generate_stream_that_fails.sse");
    says(Script::Fail, "/generate_stream", body, expected).await;
}

#[test]
fn only_what_differs_is_masked() {
    let text = r#"{"id":"cmpl-1","created":12,"model":"m"} {"id":"cmpl-2"}"#;
    let masked = masked(&masked(text, r#""id":"c"#, &['"'], "…"), r#""created":"#, &[','], "0");
    assert_eq!(masked, r#"{"id":"c…","created":0,"model":"m"} {"id":"c…"}"#);
}
