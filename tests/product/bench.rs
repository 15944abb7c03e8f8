//! `lorad bench` against a server of this process: figures add up, and mistakes are told in one line.
use crate::running::Running;
use clap::Parser;
use lorad::{
    bench::{AdaptersArgs, BenchError, LoadArgs, MachineArgs, QualityArgs},
    demo,
    model::ModelSource,
};
use serde_json::Value;
use std::{error::Error, path::Path};

#[derive(Parser)]
struct LoadLine {
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Parser)]
struct AdaptersLine {
    #[command(flatten)]
    adapters: AdaptersArgs,
}

#[derive(Parser)]
struct MachineLine {
    #[command(flatten)]
    machine: MachineArgs,
}

#[derive(Parser)]
struct QualityLine {
    #[command(flatten)]
    quality: QualityArgs,
}

/// What `lorad bench load` writes; ids are those that the demo has.
async fn load(url: &str, flags: &[&str]) -> Result<String, BenchError> {
    let ids: &[&str] =
        if flags.contains(&"--token-ids") { &[] } else { &["--token-ids", "20..200"] };
    let fixed = ["load", "--url", url, "--prompt-tokens", "12"];
    let line = LoadLine::parse_from(fixed.iter().chain(ids).chain(flags));
    let run = move || {
        let mut out = Vec::new();
        line.load.run(&mut out).map(|()| String::from_utf8(out).expect("text"))
    };
    // It brings its own runtime, which may not start inside this one.
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file that was written")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&read(path)).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_counts_every_token_and_writes_its_page() {
    let server = Running::start(&["--no-prefix-cache"]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let (figures, page) = (directory.path().join("load.json"), directory.path().join("load.html"));
    let flags = ["--models", "newsdesk,rate", "-c", "3", "-n", "8", "--output-tokens", "6"];
    let files = ["--json", figures.to_str().unwrap(), "--html", page.to_str().unwrap()];
    let text = load(&server.url, &[&flags[..], &files].concat()).await.expect("figures");
    assert!(text.contains("8 answered, 0 failed") && text.contains("rate: 4 answered"), "{text}");
    let figures = json(&figures);
    assert_eq!(figures["all"]["output_tokens"], 48, "{figures}");
    assert_eq!(figures["all"]["prompt_tokens"], 96, "{figures}");
    assert_eq!(figures["models"]["newsdesk"]["output_tokens"], 24, "{figures}");
    assert!(figures["all"]["first_token"]["p50"].as_f64() > Some(0.0), "{figures}");
    let page = read(&page);
    assert!(page.starts_with("<!doctype html>") && page.matches("<svg").count() == 5, "{page}");
    assert!(!page.contains("<script") && !page.contains("<link") && !page.contains("NaN"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_sends_at_its_rate() {
    let server = Running::start(&[]).await;
    let flags = [
        "--models",
        "newsdesk",
        "--rate",
        "200",
        "-n",
        "20",
        "--output-tokens",
        "2",
        "--map",
        "zipf",
    ];
    let text = load(&server.url, &flags).await.expect("figures");
    assert!(text.contains("20 answered, 0 failed"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_in_alternation_have_a_ratio_a_pair() {
    let server = Running::start(&[]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let (figures, page) = (directory.path().join("a.json"), directory.path().join("a.html"));
    let flags = ["--models", "newsdesk", "--compare", &server.url, "--pairs", "2"];
    let files = ["--json", figures.to_str().unwrap(), "--html", page.to_str().unwrap()];
    let text = load(&server.url, &[&flags[..], &files].concat()).await.expect("figures");
    assert!(text.contains("A/B output tokens/s: "), "{text}");
    let figures = json(&figures);
    assert_eq!(figures["pairs"].as_array().expect("a list").len(), 2);
    assert!(figures["ratio"]["median"].as_f64() > Some(0.0), "{figures}");
    assert_eq!(read(&page).matches("<svg").count(), 6);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_prompt_among_streams_is_measured() {
    let server = Running::start(&["--max-batched-tokens", "16"]).await;
    let flags = ["--models", "newsdesk", "-c", "2", "--stall", "60"];
    // Long answers: on a busy machine the prompt may take its time.
    let flags = [&flags[..], &["--output-tokens", "440"]].concat();
    let text = load(&server.url, &flags).await.expect("figures");
    assert!(text.contains("between tokens during: worst "), "{text}");
    let flags = ["--models", "newsdesk", "-c", "2", "--output-tokens", "4", "--stall", "60"];
    let error = load(&server.url, &flags).await.expect_err("too short").to_string();
    assert!(error.contains("raise --output-tokens"), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_one_line_that_says_what_to_do() {
    let server = Running::start(&[]).await;
    for (url, flags, said) in [
        (server.url.as_str(), &["--models", "nobody"][..], "`nobody`: 404"),
        (&server.url, &["--models", "newsdesk", "--token-ids", "90000..90010"], "see --token-ids"),
        (&server.url, &["--models", "nobody", "--warmup", "0"], "every request failed: 404"),
        ("http://127.0.0.1:9", &["--models", "newsdesk"], "is the server running?"),
        ("nowhere", &["--models", "newsdesk"], "http://HOST:PORT"),
        (&server.url, &["--models", "newsdesk", "--json", "/no/such/directory/x"], "/no/such"),
    ] {
        let error = load(url, flags).await.expect_err("a mistake");
        let line = error.to_string();
        assert!(line.contains(said) && !line.contains('\n'), "{line}");
        assert!(error.source().is_none_or(|cause| !cause.to_string().contains('\n')));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_adapters_can_be_served_and_loaded() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().to_str().expect("UTF-8");
    let line = ["adapters", out, "2", "4", "--model", "demo", "--targets", "q,v,down"];
    let args = AdaptersLine::parse_from(line).adapters;
    args.run(&ModelSource::Embedded(demo::BASE), &mut Vec::new()).expect("adapters");
    let server = Running::start(&["--adapters", out]).await;
    assert_eq!(server.models().await, ["newsdesk", "a0", "a1"]);
    let text = load(&server.url, &["--models", "a0,a1", "-n", "4"]).await.expect("figures");
    assert!(text.contains("4 answered, 0 failed"), "{text}");
    server.stop().await;
}

#[test]
fn a_machine_has_limits_and_products_below_them() {
    let figures = tempfile::NamedTempFile::new().expect("a file");
    let path = figures.path().to_str().expect("UTF-8");
    let line =
        ["machine", "--memory-mib", "8", "--rows", "1,3", "--precision", "bf16", "--json", path];
    let args = MachineLine::parse_from(line).machine;
    let mut text = Vec::new();
    args.run(Some(&ModelSource::Embedded(demo::BASE)), &mut text).expect("figures");
    assert!(String::from_utf8(text).expect("text").contains("GB/s"));
    let figures = json(figures.path());
    let positive = |value: &Value| value.as_f64() > Some(0.0);
    assert!(figures["read"].as_array().expect("a list").iter().all(positive), "{figures}");
    assert_eq!(figures["peaks"][0]["operands"], "f32", "{figures}");
    let products = figures["products"].as_array().expect("a list");
    assert_eq!(products.len(), 4, "layers and head, two numbers of rows: {figures}");
    assert!(products.iter().all(|product| positive(&product["share_of_peak"])), "{figures}");
}

#[test]
fn bf16_reads_nearly_as_well_as_f32() {
    let directory = tempfile::tempdir().expect("a directory");
    let (text, figures) = (directory.path().join("text"), directory.path().join("figures"));
    std::fs::write(&text, "Marta Lindqvist resigned in Lisbon on Monday. ".repeat(4))
        .expect("a file");
    let line = ["quality", "--model", "demo", "--precision", "bf16", "--window", "40"];
    let line = [&line[..], &["--kv-precision", "auto,int8"]].concat();
    let files = ["--text", text.to_str().unwrap(), "--json", figures.to_str().unwrap()];
    let args = QualityLine::parse_from(line.iter().chain(&files)).quality;
    let source = ModelSource::Embedded(demo::BASE);
    args.run(&source, &mut Vec::new()).expect("figures");
    let figures = json(&figures);
    let [exact, rounded, bytes] = [0, 1, 2].map(|i| &figures["precisions"][i]);
    assert_eq!((&exact["precision"], &exact["divergence"]), (&"f32".into(), &0.0.into()));
    for (rounded, kv) in [(rounded, "bf16"), (bytes, "int8")] {
        assert_eq!(rounded["kv_precision"], kv);
        let number = |name: &str| rounded[name].as_f64().expect("a number");
        assert!(number("divergence") > 0.0 && number("divergence") < 0.01, "{figures}");
        assert!(number("agreement") > 0.9, "{figures}");
    }
    let kept = |quality: &Value| quality["kv_bytes"].as_u64().expect("bytes");
    assert!(kept(bytes) < kept(rounded) && kept(rounded) < kept(exact), "{figures}");
    std::fs::write(&text, "").expect("a file");
    let error = args.run(&source, &mut Vec::new()).expect_err("nothing to read").to_string();
    assert!(error.contains("shorter than two tokens"), "{error}");
}
