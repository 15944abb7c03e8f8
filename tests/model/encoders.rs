//! Hidden states, embeddings and scores of every golden encoder and classifier against transformers, on every kernel.
use crate::{
    answers::TOLERANCE,
    harness::{Harness, Text, all_kernels, cpu_kernels, ids, json, repository, rows},
};
use lorad::{
    kernel::{Kernels, Precision},
    lora::AdapterSlot,
    model::{Output, Pooling},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    slice,
    sync::Arc,
};

/// Weights and inputs are rounded to bf16, by 2^-9 of themselves at most, or to 8 bits, by 1/254 of their group's largest.
/// Random weights make sharp attention and steep heads of that: the worst text's outputs are off by 0.55, the root of the
/// mean square; adapters move them by 1.2, half of the time.
const ROUNDED_TOLERANCE: f32 = 0.7;
/// Of all texts' differences.
const ROUNDED_MEAN: f32 = 0.04;
const BASES: [&str; 15] = [
    "bert_embed",
    "bert_mlm",
    "bert_seqcls",
    "bert_tokcls",
    "cross_encoder",
    "distilbert_mlm",
    "distilbert_seqcls",
    "llama_seqcls",
    "modernbert_embed",
    "modernbert_mlm",
    "modernbert_seqcls",
    "qwen2_seqcls",
    "roberta_mlm",
    "roberta_seqcls",
    "xlm_roberta_mlm",
];

/// One golden text: what is wanted of it, and what is right.
struct Case {
    what: String,
    text: Text,
    expected: Vec<f32>,
    /// Whether the answer has length 1 and `text`'s has not.
    normalize: bool,
}

fn directory(base: &str) -> PathBuf {
    repository("tests/golden").join(base)
}

fn open(base: &str, kernels: &Arc<dyn Kernels>, precision: Precision) -> (Harness, Vec<Case>) {
    let mut harness = Harness::open(&directory(base), kernels, precision);
    let cases = cases(&mut harness, &directory(base), "golden.json");
    (harness, cases)
}

/// Every golden answer, with its adapter loaded.
fn cases(harness: &mut Harness, directory: &Path, file: &str) -> Vec<Case> {
    let is_causal = harness.model.lm.is_causal();
    let mut slots = BTreeMap::<String, AdapterSlot>::new();
    let mut cases = Vec::new();
    for case in json(&directory.join(file)).as_array().unwrap() {
        let Some(adapter) = case["adapter"].as_str().map(|name| {
            slots.get(name).copied().unwrap_or_else(|| {
                let slot = harness.add_adapter(&directory.join("adapters").join(name));
                slots.insert(name.to_owned(), slot);
                slot
            })
        }) else {
            cases.extend(outputs(case, directory, None, is_causal));
            continue;
        };
        cases.extend(outputs(case, directory, Some(adapter), is_causal));
    }
    cases
}

/// What one golden answer says: hidden states and what they become, or scores.
fn outputs(
    case: &Value,
    directory: &Path,
    adapter: Option<AdapterSlot>,
    is_causal: bool,
) -> Vec<Case> {
    let tensors = directory.join(case["file"].as_str().unwrap());
    let types = case.get("token_types").filter(|types| types.is_array());
    let one = |output: Output, key: &str, normalize: bool| {
        let (tokens, types) = (ids(&case["ids"]), types.map(ids).unwrap_or_default());
        let what = format!("{} {} {output:?}", directory.display(), case["adapter"]);
        let text = Text { tokens, types, adapter, output };
        let expected = rows(&tensors, case[key].as_str().unwrap()).concat();
        Case { what, text, expected, normalize }
    };
    match case["kind"].as_str().unwrap() {
        "sequence" => vec![one(Output::Scores, "scores", false)],
        "token" => vec![one(Output::TokenScores, "scores", false)],
        _ => {
            let pooling = match case["pooling"].as_str().unwrap() {
                "mean" => Pooling::Mean,
                "last" => Pooling::Last,
                _ => Pooling::First,
            };
            let normalize = case["normalize"].as_bool().unwrap();
            let pooled = one(Output::Embedding(pooling), "embedding", normalize);
            let hidden = (!is_causal).then(|| one(Output::Hidden, "hidden", false));
            hidden.into_iter().chain([pooled]).collect()
        }
    }
}

/// The largest difference from what is right.
fn difference(case: &Case, output: Vec<f32>) -> f32 {
    let apart = differences(case, output);
    apart.into_iter().fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most })
}

/// The root of the mean square of the differences.
fn typical_difference(case: &Case, output: Vec<f32>) -> f32 {
    let apart = differences(case, output);
    (apart.iter().map(|d| d * d).sum::<f32>() / apart.len() as f32).sqrt()
}

/// Each number's difference from what is right.
fn differences(case: &Case, mut output: Vec<f32>) -> Vec<f32> {
    assert_eq!(output.len(), case.expected.len(), "{}", case.what);
    if case.normalize {
        let length = output.iter().map(|x| x * x).sum::<f32>().sqrt();
        output = output.into_iter().map(|x| x / length).collect();
    }
    output.iter().zip(&case.expected).map(|(a, b)| (a - b).abs()).collect()
}

/// Reads all of the texts, many in a pass, texts of different adapters and heads side by side.
fn read_all(harness: &mut Harness, cases: &[Case]) -> Vec<Vec<f32>> {
    /// In tokens; the cache holds twice as many.
    const PASS: usize = 700;
    let tokens: usize = cases.iter().map(|case| case.text.tokens.len()).sum();
    let passes = tokens.div_ceil(PASS);
    let mut outputs = vec![Vec::new(); cases.len()];
    for pass in 0..passes {
        let own: Vec<_> = (pass..cases.len()).step_by(passes).collect();
        let texts: Vec<_> = own.iter().map(|i| cases[*i].text.clone()).collect();
        for (i, output) in own.into_iter().zip(harness.read(&texts).unwrap()) {
            outputs[i] = output;
        }
    }
    outputs
}

/// Each text alone is right, and the same to the bit in company.
fn alone_and_together(harness: &mut Harness, kernels: &str, cases: &[Case]) {
    let together = read_all(harness, cases);
    for (case, together) in cases.iter().zip(together) {
        let alone = harness.read(slice::from_ref(&case.text)).unwrap().remove(0);
        let off = difference(case, alone.clone());
        assert!(off <= TOLERANCE, "{} on {kernels}: off by {off}", case.what);
        if kernels == "candle" {
            // Its products of different heights add up in different orders.
            let off = difference(case, together);
            assert!(off <= TOLERANCE, "{} in company on {kernels}: off by {off}", case.what);
        } else {
            assert_eq!(alone, together, "{} in company on {kernels}", case.what);
        }
    }
}

#[test]
fn every_encoder_and_classifier_gives_the_golden_outputs_alone_and_in_one_batch() {
    for (name, kernels) in all_kernels() {
        for base in BASES {
            let (mut harness, cases) = open(base, &kernels, Precision::F32);
            assert!(cases.iter().any(|case| case.text.adapter.is_none()), "{base}");
            assert!(cases.iter().any(|case| case.text.adapter.is_some()), "{base}");
            alone_and_together(&mut harness, name, &cases);
        }
    }
}

#[test]
fn a_base_that_generates_takes_classifiers_too() {
    for (name, kernels) in all_kernels() {
        let directory = directory("llama_tied");
        let mut harness = Harness::open(&directory, &kernels, Precision::F32);
        let cases = cases(&mut harness, &directory, "labels.json");
        assert!(cases.iter().any(|case| case.text.output == Output::Scores));
        alone_and_together(&mut harness, name, &cases);
    }
}

#[test]
fn rounded_weights_stay_near_the_golden_outputs() {
    for precision in [Precision::Bf16, Precision::Int8] {
        let (mut worst, mut sum, mut count) = ((0.0, String::new()), 0.0, 0.0);
        for base in BASES {
            let (mut harness, cases) = open(base, &cpu_kernels(), precision);
            let outputs = read_all(&mut harness, &cases);
            for (case, output) in cases.iter().zip(outputs) {
                let off = typical_difference(case, output);
                if off > worst.0 || off.is_nan() {
                    worst = (off, case.what.clone());
                }
                (sum, count) = (sum + off, count + 1.0);
            }
        }
        assert!(worst.0 <= ROUNDED_TOLERANCE, "{} at {precision}: off by {}", worst.1, worst.0);
        assert!(sum / count <= ROUNDED_MEAN, "{precision}: off by {} in the mean", sum / count);
    }
}

#[test]
fn an_encoders_keys_take_the_place_of_one_layer() {
    for base in BASES {
        let harness = Harness::open(&directory(base), &cpu_kernels(), Precision::F32);
        let (lm, facts) = (&harness.model.lm, &harness.model.facts);
        let layers = if lm.is_causal() { facts.layers } else { 1 };
        assert!(facts.layers > 1 && lm.kv_dims().layers == layers, "{base}");
        assert!(!lm.lora_layout().generates(), "{base}");
    }
}

#[test]
fn what_a_model_does_not_have_is_an_error_and_no_panic() {
    let refusal = |base: &str, output: Output| {
        let mut harness = Harness::open(&directory(base), &cpu_kernels(), Precision::F32);
        let text = Text { tokens: vec![5, 6, 7], types: Vec::new(), adapter: None, output };
        harness.read(&[text]).unwrap_err().to_string()
    };
    let cases = [
        ("bert_embed", Output::Scores, "classification head"),
        ("bert_embed", Output::TokenScores, "classification head"),
        ("bert_seqcls", Output::TokenScores, "whole texts"),
        ("bert_tokcls", Output::Scores, "labels tokens"),
        ("llama_tied", Output::Scores, "classification head"),
        ("llama_seqcls", Output::TokenScores, "only the last"),
        ("llama_seqcls", Output::Embedding(Pooling::Mean), "only the last"),
        ("llama_seqcls", Output::Hidden, "only the last"),
    ];
    for (base, output, word) in cases {
        let message = refusal(base, output);
        assert!(message.contains(word), "{base} {output:?}: {message}");
    }
}

/// `LORAD_TEST_FIXTURES`, and all-MiniLM-L6-v2 as a directory.
#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
fn named(variable: &str) -> Option<PathBuf> {
    let path = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_dir());
    if path.is_none() {
        eprintln!("skipped: {variable} names no directory");
    }
    path
}

/// The texts of `golden/{name}` and the tensors under `key`.
fn shared(directory: &Path, name: &str, key: &str, output: Output, normalize: bool) -> Vec<Case> {
    let path = directory.join("golden").join(name);
    let listed = json(&path.with_extension("json"));
    let inputs = listed["inputs"].as_array().unwrap().iter().enumerate();
    let case = |(i, input): (usize, &Value)| Case {
        what: format!("{name} {key} {i}"),
        text: Text { tokens: ids(&input["ids"]), types: Vec::new(), adapter: None, output },
        expected: rows(&path.with_extension("safetensors"), &format!("{key}.{i}")).concat(),
        normalize,
    };
    inputs.map(case).collect()
}

#[test]
fn minilm_gives_the_golden_embeddings() {
    let (Some(fixtures), Some(model)) = (named("LORAD_TEST_FIXTURES"), named("LORAD_TEST_ENCODER"))
    else {
        return;
    };
    let mut harness = Harness::open(&model, &cpu_kernels(), Precision::F32);
    let mean = Output::Embedding(Pooling::Mean);
    let mut cases =
        shared(&fixtures, "minilm-base-embed", "last_hidden_state", Output::Hidden, false);
    cases.extend(shared(&fixtures, "minilm-base-embed", "embedding", mean, true));
    alone_and_together(&mut harness, "cpu", &cases);
    let slot = harness.add_adapter(&fixtures.join("adapters/minilm-newsworthiness"));
    let labelled = shared(&fixtures, "minilm-newsworthiness", "logits", Output::Scores, false);
    cases.extend(labelled.into_iter().map(|case| with_adapter(case, slot)));
    alone_and_together(&mut harness, "cpu", &cases);
}

#[test]
fn tiny_encoders_give_the_golden_outputs() {
    let Some(fixtures) = named("LORAD_TEST_FIXTURES") else { return };
    for (kind, kernels) in all_kernels() {
        let directory = fixtures.join("tiny/bert_seqcls");
        let mut harness = Harness::open(&directory, &kernels, Precision::F32);
        let mut cases = shared(&directory, "base", "logits", Output::Scores, false);
        for name in ["a", "b", "bias_all", "bias_lora_only"] {
            let slot = harness.add_adapter(&directory.join("adapters").join(name));
            let own = shared(&directory, name, "logits", Output::Scores, false);
            cases.extend(own.into_iter().map(|case| with_adapter(case, slot)));
        }
        alone_and_together(&mut harness, kind, &cases);
        let directory = fixtures.join("tiny/bert_embed");
        let mut harness = Harness::open(&directory, &kernels, Precision::F32);
        let mut cases = embeddings(&directory, "base");
        for name in ["a", "b"] {
            let slot = harness.add_adapter(&directory.join("adapters").join(name));
            cases.extend(embeddings(&directory, name).into_iter().map(|c| with_adapter(c, slot)));
        }
        alone_and_together(&mut harness, kind, &cases);
    }
}

fn embeddings(directory: &Path, name: &str) -> Vec<Case> {
    let mean = Output::Embedding(Pooling::Mean);
    let mut cases = shared(directory, name, "last_hidden_state", Output::Hidden, false);
    cases.extend(shared(directory, name, "mean_pooled", mean, false));
    cases.extend(shared(directory, name, "mean_pooled_normalized", mean, true));
    cases
}

fn with_adapter(case: Case, slot: AdapterSlot) -> Case {
    Case { text: Text { adapter: Some(slot), ..case.text }, ..case }
}
