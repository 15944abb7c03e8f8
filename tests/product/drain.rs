//! A server ends under load, as in a rolling restart: no request is lost, and none is answered in part.
use crate::program::Program;
use futures_util::future::join_all;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use std::{
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

const CLIENTS: usize = 12;
const TOKENS: u64 = 24;

/// What one server made of one request.
#[derive(Debug, Eq, PartialEq)]
enum Fate {
    /// Every token of it came.
    Whole,
    /// Nobody has worked on it: another server may.
    Refused,
}

fn client(http2: bool) -> Client {
    let client = Client::builder();
    let client = if http2 { client.http2_prior_knowledge() } else { client };
    client.build().expect("a client")
}

async fn ask(client: &Client, url: &str, stream: bool) -> Fate {
    let body = json!({
        "prompt": "The mayor opens a bridge", "max_tokens": TOKENS, "ignore_eos": true,
        "temperature": 0, "stream": stream, "stream_options": stream.then(|| json!({"include_usage": true})),
    });
    let answer = client.post(format!("{url}/v1/completions")).json(&body).send().await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) if error.is_connect() => return Fate::Refused,
        Err(error) => panic!("a request was lost: {error:?}"),
    };
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        assert!(answer.headers().contains_key("retry-after"));
        let error: Value = answer.json().await.expect("an error");
        assert_eq!(error["error"]["reason"], "draining");
        return Fate::Refused;
    }
    assert_eq!(answer.status(), StatusCode::OK);
    let text = answer.text().await.expect("a whole answer");
    let usage = if stream {
        let events: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let [.., usage, "[DONE]"] = &events[..] else { panic!("cut short: {text}") };
        *usage
    } else {
        &text
    };
    let usage: Value = serde_json::from_str(usage).expect("JSON");
    assert_eq!(usage["usage"]["completion_tokens"], TOKENS, "{text}");
    Fate::Whole
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_loses_no_request() {
    let start = || Program::start(&["--log-level", "warn"], Stdio::null());
    let (mut old, new) = tokio::join!(start(), start());
    let (running, by_old, by_new) =
        (AtomicBool::new(true), AtomicUsize::new(0), AtomicUsize::new(0));
    let (old_url, new_url) = (old.url.clone(), new.url.clone());
    let clients = (0..CLIENTS).map(|at| {
        let (running, by_old, by_new) = (&running, &by_old, &by_new);
        let urls = [&old_url, &new_url];
        async move {
            let (client, mut server) = (client(at % 3 == 0), 0);
            while running.load(Relaxed) {
                let fate = ask(&client, urls[server], at % 2 == 0).await;
                match (fate, server) {
                    (Fate::Whole, 0) => by_old.fetch_add(1, Relaxed),
                    (Fate::Whole, _) => by_new.fetch_add(1, Relaxed),
                    (Fate::Refused, 0) => {
                        server = 1;
                        0
                    }
                    (Fate::Refused, _) => panic!("the new server refuses"),
                };
            }
        }
    });
    let restart = async {
        let limit = Instant::now() + Duration::from_mins(2);
        let reach = async |count: &AtomicUsize, most: usize| {
            while count.load(Relaxed) < most {
                assert!(Instant::now() < limit, "nothing is answered");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        reach(&by_old, CLIENTS).await;
        old.signal("TERM");
        assert_eq!(old.ended().await.code(), Some(0));
        let so_far = by_new.load(Relaxed);
        reach(&by_new, so_far + CLIENTS).await;
        running.store(false, Relaxed);
    };
    tokio::join!(join_all(clients), restart);
    assert!(by_old.into_inner() >= CLIENTS && by_new.into_inner() >= CLIENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_does_not_wait() {
    let mut program = Program::start(&["--drain-timeout", "600"], Stdio::null()).await;
    let body =
        json!({"prompt": "a", "max_tokens": 200, "ignore_eos": true, "stream": true, "n": 64});
    let request = Client::new().post(format!("{}/v1/completions", program.url)).json(&body);
    let stream = request.send().await.expect("an answer");
    assert_eq!(stream.status(), StatusCode::OK);
    program.signal("INT");
    let health = format!("{}/health", program.url);
    while Client::new().get(&health).send().await.is_ok_and(|answer| answer.status().is_success()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    program.signal("TERM");
    assert_eq!(program.ended().await.code(), Some(143));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_fails_says_why_with_its_status() {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let stderr = || Stdio::from(log.reopen().expect("the file"));
    for (flags, why) in [
        (&["/no/such/model"][..], "/no/such/model"),
        (&["--lora-modules", "a=/no/such/adapter"], "--lora-modules: `a` from `/no/such/adapter`"),
        (
            &["--tls-cert", "/no/cert", "--tls-key", "/no/key"],
            "--tls-cert: /no/cert cannot be read",
        ),
    ] {
        let mut program = Program::begin(flags, stderr(), "http");
        assert_eq!(program.ended().await.code(), Some(1), "{flags:?}");
        let told = std::fs::read_to_string(log.path()).expect("a log");
        assert!(told.contains(why), "{told}");
    }
}
