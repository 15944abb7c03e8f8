//! Golden answers outside the repository: a real model, and more tiny ones. Skipped, with a notice, where they are not.
use crate::{
    answers::{Answer, TOLERANCE, alone_and_together, step_all},
    harness::{
        Harness, all_kernels, argmax, cpu_kernels, ids, json, max_difference, repository, rows,
    },
};
use lorad::{kernel::Precision, lora::AdapterSlot};
use std::{
    env, fs,
    path::{Path, PathBuf},
    slice,
};

/// In tokens.
const LONG_PROMPT: usize = 100;
/// Where the fixtures are; beside the repository unless it says otherwise.
const FIXTURES: &str = "LORAD_TEST_FIXTURES";
/// SmolLM2-135M-Instruct as a directory.
const MODEL: &str = "LORAD_TEST_MODEL";
/// Every adapter of the real model, of every kind.
const ADAPTERS: [&str; 16] = [
    "alora",
    "dora",
    "embed-lora",
    "fp16",
    "json-extract",
    "layers-subset",
    "lm-head-lora",
    "lora-bias",
    "newsworthiness",
    "patterns",
    "pirate",
    "rslora",
    "sql",
    "target-regex",
    "token-indices",
    MIX,
];
/// Two adapters at once, under the name of their golden answers.
const MIX: &str = "mix-0.7pirate-0.3sql";
/// What it is a mix of.
const MIXED: [(&str, f32); 2] = [("pirate", 0.7), ("sql", 0.3)];
/// The tiny models.
const FAMILIES: [&str; 5] = ["llama", "llama_tied", "mistral", "phi3", "qwen2"];
/// Steps in common that the real model is asked for.
const STEPS: usize = 4;

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

/// The adapters behind a golden answer's name, and how much of each.
fn adapters(harness: &mut Harness, directory: &Path, name: &str) -> Vec<(AdapterSlot, f32)> {
    let mut load =
        |(name, weight): (&str, f32)| (harness.add_adapter(&directory.join(name)), weight);
    match name {
        "base" => Vec::new(),
        MIX => MIXED.map(load).to_vec(),
        name => vec![load((name, 1.0))],
    }
}

/// One golden answer: a prompt, the logits wanted, the greedy tokens.
struct Golden {
    prompt: Vec<u32>,
    logits: Vec<Vec<f32>>,
    greedy: Vec<u32>,
}

/// What `golden/{name}` holds under `key`.
fn golden(directory: &Path, name: &str, key: &str) -> Vec<Golden> {
    let path = directory.join("golden").join(name);
    // Names have dots of their own.
    let file = |extension: &str| PathBuf::from(format!("{}.{extension}", path.display()));
    let listed = json(&file("json"));
    let cases = listed[key].as_array().unwrap().iter().enumerate();
    let case = |(i, case): (usize, &serde_json::Value)| Golden {
        prompt: ids(&case["ids"]),
        logits: rows(&file("safetensors"), &format!("logits.{i}")),
        greedy: ids(&case["greedy_ids"]),
    };
    cases.map(case).collect()
}

#[test]
fn smollm2_gives_the_golden_logits_and_tokens_with_every_adapter() {
    let (Some(fixtures), Some(model)) = (fixtures(), model()) else { return };
    let mut harness = Harness::open(&model, &cpu_kernels(), Precision::F32);
    for name in ["base"].into_iter().chain(ADAPTERS) {
        let mix = adapters(&mut harness, &fixtures.join("adapters"), name);
        for (i, case) in golden(&fixtures, name, "prompts").iter().enumerate() {
            // The long prompt once is enough: it costs as much as all others of an adapter.
            if name != "base" && case.prompt.len() > LONG_PROMPT {
                continue;
            }
            // The golden continuation is fed as it is: each token must be the best after those before it.
            let mut sequence = harness.sequence(&case.prompt, &mix);
            sequence.tokens.extend(&case.greedy[..case.greedy.len() - 1]);
            let logits = step_all(&mut harness, slice::from_mut(&mut sequence)).remove(0);
            harness.release(sequence);
            let logits = &logits[case.prompt.len() - 1..];
            let difference = max_difference(&logits[..1], &case.logits);
            assert!(difference <= TOLERANCE, "{name}, prompt {i}: logits differ by {difference}");
            let best: Vec<_> = logits.iter().map(|row| argmax(row)).collect();
            assert_eq!(best, case.greedy, "{name}, prompt {i}");
        }
        for (slot, _) in mix {
            harness.clear_adapter(slot);
        }
    }
}

#[test]
fn smollm2_serves_every_adapter_in_one_batch() {
    let (Some(fixtures), Some(model)) = (fixtures(), model()) else { return };
    let mut harness = Harness::open(&model, &cpu_kernels(), Precision::F32);
    let (mut sequences, mut cases) = (Vec::new(), Vec::new());
    for name in ["base"].into_iter().chain(ADAPTERS) {
        let mix = adapters(&mut harness, &fixtures.join("adapters"), name);
        let case = golden(&fixtures, name, "prompts").remove(1);
        sequences.push(harness.sequence(&case.prompt, &mix));
        cases.push((name, case));
    }
    for step in 0..STEPS {
        let logits = step_all(&mut harness, &mut sequences);
        for ((sequence, rows), (name, case)) in sequences.iter_mut().zip(logits).zip(&cases) {
            let last = rows.last().unwrap();
            if step == 0 {
                let difference = max_difference(slice::from_ref(last), &case.logits);
                assert!(difference <= TOLERANCE, "{name}: logits differ by {difference}");
            }
            assert_eq!(argmax(last), case.greedy[step], "{name}");
            sequence.tokens.push(argmax(last));
        }
    }
}

#[test]
fn tiny_models_of_every_family_give_the_golden_logits() {
    let Some(fixtures) = fixtures() else { return };
    for (kind, kernels) in all_kernels() {
        for family in FAMILIES {
            let directory = fixtures.join("tiny").join(family);
            let mut harness = Harness::open(&directory, &kernels, Precision::F32);
            let mut answers = Vec::new();
            for name in tiny_names(&directory) {
                let mix = adapters(&mut harness, &directory.join("adapters"), &name);
                for case in golden(&directory, &name, "inputs") {
                    answers.push(Answer {
                        what: format!("{family} {name}"),
                        mix: mix.clone(),
                        prompt: case.prompt,
                        logits: case.logits,
                        greedy: case.greedy,
                    });
                }
            }
            alone_and_together(&mut harness, kind, &answers);
        }
    }
}

/// The base and every adapter of a tiny model, by name.
fn tiny_names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory.join("adapters")).unwrap().map(Result::unwrap);
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let mut names: Vec<_> = names.chain(["base".to_owned()]).collect();
    names.sort();
    names
}
