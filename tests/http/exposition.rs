//! `/metrics` as a strict reader of Prometheus' text format 0.0.4 reads it, and as gateways do.
use crate::client::{Answer, Script, Server, scripted};
use lorad::{engine::EngineError, http::HttpConfig};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// One family: its type and its samples in order.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// What Go's `expfmt` text parser takes, and nothing more: a line that it does not know fails a whole scrape.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let (mut families, mut current) = (BTreeMap::<String, Family>::new(), String::new());
    let mut helped = BTreeSet::new();
    assert!(text.ends_with('\n'), "the last line has an end");
    for line in text.lines() {
        assert!(!line.is_empty() && line == line.trim(), "{line:?}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, _) = rest.split_once(' ').expect("a help text");
            assert!(helped.insert(name.to_owned()), "two HELP lines for {name}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            let known = ["counter", "gauge", "summary", "untyped", "histogram"];
            assert!(known.contains(&kind), "{line}");
            name.clone_into(&mut current);
            let family = Family { kind: kind.to_owned(), samples: Vec::new() };
            let former = families.insert(current.clone(), family);
            assert!(former.is_none(), "two TYPE lines for {name}");
        } else {
            assert!(!line.starts_with('#'), "{line}");
            let sample = sample(line);
            let family = families.get_mut(&current).expect("a TYPE line first");
            let endings: &[&str] = match family.kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            let belongs = |ending: &&str| sample.name == format!("{current}{ending}");
            assert!(endings.iter().any(belongs), "{line} among {current}");
            family.samples.push(sample);
        }
    }
    families
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).expect("a value");
    let name = &line[..end];
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    assert!(name.starts_with(is_letter), "{line}");
    assert!(name.chars().all(|c| is_letter(c) || c.is_ascii_digit()), "{line}");
    let (labels, rest) = match line[end..].strip_prefix('{') {
        Some(rest) => labels(rest),
        None => (BTreeMap::new(), &line[end..]),
    };
    // No timestamp, and no exemplar.
    let value = rest.strip_prefix(' ').expect("a blank").parse().expect("a number and no more");
    Sample { name: name.to_owned(), labels, value }
}

/// `name="value"` with commas between them, up to the brace; in a value only `\\`, `\"` and `\n` are escapes.
fn labels(mut text: &str) -> (BTreeMap<String, String>, &str) {
    let mut labels = BTreeMap::new();
    loop {
        let (name, rest) = text.split_once("=\"").expect("a label");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name}");
        let (mut value, mut characters) = (String::new(), rest.char_indices());
        let end = loop {
            let (at, c) = characters.next().expect("the end of a value");
            match c {
                '"' => break at,
                '\\' => match characters.next().expect("an escape").1 {
                    'n' => value.push('\n'),
                    c @ ('\\' | '"') => value.push(c),
                    c => panic!("\\{c} is no escape"),
                },
                c => value.push(c),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "{name} twice");
        match rest[end + 1..].strip_prefix(',') {
            Some(more) => text = more,
            None => return (labels, rest[end + 1..].strip_prefix('}').expect("a brace")),
        }
    }
}

/// Buckets rise with their bounds, end at infinity, and agree with the count; no two samples are the same.
fn check(families: &BTreeMap<String, Family>) {
    for (name, family) in families {
        let mut seen = BTreeSet::new();
        let mut series: BTreeMap<Vec<(String, String)>, Vec<&Sample>> = BTreeMap::new();
        for sample in &family.samples {
            assert!(seen.insert((&sample.name, &sample.labels)), "{sample:?} twice");
            let labels = sample.labels.clone().into_iter().filter(|(label, _)| label != "le");
            series.entry(labels.collect()).or_default().push(sample);
        }
        if family.kind == "counter" {
            assert!(name.ends_with("_total"), "{name}");
        }
        if family.kind != "histogram" {
            continue;
        }
        for samples in series.values() {
            let of = |ending: &str| {
                let whole = format!("{name}{ending}");
                samples.iter().filter(move |sample| sample.name == whole)
            };
            let bound = |sample: &&&Sample| sample.labels["le"].parse::<f64>().expect("a bound");
            let (bounds, counts): (Vec<f64>, Vec<f64>) =
                of("_bucket").map(|sample| (bound(&sample), sample.value)).unzip();
            assert!(bounds.is_sorted_by(|a, b| a < b) && counts.is_sorted(), "{name}");
            assert_eq!(bounds.last(), Some(&f64::INFINITY), "{name}");
            let (sums, all): (Vec<_>, Vec<_>) =
                (of("_sum").collect(), of("_count").map(|sample| sample.value).collect());
            assert_eq!((sums.len(), &all[..]), (1, &counts[counts.len() - 1..]), "{name}");
        }
    }
}

async fn scrape(server: &Server) -> BTreeMap<String, Family> {
    let answer = server.get("/metrics").await;
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let families = parse(&answer.text);
    check(&families);
    families
}

fn value(families: &BTreeMap<String, Family>, name: &str, label: (&str, &str)) -> f64 {
    let samples = families[name].samples.iter();
    let mut found =
        samples.filter(|sample| sample.labels.get(label.0).is_some_and(|l| l == label.1));
    found.next().map_or(f64::NAN, |sample| sample.value)
}

#[tokio::test]
async fn a_strict_reader_takes_all_of_it_before_and_after_requests() {
    let server = Server::golden_with("llama", &["--served-model-name", "a \"base\" \\ of ours"]);
    scrape(&server).await;
    for body in [
        json!({"prompt": "a", "max_tokens": 3, "n": 2}),
        json!({"prompt": ["a", "b"], "max_tokens": 2, "model": "layers"}),
        json!({"prompt": "a", "max_tokens": 2, "stream": true, "model": "all-linear"}),
    ] {
        assert!(server.post("/v1/completions", &body).await.status.is_success());
    }
    server.post("/v1/completions", &json!({"prompt": 1})).await.error(400);
    let families = scrape(&server).await;
    let ended =
        |reason| value(&families, "vllm:request_success_total", ("finished_reason", reason));
    assert_eq!(["length", "stop", "abort", "error"].map(ended).iter().sum::<f64>(), 5.0);
    for (name, family) in families.iter().filter(|(name, _)| name.starts_with("vllm:")) {
        for sample in &family.samples {
            assert_eq!(sample.labels["model_name"], "a \"base\" \\ of ours", "{name}");
            assert_eq!(sample.labels["engine"], "0", "{name}");
        }
    }
    let count = |name: &str| {
        let samples = families[name].samples.iter();
        samples.filter(|sample| sample.name.ends_with("_count")).map(|sample| sample.value).sum()
    };
    for (histogram, observed) in [
        ("vllm:time_to_first_token_seconds", 5.0),
        ("vllm:request_prefill_time_seconds", 5.0),
        ("vllm:request_decode_time_seconds", 5.0),
        ("vllm:request_inference_time_seconds", 5.0),
        ("vllm:request_time_per_output_token_seconds", 5.0),
        ("vllm:request_params_n", 4.0),
        ("vllm:request_params_max_tokens", 4.0),
        ("vllm:request_max_num_generation_tokens", 4.0),
    ] {
        assert_eq!(count(histogram), observed, "{histogram}");
    }
    let steps: f64 = count("vllm:iteration_tokens_total");
    assert_eq!(steps, families["lorad_steps_total"].samples[0].value);
    assert!(steps > 0.0);
}

#[tokio::test]
async fn gateways_read_one_line_of_adapters_whose_value_is_the_time() {
    let server = Server::golden_with("llama", &["--max-loras", "3"]);
    let lines = async || {
        let families = scrape(&server).await;
        let samples = &families["vllm:lora_requests_info"].samples;
        assert_eq!(samples.len(), 1, "{samples:?}");
        (samples[0].labels.clone(), samples[0].value)
    };
    let (idle, first) = lines().await;
    assert_eq!((idle["max_lora"].as_str(), idle["running_lora_adapters"].as_str()), ("3", ""));
    for model in ["layers", "all-linear"] {
        let body = json!({"prompt": "a", "max_tokens": 1, "model": model});
        server.post("/v1/completions", &body).await.ok();
    }
    let ready = |labels: &BTreeMap<String, String>| {
        let mut names: Vec<_> =
            labels["running_lora_adapters"].split(',').map(str::to_owned).collect();
        names.sort_unstable();
        names
    };
    // The engine puts up its numbers a moment after it has answered.
    let (mut now, mut second) = lines().await;
    for _ in 0..200 {
        if ready(&now).len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
        (now, second) = lines().await;
    }
    assert_eq!(ready(&now), ["all-linear", "layers"], "both are ready, though nothing runs");
    assert_eq!(now["waiting_lora_adapters"], "");
    let epoch = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs_f64();
    assert!(second > first && (epoch - second).abs() < 60.0, "{first} {second} {epoch}");
}

#[tokio::test]
async fn the_names_of_older_boards_show_the_same() {
    let server = Server::golden("llama");
    let prompt: Vec<u32> = (0..70).map(|index| 5 + index % 40).collect();
    for _ in 0..2 {
        let body = json!({"prompt": prompt, "max_tokens": 1});
        server.post("/v1/completions", &body).await.ok();
    }
    // The engine puts up its numbers a moment after it has answered.
    let mut families = scrape(&server).await;
    while families["vllm:prefix_cache_hits_total"].samples[0].value < 64.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        families = scrape(&server).await;
    }
    let one = |name: &str| families[name].samples[0].value;
    for (old, new) in [
        ("vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"),
        ("vllm:gpu_prefix_cache_hits_total", "vllm:prefix_cache_hits_total"),
        ("vllm:gpu_prefix_cache_queries_total", "vllm:prefix_cache_queries_total"),
        ("vllm:prompt_tokens_cached_total", "vllm:prefix_cache_hits_total"),
    ] {
        assert_eq!(one(old), one(new), "{old}");
    }
    let by_source =
        |source| value(&families, "vllm:prompt_tokens_by_source_total", ("source", source));
    assert_eq!(by_source("local_cache_hit"), 64.0);
    assert_eq!(by_source("local_compute"), one("vllm:prompt_tokens_total"));
}

#[tokio::test]
async fn what_is_refused_is_counted_by_its_reason_in_every_dialect() {
    let server = Server::start(scripted(
        Script::Refuse(EngineError::Overloaded { waiting: 9 }),
        HttpConfig::default(),
    ));
    server.post("/v1/completions", &json!({"prompt": "a"})).await.error(429);
    assert_eq!(server.post("/generate", &json!({"inputs": "a"})).await.status.as_u16(), 429);
    server.post("/v1/completions", &json!({"prompt": 1})).await.error(400);
    let families = scrape(&server).await;
    let refused = &families["vllm:admission_rejections_total"].samples;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!((refused[0].labels["reason"].as_str(), refused[0].value), ("queue_full", 2.0));
}

#[tokio::test]
async fn a_reader_of_openmetrics_gets_that() {
    let server = Server::golden("llama");
    let accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3";
    let answer = Answer::of(server.request("GET", "/metrics").header("accept", accept)).await;
    let kind = answer.headers["content-type"].to_str().expect("text");
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(answer.text.ends_with("# EOF\n"));
    for special in ["# UNIT", "_created", " # {", " info\n", " stateset\n", " unknown\n"] {
        assert!(!answer.text.contains(special), "{special}");
    }
}
