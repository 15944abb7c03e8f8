//! Adapters out of GGUF files give the logits of the PEFT adapters they were made from, on both kinds of base.
use crate::harness::{
    Harness, all_kernels, cpu_kernels, ids, json, max_difference, repository, rows,
};
use lorad::{
    kernel::{Kernels, Precision},
    lora::AdapterSlot,
};
use std::{path::Path, sync::Arc};

/// Two correct f32 programs differ by 1e-4 at most here.
const TOLERANCE: f32 = 1e-3;
/// Factors rounded to 11 and to 8 bits, and to 1/254 of the largest of 32; the sharp attention of random weights makes
/// 0.013, 0.09 and 0.25 of it, and a wrong order of rows 2 and more.
const ROUNDED: [(&str, f32); 3] = [("f16", 0.05), ("bf16", 0.3), ("q8_0", 0.6)];

fn check(base: &Path, cases: &str, file: &str, kernels: &Arc<dyn Kernels>, tolerance: f32) {
    let adapter = file.split('-').skip(1).collect::<Vec<_>>();
    let adapter = adapter[..adapter.len() - 1].join("-");
    let directory = repository("tests/golden").join(cases);
    let mut harness = Harness::open(base, kernels, Precision::F32);
    let path = repository("tests/golden/gguf/lora").join(format!("{file}.gguf"));
    let slot: AdapterSlot = harness.add_adapter(&path);
    let listed = json(&directory.join("golden.json"));
    let of_adapter = |case: &&serde_json::Value| case["adapter"] == adapter.as_str();
    let cases: Vec<_> = listed.as_array().unwrap().iter().filter(of_adapter).collect();
    assert!(!cases.is_empty(), "{adapter} has answers");
    for case in cases {
        let key = case["logits_key"].as_str().unwrap();
        let golden = rows(&directory.join(case["logits_file"].as_str().unwrap()), key);
        let logits = harness.logits(&ids(&case["prompt"]), Some(slot));
        let difference = max_difference(&logits, &golden);
        let what = format!("{file} on {}", base.display());
        assert!(difference <= tolerance, "{what}: logits differ by {difference}");
        assert!(difference > 0.0, "{what}: another program's sums");
    }
}

#[test]
fn gguf_adapters_give_the_golden_logits() {
    for (_, kernels) in all_kernels() {
        for (base, file) in [
            ("llama", "llama-layers-f32"),
            ("llama_tied", "llama_tied-all-linear-f32"),
            ("llama_tied", "llama_tied-odd-rank-f32"),
            ("mistral", "mistral-all-linear-f32"),
            ("phi3", "phi3-all-linear-f32"),
            ("qwen2", "qwen2-fp16-f16"),
            ("qwen3", "qwen3-all-linear-f32"),
        ] {
            let directory = repository("tests/golden").join(base);
            check(&directory, base, file, &kernels, TOLERANCE);
        }
    }
}

#[test]
fn a_gguf_base_takes_both_kinds_of_adapter() {
    // Its weights are those of `llama_tied`.
    let base = repository("tests/golden/gguf/llama-f32.gguf");
    check(&base, "llama_tied", "llama_tied-all-linear-f32", &cpu_kernels(), TOLERANCE);
}

#[test]
fn rounded_factors_stay_near_the_golden_logits() {
    let base = repository("tests/golden/llama_tied");
    for (kind, tolerance) in ROUNDED {
        let file = format!("llama_tied-all-linear-{kind}");
        check(&base, "llama_tied", &file, &cpu_kernels(), tolerance);
    }
}
