//! Every kind of adapter on every base that has answers for it: alone, and all of a base's in one batch.
use crate::{
    answers::{Answer, alone_and_together},
    harness::{Harness, all_kernels, ids, json, repository, rows},
};
use lorad::{kernel::Precision, lora::AdapterSlot};
use std::{collections::BTreeMap, path::Path};

const BASES: [&str; 6] = ["llama", "llama_tied", "mistral", "phi3", "qwen2", "qwen3"];

#[test]
fn every_kind_of_adapter_gives_the_golden_answers_alone_and_in_one_batch() {
    for (kind, kernels) in all_kernels() {
        for base in BASES {
            let directory = repository("tests/golden").join(base);
            let mut harness = Harness::open(&directory, &kernels, Precision::F32);
            let answers = answers(&mut harness, &directory, base);
            alone_and_together(&mut harness, kind, &answers);
        }
    }
}

/// Those with an adapter, and one of the base's among them.
fn answers(harness: &mut Harness, directory: &Path, base: &str) -> Vec<Answer> {
    let family = json(&directory.join("family.json"));
    let plain = json(&directory.join("golden.json"));
    let of_base = plain.as_array().unwrap().iter().find(|case| case["adapter"].is_null());
    let mut slots = BTreeMap::<&str, AdapterSlot>::new();
    let cases = family.as_array().unwrap().iter().chain(of_base);
    let answer = |case| {
        let case: &serde_json::Value = case;
        let name = case["adapter"].as_str();
        let mut load = |name| {
            *slots
                .entry(name)
                .or_insert_with(|| harness.add_adapter(&directory.join("adapters").join(name)))
        };
        let file = directory.join(case["logits_file"].as_str().unwrap());
        Answer {
            what: format!("{base} {name:?}"),
            mix: name.map(|name| (load(name), 1.0)).into_iter().collect(),
            prompt: ids(&case["prompt"]),
            logits: rows(&file, case["logits_key"].as_str().unwrap()),
            greedy: ids(&case["greedy"]),
        }
    };
    cases.map(answer).collect()
}
