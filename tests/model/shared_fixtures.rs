//! Golden answers outside the repository: a real model, and more tiny ones. Skipped, with a notice, where they are not.
use crate::harness::{
    Harness, Sequence, argmax, cpu_kernels, ids, json, max_difference, repository, rows,
};
use lorad::kernel::Precision;
use std::{
    env,
    path::{Path, PathBuf},
};

const TOLERANCE: f32 = 1e-3;
/// In tokens.
const LONG_PROMPT: usize = 100;
/// Where the fixtures are; beside the repository unless it says otherwise.
const FIXTURES: &str = "LORAD_TEST_FIXTURES";
/// SmolLM2-135M-Instruct as a directory.
const MODEL: &str = "LORAD_TEST_MODEL";
/// The adapters whose every feature is served.
const ADAPTERS: [&str; 9] = [
    "fp16",
    "json-extract",
    "layers-subset",
    "newsworthiness",
    "patterns",
    "pirate",
    "rslora",
    "sql",
    "target-regex",
];

fn fixtures() -> Option<PathBuf> {
    let path = env::var_os(FIXTURES).map_or_else(|| repository("../shared/fixtures"), Into::into);
    present(&path, FIXTURES)
}

fn model() -> Option<PathBuf> {
    let named = env::var_os(MODEL).map(PathBuf::from).unwrap_or_default();
    present(&named, MODEL)
}

#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
fn present(path: &Path, variable: &str) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.to_owned());
    }
    eprintln!("skipped: {} is no directory; {variable} says where it is", path.display());
    None
}

#[test]
fn smollm2_gives_the_golden_logits_and_tokens_with_every_adapter() {
    let (Some(fixtures), Some(model)) = (fixtures(), model()) else { return };
    let mut harness = Harness::open(&model, &cpu_kernels(), Precision::F32);
    for name in ["base"].into_iter().chain(ADAPTERS) {
        let adapter = fixtures.join("adapters").join(name);
        let slot = (name != "base").then(|| harness.add_adapter(&adapter));
        let golden = fixtures.join("golden").join(name);
        let listed = json(&golden.with_extension("json"));
        for (i, case) in listed["prompts"].as_array().unwrap().iter().enumerate() {
            let (prompt, greedy) = (ids(&case["ids"]), ids(&case["greedy_ids"]));
            // The long prompt once is enough: it costs as much as all others of an adapter.
            if name != "base" && prompt.len() > LONG_PROMPT {
                continue;
            }
            let forced = [&prompt[..], &greedy[..greedy.len() - 1]].concat();
            // The golden continuation is fed as it is: each token must be the best after those before it.
            let logits = harness.logits(&forced, slot).split_off(prompt.len() - 1);
            let expected =
                rows(&golden.with_extension("safetensors"), &format!("logits.{i}")).remove(0);
            let difference = max_difference(&logits[..1], &[expected]);
            assert!(difference <= TOLERANCE, "{name}, prompt {i}: logits differ by {difference}");
            let best: Vec<_> = logits.iter().map(|row| argmax(row)).collect();
            assert_eq!(best, greedy, "{name}, prompt {i}");
        }
    }
}

#[test]
fn smollm2_serves_every_adapter_in_one_batch() {
    let (Some(fixtures), Some(model)) = (fixtures(), model()) else { return };
    let mut harness = Harness::open(&model, &cpu_kernels(), Precision::F32);
    let mut sequences = Vec::new();
    let mut golden = Vec::new();
    for name in ADAPTERS {
        let slot = harness.add_adapter(&fixtures.join("adapters").join(name));
        let case = &json(&fixtures.join("golden").join(name).with_extension("json"))["prompts"][1];
        sequences.push(Sequence::new(&ids(&case["ids"]), Some(slot)));
        golden.push(ids(&case["greedy_ids"]));
    }
    for step in 0..4 {
        let mut work: Vec<_> = sequences
            .iter_mut()
            .map(|sequence| {
                let left = sequence.left();
                (sequence, left)
            })
            .collect();
        let logits = harness.step(&mut work);
        for ((sequence, rows), golden) in sequences.iter_mut().zip(logits).zip(&golden) {
            let token = argmax(rows.last().unwrap());
            assert_eq!(token, golden[step]);
            sequence.tokens.push(token);
        }
    }
}

#[test]
fn tiny_models_of_every_family_give_the_golden_logits() {
    let Some(fixtures) = fixtures() else { return };
    let kernels = cpu_kernels();
    for family in ["llama", "llama_tied", "mistral", "phi3", "qwen2"] {
        let directory = fixtures.join("tiny").join(family);
        let mut harness = Harness::open(&directory, &kernels, Precision::F32);
        for name in ["base", "a", "b"] {
            let adapter = directory.join("adapters").join(name);
            let slot = (name != "base").then(|| harness.add_adapter(&adapter));
            let golden = directory.join("golden").join(name);
            let listed = json(&golden.with_extension("json"));
            for (i, case) in listed["inputs"].as_array().unwrap().iter().enumerate() {
                let prompt = ids(&case["ids"]);
                let expected = rows(&golden.with_extension("safetensors"), &format!("logits.{i}"));
                let difference = max_difference(&harness.logits(&prompt, slot), &expected);
                assert!(difference <= TOLERANCE, "{family} {name} {i}: {difference}");
                let greedy = ids(&case["greedy_ids"]);
                let (tokens, _) = harness.greedy(&prompt, slot, greedy.len());
                assert_eq!(tokens, greedy, "{family} {name} {i}");
            }
        }
    }
}
