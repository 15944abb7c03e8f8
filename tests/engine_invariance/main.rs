//! Whoever shares the batch, and however it is cut: the answers of PyTorch, and the same bits.
mod bench;

use bench::{Answer, Arrangement, Bench, listen};
use lorad::{
    engine::{EngineConfig, EngineHandle, EventStream},
    kernel::{
        DeviceChoice, KernelConfig, Kernels, KvChoice, KvPrecision, Precision, Reference, open,
    },
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const TINY: [&str; 8] =
    ["llama", "llama31", "llama_linear", "llama_tied", "mistral", "phi3", "qwen2", "qwen3"];

/// Nothing is shared, nothing is cut.
fn plain(blocks: usize) -> Arrangement {
    let config = EngineConfig { no_prefix_cache: true, block_size: 8, ..EngineConfig::default() };
    Arrangement { name: "alone", blocks, config }
}

/// `few` blocks hold the longest request and not much more.
fn arrangements(few: usize) -> [Arrangement; 4] {
    let config = EngineConfig { no_prefix_cache: true, block_size: 8, ..EngineConfig::default() };
    let small_steps =
        EngineConfig { max_batched_tokens: 7, max_sequences: 5, block_size: 4, ..config.clone() };
    let few_slots =
        EngineConfig { adapter_slots: 2, block_size: 3, draft_tokens: 3, ..config.clone() };
    let cached = EngineConfig { no_prefix_cache: false, block_size: 2, ..config.clone() };
    [
        Arrangement { name: "pieces", blocks: 40 * few, config: small_steps },
        Arrangement { name: "few slots, guesses", blocks: 40 * few, config: few_slots },
        Arrangement { name: "few blocks", blocks: few, config },
        Arrangement { name: "prefix cache", blocks: 40 * few, config: cached },
    ]
}

/// `(case, greedy)` of every request there is.
fn requests(bench: &Bench) -> Vec<(usize, bool)> {
    (0..bench.cases.len()).flat_map(|case| [(case, true), (case, false)]).collect()
}

/// One request after the other.
fn alone(bench: &Bench, engine: &EngineHandle) -> Vec<Answer> {
    let ask = |(case, greedy)| {
        let mut answer = Answer::default();
        listen(&mut bench.submit(engine, case, greedy), &mut answer, usize::MAX);
        answer
    };
    requests(bench).into_iter().map(ask).collect()
}

/// Up to twenty at a time, each beginning when the others are somewhere in between.
fn in_company(bench: &Bench, engine: &EngineHandle) -> Vec<Answer> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let requests = requests(bench);
    let mut answers = vec![Answer::default(); requests.len()];
    let mut live: Vec<(usize, EventStream)> = Vec::new();
    for (index, &(case, greedy)) in requests.iter().enumerate() {
        live.push((index, bench.submit(engine, case, greedy)));
        let some = rng.random_range(0..live.len());
        let tokens = if live.len() == 20 { usize::MAX } else { rng.random_range(0..3) };
        let (index, stream) = &mut live[some];
        listen(stream, &mut answers[*index], tokens);
        if tokens == usize::MAX {
            live.swap_remove(some);
        }
    }
    for (index, mut stream) in live {
        listen(&mut stream, &mut answers[index], usize::MAX);
    }
    answers
}

fn check_golden(bench: &Bench, answers: &[Answer], how: &str) {
    for ((case, greedy), answer) in requests(bench).into_iter().zip(answers) {
        let case = &bench.cases[case];
        let right = !greedy || answer.tokens == case.answer;
        assert!(right, "{how}, {:?}: {:?}, not {:?}", case.adapter, answer.tokens, case.answer);
        assert_eq!(answer.logprobs.len(), case.answer.len());
    }
}

/// Runs every arrangement, the first one against the golden answers. How many tokens were guessed.
fn check(bench: &Bench, few: usize, how: &str) -> u64 {
    let reference = alone(bench, &bench.engine(&plain(40 * few)));
    check_golden(bench, &reference, &format!("{how}, alone"));
    check_company(bench, few, how, &reference)
}

/// Runs the other arrangements against the answers of the first. How many tokens were guessed.
fn check_company(bench: &Bench, few: usize, how: &str, reference: &[Answer]) -> u64 {
    let mut guessed = 0;
    for arrangement in arrangements(few) {
        let engine = bench.engine(&arrangement);
        let how = format!("{how}, {}", arrangement.name);
        let answers = in_company(bench, &engine);
        assert!(answers == reference, "{how}: other bits");
        let snapshot = engine.snapshot();
        match arrangement.name {
            "few blocks" => assert!(snapshot.preemptions > 0, "{how}: nobody was preempted"),
            "prefix cache" => assert!(snapshot.prefix_hits > 0, "{how}: nothing was found"),
            _ => {}
        }
        guessed += snapshot.draft_tokens;
    }
    guessed
}

fn cpu() -> Arc<dyn Kernels> {
    let config = KernelConfig {
        device: DeviceChoice::Cpu,
        precision: Precision::F32,
        kv_precision: KvChoice::Auto,
        threads: None,
    };
    open(&config).expect("a CPU")
}

#[test]
fn tiny_models_answer_the_same_in_every_arrangement() {
    // Not every model repeats itself in so few tokens.
    let guessed = TINY.map(|base| check(&Bench::tiny(base, cpu()), 10, base));
    assert!(guessed.iter().any(|tokens| *tokens > 0), "nobody guessed anything");
}

#[test]
fn the_reference_answers_with_the_same_bits_in_every_arrangement() {
    let guessed = check(&Bench::tiny("llama_tied", Arc::new(Reference)), 10, "llama_tied");
    assert!(guessed > 0, "nothing was guessed");
}

/// The tokens may be others than the golden ones, but they are the same whoever shares the batch.
#[test]
fn rounded_weights_answer_with_the_same_bits_in_every_arrangement() {
    for precision in [Precision::Bf16, Precision::Int8, Precision::Int4] {
        for base in ["llama_tied", "qwen2"] {
            let bench = Bench::tiny(base, cpu()).at(precision);
            let reference = alone(&bench, &bench.engine(&plain(400)));
            check_company(&bench, 10, &format!("{base} at {precision}"), &reference);
        }
    }
}

#[test]
fn a_rounded_cache_answers_with_the_same_bits_in_every_arrangement() {
    for (base, precision) in [("llama_tied", Precision::Bf16), ("qwen2", Precision::F32)] {
        let bench = Bench::tiny(base, cpu()).at(precision).keeping(KvPrecision::Int8);
        let reference = alone(&bench, &bench.engine(&plain(400)));
        check_company(&bench, 10, &format!("{base} with keys and values at int8"), &reference);
    }
}

#[test]
fn mixes_of_all_kinds_answer_with_the_same_bits_in_every_arrangement() {
    let mixes = [
        "mix-0.6dora-0.4alora",
        "mix-0.5embedding-0.5norms",
        "mix-0.7tokens-0.3whole",
        "mix-1.5head-0.25dora",
    ];
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let bench = Bench::tiny("llama", cpu()).at(precision).mixed(&mixes);
        let reference = alone(&bench, &bench.engine(&plain(400)));
        check_company(&bench, 10, &format!("mixes at {precision}"), &reference);
    }
}

/// `$LORAD_TEST_MODEL` and `$LORAD_TEST_FIXTURES`, or the fixtures beside the repository.
fn smollm2() -> Option<(PathBuf, PathBuf)> {
    let model = PathBuf::from(std::env::var_os("LORAD_TEST_MODEL")?);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures");
    let fixtures = std::env::var_os("LORAD_TEST_FIXTURES").map_or(beside, PathBuf::from);
    (model.join("config.json").is_file() && fixtures.join("golden").is_dir())
        .then_some((model, fixtures))
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn smollm2_answers_the_same_in_every_arrangement() {
    let Some((model, fixtures)) = smollm2() else {
        eprintln!("skipped: no SmolLM2 in $LORAD_TEST_MODEL, or no $LORAD_TEST_FIXTURES");
        return;
    };
    let names = [
        "base",
        "newsworthiness",
        "pirate",
        "sql",
        "json-extract",
        "fp16",
        "rslora",
        "patterns",
        "layers-subset",
        "target-regex",
        "mix-0.7pirate-0.3sql",
        "alora",
        "dora",
        "lora-bias",
        "embed-lora",
        "lm-head-lora",
        "token-indices",
    ];
    let guessed = check(&Bench::smollm2(model, &fixtures, &names, cpu()), 14, "SmolLM2");
    assert!(guessed > 0, "nothing was guessed");
}
