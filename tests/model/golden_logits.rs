//! Logits and greedy tokens of every golden base and adapter against transformers and PEFT, on every kernel.
use crate::{
    answers::{TOLERANCE, assert_same, step_all},
    harness::{
        Harness, Sequence, all_kernels, argmax, cpu_kernels, ids, json, max_difference, repository,
        rows,
    },
};
use lorad::{
    kernel::{Kernels, Precision},
    lora::AdapterSlot,
};
use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

/// Each weight and each input of a product is rounded to bf16, by 2^-9 of itself at most; logits of standard deviation
/// 2.4 move by less than this.
const BF16_TOLERANCE: f32 = 0.3;
/// Weights are off by 1/254 of their group's largest at most, inputs too.
const INT8_TOLERANCE: f32 = 1.0;
/// Weights are off by 1/16 of their group's largest, and the sharp attention of random weights makes most of it (6.5 at
/// worst); wrong products differ by 13 and more.
const INT4_TOLERANCE: f32 = 9.0;
const BASES: [&str; 7] =
    ["llama", "llama_tied", "llama31", "llama_linear", "mistral", "qwen2", "qwen3"];

struct Case {
    adapter: Option<String>,
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

fn directory(base: &str) -> PathBuf {
    repository("tests/golden").join(base)
}

fn cases(base: &str) -> Vec<Case> {
    let directory = directory(base);
    let listed = json(&directory.join("golden.json"));
    let case = |case: &serde_json::Value| Case {
        adapter: case["adapter"].as_str().map(str::to_owned),
        prompt: ids(&case["prompt"]),
        greedy: ids(&case["greedy"]),
        logits: rows(
            &directory.join(case["logits_file"].as_str().unwrap()),
            case["logits_key"].as_str().unwrap(),
        ),
    };
    let cases: Vec<_> = listed.as_array().unwrap().iter().map(case).collect();
    assert!(cases.iter().any(|case| case.adapter.is_some()), "{base} has adapters");
    cases
}

/// A base with every adapter its cases name.
fn open(base: &str, kernels: &Arc<dyn Kernels>) -> (Harness, BTreeMap<String, AdapterSlot>) {
    let mut harness = Harness::open(&directory(base), kernels, Precision::F32);
    let mut slots = BTreeMap::new();
    for adapter in cases(base).into_iter().filter_map(|case| case.adapter) {
        let path = directory(base).join("adapters").join(&adapter);
        slots.entry(adapter).or_insert_with(|| harness.add_adapter(&path));
    }
    (harness, slots)
}

#[test]
fn every_base_and_adapter_gives_the_golden_logits() {
    for (name, kernels) in all_kernels() {
        for base in BASES {
            let (mut harness, slots) = open(base, &kernels);
            for case in cases(base) {
                let slot = case.adapter.as_ref().map(|adapter| slots[adapter]);
                let logits = harness.logits(&case.prompt, slot);
                let difference = max_difference(&logits, &case.logits);
                let what = format!("{base} {:?} on {name}", case.adapter);
                assert!(difference <= TOLERANCE, "{what}: logits differ by {difference}");
                let (greedy, _) = harness.greedy(&case.prompt, slot, case.greedy.len());
                assert_eq!(greedy, case.greedy, "{what}");
            }
        }
    }
}

#[test]
fn bf16_stays_near_the_golden_logits() {
    stays_near_the_golden_logits(Precision::Bf16, BF16_TOLERANCE);
}

#[test]
fn int8_stays_near_the_golden_logits() {
    stays_near_the_golden_logits(Precision::Int8, INT8_TOLERANCE);
}

#[test]
fn int4_stays_near_the_golden_logits() {
    stays_near_the_golden_logits(Precision::Int4, INT4_TOLERANCE);
}

fn stays_near_the_golden_logits(precision: Precision, tolerance: f32) {
    let kernels = cpu_kernels();
    for base in BASES {
        let mut harness = Harness::open(&directory(base), &kernels, precision);
        for case in cases(base) {
            let slot = case.adapter.as_ref().map(|adapter| {
                harness.add_adapter(&directory(base).join("adapters").join(adapter))
            });
            let logits = harness.logits(&case.prompt, slot);
            let difference = max_difference(&logits, &case.logits);
            let what = format!("{base} {:?} at {precision}", case.adapter);
            assert!(difference <= tolerance, "{what}: logits differ by {difference}");
            assert!(difference > TOLERANCE, "{what}: it cannot be as exact as f32");
            for (row, golden) in logits.iter().zip(&case.logits) {
                if lead(golden) > 2.0 * tolerance {
                    assert_eq!(argmax(row), argmax(golden), "{what}");
                }
            }
        }
    }
}

/// How far the best token is before the second.
fn lead(row: &[f32]) -> f32 {
    let best = argmax(row) as usize;
    let others = row.iter().enumerate().filter(|(token, _)| *token != best);
    row[best] - others.map(|(_, logit)| *logit).fold(f32::NEG_INFINITY, f32::max)
}

#[test]
fn both_generations_of_config_give_the_same_bits() {
    let (_, kernels) = all_kernels().remove(0);
    for base in BASES {
        let other = other_generation(base);
        let prompt = cases(base).remove(0).prompt;
        let mut old = Harness::open(&directory(base), &kernels, Precision::F32);
        let mut new = Harness::open(other.path(), &kernels, Precision::F32);
        assert_eq!(old.logits(&prompt, None), new.logits(&prompt, None), "{base}");
    }
}

/// The base's files with the other spelling as config.json.
fn other_generation(base: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let mut others = 0;
    for entry in fs::read_dir(directory(base)).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("config.transformers") {
            fs::copy(entry.path(), copy.path().join("config.json")).unwrap();
            others += 1;
        } else if entry.path().is_file() && name != "config.json" {
            fs::copy(entry.path(), copy.path().join(name)).unwrap();
        }
    }
    assert_eq!(others, 1, "{base} has the other generation's config");
    copy
}

#[test]
fn a_prompt_in_chunks_is_the_prompt_as_a_whole() {
    for (name, kernels) in all_kernels() {
        for base in BASES {
            let (mut harness, slots) = open(base, &kernels);
            let longest = cases(base).into_iter().max_by_key(|case| case.prompt.len()).unwrap();
            let slot = slots.values().next().copied();
            let whole = harness.logits(&longest.prompt, slot);
            for size in [1, 3, 7, 16] {
                let chunked = in_chunks(&mut harness, &longest.prompt, slot, size);
                assert_same(name, &format!("{base} in chunks of {size}"), &whole, &chunked);
            }
        }
    }
}

fn in_chunks(
    harness: &mut Harness,
    prompt: &[u32],
    slot: Option<AdapterSlot>,
    size: usize,
) -> Vec<Vec<f32>> {
    let mut sequence = Sequence::new(prompt, slot);
    let mut logits = Vec::new();
    while sequence.left() > 0 {
        let count = size.min(sequence.left());
        logits.extend(harness.step(&mut [(&mut sequence, count)]).remove(0));
    }
    harness.release(sequence);
    logits
}

#[test]
fn all_adapters_in_one_batch_give_what_each_gives_alone() {
    for (name, kernels) in all_kernels() {
        for base in BASES {
            let (mut harness, slots) = open(base, &kernels);
            let cases = cases(base);
            let slot = |case: &Case| case.adapter.as_ref().map(|adapter| slots[adapter]);
            let mut sequences: Vec<_> =
                cases.iter().map(|case| Sequence::new(&case.prompt, slot(case))).collect();
            let prefilled = step_all(&mut harness, &mut sequences);
            for (case, together) in cases.iter().zip(&prefilled) {
                let alone = harness.logits(&case.prompt, slot(case));
                let what = format!("{base} {:?}", case.adapter);
                assert_same(name, &what, &alone, together);
                assert!(max_difference(together, &case.logits) <= TOLERANCE, "{what} on {name}");
            }
            assert_decodes_together(&mut harness, &cases, sequences, &prefilled);
        }
    }
}

/// Continues every sequence greedily, one token of each a step.
fn assert_decodes_together(
    harness: &mut Harness,
    cases: &[Case],
    mut sequences: Vec<Sequence>,
    prefilled: &[Vec<Vec<f32>>],
) {
    let mut last: Vec<_> = prefilled.iter().map(|rows| argmax(rows.last().unwrap())).collect();
    for _ in 1..cases[0].greedy.len() {
        sequences.iter_mut().zip(&last).for_each(|(sequence, token)| sequence.tokens.push(*token));
        let logits = step_all(harness, &mut sequences);
        last = logits.iter().map(|rows| argmax(&rows[0])).collect();
    }
    for ((case, sequence), last) in cases.iter().zip(sequences).zip(last) {
        let decoded = [&sequence.tokens[case.prompt.len()..], &[last]].concat();
        assert_eq!(decoded, case.greedy, "{:?}", case.adapter);
        harness.release(sequence);
    }
}

#[test]
fn an_adapter_changes_the_logits_and_its_slot_cleared_gives_the_base_again() {
    let (_, kernels) = all_kernels().remove(0);
    let (mut harness, slots) = open("llama_tied", &kernels);
    let prompt = cases("llama_tied").remove(0).prompt;
    let base = harness.logits(&prompt, None);
    for slot in slots.into_values() {
        assert!(max_difference(&base, &harness.logits(&prompt, Some(slot))) > 0.1);
        harness.clear_adapter(slot);
        assert_eq!(base, harness.logits(&prompt, Some(slot)));
    }
}

#[test]
fn loading_running_and_clearing_adapters_leaves_every_bit_of_the_base() {
    for (name, kernels) in all_kernels() {
        let mut harness = Harness::open(&directory("llama_tied"), &kernels, Precision::F32);
        let before = harness.model.weights.fingerprint().unwrap();
        for case in cases("llama_tied") {
            let slot = case.adapter.map(|adapter| {
                harness.add_adapter(&directory("llama_tied").join("adapters").join(adapter))
            });
            harness.logits(&case.prompt, slot);
            if let Some(slot) = slot {
                harness.clear_adapter(slot);
            }
        }
        assert_eq!(before, harness.model.weights.fingerprint().unwrap(), "{name}");
    }
    let other = Harness::open(&directory("llama"), &all_kernels()[0].1, Precision::F32);
    let tied = Harness::open(&directory("llama_tied"), &all_kernels()[0].1, Precision::F32);
    let prints = [other, tied].map(|harness| harness.model.weights.fingerprint().unwrap());
    assert_ne!(prints[0], prints[1]);
}

#[test]
fn a_directory_is_named_after_itself() {
    let (_, kernels) = all_kernels().remove(0);
    let harness = Harness::open(&directory("qwen2"), &kernels, Precision::F32);
    let facts = &harness.model.facts;
    assert_eq!((facts.name.as_str(), facts.architecture), ("qwen2", "Qwen2ForCausalLM"));
    // Tied embeddings are one tensor and one piece of memory.
    let tensors = fs::read(directory("qwen2").join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&tensors).unwrap();
    let stored = tensors.iter().map(|(_, tensor)| tensor.shape().iter().product::<usize>());
    assert_eq!(facts.parameters, stored.sum::<usize>());
}
