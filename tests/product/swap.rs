//! Adapters are swapped all the time while many streams run: nothing fails, and no text is of two versions.
//!
//! `LORAD_TEST_SWAP_SECONDS` says for how long; a minute shows more than the few seconds of every run.
use crate::running::{Running, rescaled};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Streams at any time.
const STREAMS: usize = 200;
/// Names that keep their content, and names whose content changes.
const STEADY: [(&str, &str, u64); 6] = [
    ("steady0", "rate", 8),
    ("steady1", "extract", 8),
    ("steady2", "headline", 8),
    ("steady3", "rate", 40),
    ("steady4", "extract", 40),
    ("steady5", "headline", 40),
];
const SWAPPED: [(&str, &str, [u64; 2]); 2] =
    [("swapped0", "rate", [16, 64]), ("swapped1", "headline", [16, 64])];
const PERIOD: Duration = Duration::from_millis(100);
const TOKENS: u64 = 12;
const PROMPTS: [&str; 3] = ["The mayor opens a bridge", "A cat sleeps", "Rate this: it rains"];

/// What one version answers to each prompt: its golden.
type Goldens = HashMap<String, Vec<String>>;

/// The greedy text of a stream, and `x-lorad-adapter`, which names the version that wrote it.
async fn stream(server: &Running, model: &str, prompt: &str) -> (String, String) {
    let body = json!({
        "model": model, "temperature": 0, "max_tokens": TOKENS, "stream": true,
        "messages": [{"role": "user", "content": prompt}],
    });
    let url = format!("{}/v1/chat/completions", server.url);
    let answer = server.client().post(url).json(&body).send().await.expect("an answer");
    let status = answer.status();
    let served = answer.headers().get("x-lorad-adapter").cloned();
    let text = answer.text().await.expect("a whole stream");
    assert!(status.is_success(), "{model}: {status} {text}");
    let served = served.expect("a version").to_str().expect("text").to_owned();
    assert!(text.trim_end().ends_with("data: [DONE]"), "{model} was cut: {text}");
    let events = text.lines().filter_map(|line| line.strip_prefix("data: {"));
    let events =
        events.map(|rest| serde_json::from_str::<Value>(&format!("{{{rest}")).expect("JSON"));
    let pieces = events.filter_map(|event| {
        assert!(event.get("error").is_none(), "{model}: {event}");
        Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned())
    });
    (pieces.collect(), served)
}

async fn publish(server: &Running, name: &str, (config, weights): (Vec<u8>, Vec<u8>)) -> String {
    let (status, answer) = server.put(name, config, weights).await;
    assert!(status.is_success(), "{name}: {answer}");
    answer["version"].as_str().expect("a version").to_owned()
}

/// Publishes a version, asks it alone, and remembers what it says.
async fn learn(server: &Running, goldens: &mut Goldens, name: &str, files: (Vec<u8>, Vec<u8>)) {
    let version = publish(server, name, files).await;
    let mut texts = Vec::new();
    for prompt in PROMPTS {
        let (text, served) = stream(server, name, prompt).await;
        assert_eq!(served, format!("{name}@{version}"));
        texts.push(text);
    }
    goldens.insert(format!("{name}@{version}"), texts);
}

async fn ask_until(server: &Running, goldens: &Goldens, end: Instant, at: usize) -> usize {
    let names: Vec<_> = STEADY.map(|s| s.0).into_iter().chain(SWAPPED.map(|s| s.0)).collect();
    let mut answered = 0;
    for round in 0.. {
        if Instant::now() >= end {
            break;
        }
        let (name, prompt) = (names[(at + round) % names.len()], (at / 8 + round) % PROMPTS.len());
        let (text, served) = stream(server, name, PROMPTS[prompt]).await;
        let golden = goldens.get(&served).unwrap_or_else(|| panic!("{served} was never published"));
        assert!(served.starts_with(&format!("{name}@")), "{name} was answered by {served}");
        assert_eq!(text, golden[prompt], "{served} did not write this alone");
        answered += 1;
    }
    answered
}

/// What the admin routes say of every adapter.
async fn entries(server: &Running) -> Vec<Value> {
    let answer = server.client().get(format!("{}/admin/adapters", server.url)).send().await;
    let answer: Value = answer.expect("an answer").json().await.expect("JSON");
    answer["adapters"].as_array().expect("a list").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_lose_nothing_and_mix_nothing() {
    let seconds = std::env::var("LORAD_TEST_SWAP_SECONDS").ok();
    let seconds = seconds.map_or(4, |seconds| seconds.parse().expect("a number of seconds"));
    let server = Running::start(&["--precision", "f32", "--max-waiting", "1024"]).await;
    let mut goldens = Goldens::new();
    for (name, of, alpha) in STEADY {
        learn(&server, &mut goldens, name, rescaled(of, alpha)).await;
    }
    for (name, of, alphas) in SWAPPED {
        for alpha in alphas {
            learn(&server, &mut goldens, name, rescaled(of, alpha)).await;
        }
    }
    let before: usize = entries(&server).await.len();
    let (end, swaps) = (Instant::now() + Duration::from_secs(seconds), AtomicUsize::new(0));
    let (server_ref, goldens_ref, swaps_ref) = (&server, &goldens, &swaps);
    let swapping = async move {
        for round in 0.. {
            if Instant::now() >= end {
                return;
            }
            let begun = Instant::now();
            join_all(SWAPPED.map(|(name, of, alphas)| async move {
                publish(server_ref, name, rescaled(of, alphas[round % 2])).await;
                swaps_ref.fetch_add(1, Relaxed);
            }))
            .await;
            tokio::time::sleep(PERIOD.saturating_sub(begun.elapsed())).await;
        }
    };
    let asking = (0..STREAMS).map(|at| ask_until(server_ref, goldens_ref, end, at));
    let ((), answered) = tokio::join!(swapping, join_all(asking));
    let (answered, swaps) = (answered.iter().sum::<usize>(), swaps.into_inner());
    assert!(answered >= STREAMS && swaps > 4, "{answered} answers, {swaps} swaps");
    // The engine lets go at its next step.
    let mut leased = vec![Value::Null];
    for _ in 0..100 {
        let after = entries(&server).await;
        assert_eq!(after.len(), before);
        leased = after.into_iter().filter(|entry| entry["leases"] != 0).collect();
        if leased.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(leased.is_empty(), "{leased:?}");
    let kept = server.warm();
    assert!(kept <= before, "{kept} versions in memory for {before} names");
    server.stop().await;
}
