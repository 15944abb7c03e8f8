//! Adapters that PEFT wrote: those that can be served are, over a loaded base, and the others are refused by name.
use super::parse_files;
use lorad::{
    adapter::{AdapterFiles, AdapterLimits, ParsedAdapter},
    kernel::{CpuKernels, KvChoice, Precision},
    lora::{FrozenBase, HeadKind},
    model::{BaseWeights, LoadOptions, ModelSource, Progress, load},
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Where they are: `$LORAD_TEST_FIXTURES` or beside the repository.
fn fixtures() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures");
    let given = std::env::var_os("LORAD_TEST_FIXTURES").map_or(beside, PathBuf::from);
    given.join("tiny").is_dir().then_some(given)
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A base as it is served.
pub(crate) fn base(directory: &Path) -> BaseWeights {
    let options = LoadOptions {
        precision: Precision::F32,
        kv_precision: KvChoice::Auto,
        max_positions: None,
        kv_cache_bytes: None,
        pooling: None,
        progress: Progress::Hidden,
    };
    let kernels = CpuKernels::new(1).expect("threads");
    let loaded = load(&ModelSource::Directory(directory.to_owned()), &kernels, &options);
    loaded.unwrap_or_else(|error| panic!("{}: {error}", directory.display())).weights
}

fn directories(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

fn read_and_parse(directory: &Path, base: &dyn FrozenBase) -> Result<ParsedAdapter, String> {
    let files = AdapterFiles::read(directory, &AdapterLimits::default());
    files.map_err(|error| error.to_string()).and_then(|files| parse_files(&files, base))
}

/// Part of the refusal of each fixture that is not served; the others are.
const REFUSED: &[(&str, &str)] = &[
    ("minilm-newsworthiness", "made for another base"),
    ("pickle-bin", "pickle"),
    ("bad_json", "not a JSON object"),
    ("empty", "0 bytes"),
    ("header_len_huge", "header claims 1152921504606846976 bytes"),
    ("ia3", "`peft_type` is `\"IA3\"`"),
    ("layer_replication", "`layer_replication`"),
    ("missing_B", "has no lora_B"),
    ("nan", "NaN"),
    ("no_peft_type", "no `peft_type`"),
    ("pickle_only", "pickle"),
    ("r_zero", "`0`"),
    ("rank_mismatch", "[4, 64]; this model and adapter_config.json make it [8, 64]"),
    ("task_mismatch", "`task_type`"),
    ("wrong_in_dim", "[4, 63]; this model and adapter_config.json make it [4, 64]"),
];

fn check_fixture(directory: &Path, base: &dyn FrozenBase) {
    let name = directory.file_name().and_then(|name| name.to_str()).expect("a name");
    let refused = REFUSED.iter().find(|(refused, _)| *refused == name);
    match (read_and_parse(directory, base), refused) {
        (Ok(parsed), None) => {
            assert!(parsed.describe().expect("numbers").delta_norm > 0.0, "{name}");
        }
        (Err(error), Some((_, reason))) => assert!(error.contains(reason), "{name}: {error}"),
        (Ok(_), Some(_)) => panic!("{} is served", directory.display()),
        (Err(error), None) => panic!("{}: {error}", directory.display()),
    }
}

#[test]
fn adapters_that_peft_wrote_are_served_or_refused_by_name() {
    let Some(fixtures) = fixtures() else { return };
    for model in ["llama", "llama_tied", "mistral", "qwen2", "phi3"] {
        let model = fixtures.join("tiny").join(model);
        let base = base(&model);
        for kind in ["adapters", "bad", "compat"] {
            for directory in directories(&model.join(kind)) {
                check_fixture(&directory, &base);
            }
        }
    }
}

#[test]
fn adapters_of_a_real_model_are_served_or_refused_by_name() {
    let model = std::env::var_os("LORAD_TEST_MODEL").map(PathBuf::from);
    let (Some(fixtures), Some(model)) = (fixtures(), model) else { return };
    let base = base(&model);
    for directory in directories(&fixtures.join("adapters")) {
        check_fixture(&directory, &base);
    }
}

#[test]
fn adapters_of_other_architectures_are_refused() {
    let Some(fixtures) = fixtures() else { return };
    let llama = base(&fixtures.join("tiny/llama"));
    for model in ["bert_embed", "bert_seqcls", "gpt2", "phi3"] {
        for directory in directories(&fixtures.join("tiny").join(model).join("adapters")) {
            let error = read_and_parse(&directory, &llama).expect_err("another architecture");
            assert!(!error.is_empty(), "{}", directory.display());
        }
    }
}

#[derive(serde::Deserialize)]
struct RefusedCase {
    dir: String,
    must_mention: String,
}

#[test]
fn refused_goldens_are_refused_for_their_reason() {
    let base = base(&golden().join("llama_tied"));
    let cases = fs::read(golden().join("refused/cases.json")).expect("the cases");
    let cases: Vec<RefusedCase> = serde_json::from_slice(&cases).expect("JSON");
    assert!(cases.len() > 30);
    for RefusedCase { dir, must_mention } in cases {
        let error = read_and_parse(&golden().join("refused").join(&dir), &base).expect_err(&dir);
        assert!(error.contains(&must_mention), "{dir}: `{must_mention}` is not in: {error}");
    }
    read_and_parse(&golden().join("refused/sound"), &base).expect("the one they were made from");
}

#[test]
fn golden_adapters_are_served() {
    let mut served = 0;
    for model in directories(&golden()).iter().filter(|model| model.join("adapters").is_dir()) {
        let base = base(model);
        for directory in directories(&model.join("adapters")) {
            let parsed = read_and_parse(&directory, &base);
            let parsed = parsed.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
            assert!(
                parsed.describe().expect("numbers").delta_norm > 0.0,
                "{}",
                directory.display()
            );
            served += 1;
        }
    }
    assert!(served > 3);
}

#[derive(serde::Deserialize)]
struct GoldenCase {
    adapter: Option<String>,
    kind: Option<String>,
    labels: Option<Vec<String>>,
}

#[test]
fn golden_adapters_score_the_labels_that_they_were_trained_on() {
    let mut scored = 0;
    for model in directories(&golden()) {
        let found = ["golden.json", "labels.json"].map(|name| fs::read(model.join(name)));
        let cases = found.iter().flatten().filter_map(|text| serde_json::from_slice(text).ok());
        let cases: Vec<GoldenCase> = cases.flat_map(|cases: Vec<_>| cases).collect();
        let labelled =
            cases.into_iter().filter_map(|case| Some((case.adapter?, case.kind?, case.labels?)));
        let labelled: BTreeSet<_> = labelled.collect();
        if labelled.is_empty() {
            continue;
        }
        let base = base(&model);
        for (adapter, kind, labels) in labelled {
            let parsed = read_and_parse(&model.join("adapters").join(&adapter), &base);
            let parsed =
                parsed.unwrap_or_else(|error| panic!("{}/{adapter}: {error}", model.display()));
            let about = parsed.describe().expect("numbers");
            assert_eq!(about.labels, labels, "{}/{adapter}", model.display());
            let own = parsed.weights.class_head().map(|head| head.labels.kind);
            let base = base.layout().class_head().and_then(|head| head.base.as_ref());
            let wanted = if kind == "token" { HeadKind::Token } else { HeadKind::Sequence };
            assert_eq!(own.or(base.map(|base| base.kind)), Some(wanted), "{adapter}");
            scored += 1;
        }
    }
    assert!(scored > 40, "{scored}");
}
