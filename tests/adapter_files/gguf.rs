//! GGUF adapters, as llama.cpp's converter writes them and damaged in every way.
use crate::{
    adapter_maker::{base::MadeBase, small_layout, values},
    fixtures, parse_files,
};
use candle_core::{DType, Device, Tensor};
use lorad::{
    adapter::{
        AdapterConfig, AdapterFiles, AdapterLimits, AdapterName, AdapterRef, AdapterRegistry,
        ConvertBase, ParsedAdapter, PublishRule, format::GGUF_FILE, inspect, to_peft,
    },
    gguf::{GgufWriter, Storage},
    lora::{HeadCounts, LoraLayout, LoraWeights, LowRank, Projection, Site},
    model::{ModelSource, Outline, outline},
};
use safetensors::SafeTensors;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

/// Base, adapter and type of each file that holds a PEFT adapter's very numbers.
pub(crate) const EXACT: &[(&str, &str)] = &[
    ("llama", "alora"),
    ("llama", "embedding"),
    ("llama", "head"),
    ("llama", "layers"),
    ("llama", "norms"),
    ("llama_tied", "all-linear"),
    ("llama_tied", "odd-rank"),
    ("mistral", "all-linear"),
    ("phi3", "all-linear"),
    ("qwen3", "all-linear"),
];

pub(crate) fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

pub(crate) fn read(path: &Path) -> AdapterFiles {
    AdapterFiles::read(path, &AdapterLimits::default()).expect("an adapter")
}

pub(crate) fn peft(base: &str, adapter: &str) -> AdapterFiles {
    read(&golden(base).join("adapters").join(adapter))
}

/// The file that the converter wrote of an adapter.
pub(crate) fn gguf(base: &str, adapter: &str, kind: &str) -> AdapterFiles {
    read(&golden(&format!("gguf/lora/{base}-{adapter}-{kind}.gguf")))
}

pub(crate) fn convert_base(base: &str) -> ConvertBase {
    let source = ModelSource::Directory(golden(base));
    let Outline { architecture, layout } = outline(&source).expect("a golden base");
    ConvertBase { class: architecture, layout }
}

/// Every number of an adapter, by where it is.
pub(crate) fn numbers(weights: &LoraWeights) -> BTreeMap<String, Vec<u32>> {
    let bits = |tensor: &Tensor| {
        let values = tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32");
        values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let mut numbers = BTreeMap::new();
    let mut add = |place: &str, pair: &LowRank| {
        numbers.insert(format!("{place} a"), bits(pair.rows().expect("rows").0));
        numbers.insert(format!("{place} b"), bits(pair.rows().expect("rows").1));
    };
    for (site, delta) in weights.sites() {
        assert!(delta.gain.is_none() && delta.shift.is_none() && delta.trained.is_none());
        add(&site.to_string(), delta.low_rank.as_ref().expect("a pair"));
    }
    if let Some(delta) = weights.embedding() {
        add("embedding", delta.low_rank.as_ref().expect("a pair"));
    }
    numbers.extend(weights.norms().map(|(norm, weight)| (norm.to_string(), bits(weight))));
    numbers.extend(weights.invocation().map(|tokens| ("invocation".to_owned(), tokens.to_vec())));
    numbers
}

#[test]
fn a_gguf_adapter_is_the_peft_adapter_it_was_made_from() {
    for (base, adapter) in EXACT {
        let made = fixtures::base(&golden(base));
        let [from_gguf, from_peft] = [gguf(base, adapter, "f32"), peft(base, adapter)]
            .map(|files| parse_files(&files, &made).unwrap_or_else(|e| panic!("{adapter}: {e}")));
        let (got, wanted) = (numbers(&from_gguf.weights), numbers(&from_peft.weights));
        assert!(got == wanted, "{base} {adapter}");
        let ranks = |parsed: &ParsedAdapter| parsed.describe().expect("numbers").ranks;
        assert_eq!(ranks(&from_gguf), ranks(&from_peft), "{base} {adapter}");
    }
}

#[test]
fn blocks_are_dequantised_as_the_gguf_package_does() {
    let limits = AdapterLimits::default();
    let base = convert_base("llama_tied");
    let converted = to_peft(&gguf("llama_tied", "all-linear", "q8_0"), Some(&base), &limits);
    let [got, wanted, exact] = [
        weights(&converted.expect("served")),
        tensors(&fs::read(golden("gguf/lora/dequantised.safetensors")).expect("there")),
        weights(&peft("llama_tied", "all-linear")),
    ];
    assert!(got == wanted);
    for (name, values) in &got {
        let largest = exact[name].iter().fold(0_f32, |most, value| most.max(value.abs()));
        // Half a step of 1/127 of the block's largest, and as much again for the scale in f16.
        let bound = largest / 127.0;
        for (value, exact) in values.iter().zip(&exact[name]) {
            assert!((value - exact).abs() <= bound, "{name}: {value} for {exact}");
        }
    }
}

fn weights(files: &AdapterFiles) -> BTreeMap<String, Vec<f32>> {
    let AdapterFiles::Peft { weights, .. } = files else { panic!("PEFT's form") };
    tensors(weights)
}

fn tensors(bytes: &[u8]) -> BTreeMap<String, Vec<f32>> {
    let file = SafeTensors::deserialize(bytes).expect("safetensors");
    let values = |view: &safetensors::tensor::TensorView<'_>| {
        let dtype = view.dtype().try_into().expect("a float");
        Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>())
            .expect("numbers")
    };
    file.iter().map(|(name, view)| (name.to_owned(), values(&view))).collect()
}

/// A base with heads, whose queries are 2 heads of 4.
pub(crate) fn small_layout_with_heads() -> LoraLayout {
    small_layout().with_heads(HeadCounts { query: 2, key_value: 1 })
}

/// The start of a sound header.
fn header(architecture: &str) -> GgufWriter {
    let mut file = GgufWriter::new();
    file.text("general.architecture", architecture);
    file.text("general.type", "adapter");
    file.text("adapter.type", "lora");
    file
}

fn add(file: &mut GgufWriter, name: &str, shape: &[usize]) {
    let values = values(shape.iter().product(), 5);
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor");
    file.tensor(name, &tensor, Storage::F32).expect("f32");
}

/// `blk.0.ffn_down`, which is `[8, 12]`, by a pair of rank 2.
fn add_pair(file: &mut GgufWriter) {
    add(file, "blk.0.ffn_down.weight.lora_a", &[2, 12]);
    add(file, "blk.0.ffn_down.weight.lora_b", &[8, 2]);
}

fn refusal(bytes: Vec<u8>) -> String {
    let base = MadeBase::new(small_layout_with_heads());
    parse_files(&AdapterFiles::Gguf(bytes.into()), &base).expect_err("refused")
}

#[test]
fn without_an_alpha_the_scaling_is_one() {
    for alpha in [None, Some(0.0)] {
        let mut file = header("llama");
        if let Some(alpha) = alpha {
            file.f32("adapter.lora.alpha", alpha);
        }
        add_pair(&mut file);
        add(&mut file, "blk.1.ffn_down.weight.lora_a", &[3, 12]);
        add(&mut file, "blk.1.ffn_down.weight.lora_b", &[8, 3]);
        let files = AdapterFiles::Gguf(file.finish().into());
        let base = MadeBase::new(small_layout_with_heads());
        let parsed = parse_files(&files, &base).expect("served");
        for (layer, rank) in [(0, 2), (1, 3)] {
            let delta = parsed.weights.at(Site::block(layer, Projection::Down)).expect("there");
            let b = delta
                .low_rank
                .as_ref()
                .expect("a pair")
                .rows()
                .expect("rows")
                .1
                .t()
                .expect("a matrix");
            let b = b.flatten_all().and_then(|b| b.to_vec1::<f32>()).expect("f32");
            assert_eq!(b, values(8 * rank, 5));
        }
    }
}

#[test]
fn damaged_files_are_refused_each_with_its_reason() {
    type Bend = fn(&mut GgufWriter);
    let cases: [(Bend, &str); 13] = [
        (|_| {}, "has no LoRA tensors"),
        (|f| add(f, "blk.0.ffn_down.weight", &[8, 12]), "neither a `.lora_a`"),
        (|f| add(f, "blk.0.ffn_up.weight.lora_a", &[2, 8]), "has no `.lora_b` beside it"),
        (|f| add(f, "blk.0.ffn_up.weight.lora_b", &[12, 2]), "has no `.lora_a` beside it"),
        (
            |f| {
                add(f, "blk.0.ffn_up.weight.lora_a", &[2, 8]);
                add(f, "blk.0.ffn_up.weight.lora_b", &[12, 3]);
            },
            "rank 2, `blk.0.ffn_up.weight.lora_b` has rank 3",
        ),
        (
            |f| {
                add(f, "blk.0.ffn_gate_exps.weight.lora_a", &[2, 8]);
                add(f, "blk.0.ffn_gate_exps.weight.lora_b", &[12, 2]);
            },
            "no `llama` model has",
        ),
        (
            |f| {
                add(f, "blk.7.ffn_up.weight.lora_a", &[2, 8]);
                add(f, "blk.7.ffn_up.weight.lora_b", &[12, 2]);
            },
            "in PEFT's words",
        ),
        (
            |f| {
                add(f, "blk.0.attn_q.weight.lora_a", &[2, 8]);
                add(f, "blk.0.attn_q.weight.lora_b", &[9, 2]);
            },
            "[9, 2]",
        ),
        (
            |f| {
                add(f, "blk.0.ffn_up.weight.lora_a", &[2, 2, 8]);
                add(f, "blk.0.ffn_up.weight.lora_b", &[12, 2]);
            },
            "a factor is a matrix",
        ),
        (|f| f.f32("adapter.lora.beta", 1.0), "`adapter.lora.beta`"),
        (|f| f.f32("adapter.lora.alpha", f32::INFINITY), "is not finite"),
        (|f| f.text("adapter.lora.alpha", "16"), "not a number"),
        (|f| f.text("adapter.alora.invocation_tokens", "go"), "not a list of numbers"),
    ];
    for (number, (bend, reason)) in cases.into_iter().enumerate() {
        let mut file = header("llama");
        if number > 0 {
            add_pair(&mut file);
        }
        bend(&mut file);
        let error = refusal(file.finish());
        assert!(error.contains(reason), "{number}: {error}");
    }
}

#[test]
fn what_is_no_lora_adapter_is_said() {
    let model = fs::read(golden("gguf/llama-f32.gguf")).expect("there");
    assert!(refusal(model).contains("a base model, not an adapter"));
    let mut vector = GgufWriter::new();
    vector.text("general.architecture", "llama");
    vector.text("general.type", "adapter");
    vector.text("adapter.type", "control_vector");
    assert!(refusal(vector.finish()).contains("`control_vector`"));
    assert!(refusal(header("bloom").finish()).contains("`bloom`"));
    assert!(refusal(b"GGUF".to_vec()).contains("ends in the middle"));
    assert!(refusal(b"not one".to_vec()).contains("is not a GGUF file"));
}

#[test]
fn cut_files_other_types_and_numbers_that_are_none_are_refused() {
    let mut file = header("llama");
    add_pair(&mut file);
    let whole = file.finish();
    for len in (0..whole.len()).step_by(7) {
        let error = refusal(whole[..len].to_vec());
        assert!(error.contains("GGUF file"), "{len}: {error}");
    }
    let q4_0 = Storage::from_number(2).expect("a known type");
    let tensor = Tensor::ones((2, 32), DType::F32, &Device::Cpu).expect("a tensor");
    let mut small = header("llama");
    small.tensor("blk.0.ffn_down.weight.lora_a", &tensor, q4_0).expect("written");
    add(&mut small, "blk.0.ffn_down.weight.lora_b", &[8, 2]);
    assert!(refusal(small.finish()).contains("is Q4_0; factors in F32, F16, BF16, Q8_0"));
    let mut spoilt = whole.clone();
    let last = spoilt.len() - 64;
    spoilt[last..last + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(refusal(spoilt).contains("NaN"));
}

#[test]
fn damage_anywhere_never_panics() {
    let AdapterFiles::Gguf(whole) = gguf("llama", "alora", "f32") else { panic!("a GGUF file") };
    let base = MadeBase::new(convert_base("llama").layout);
    let header = 3000.min(whole.len());
    for at in 0..header {
        for flip in [0x01, 0x80, 0xff] {
            let mut bent = whole.to_vec();
            bent[at] ^= flip;
            let _ = parse_files(&AdapterFiles::Gguf(bent.into()), &base);
        }
    }
}

#[test]
fn gguf_files_are_served_from_a_directory_and_after_an_upload() {
    let root = TempDir::new().expect("a directory");
    let layers = golden("gguf/lora/llama-layers-f32.gguf");
    fs::copy(&layers, root.path().join("beside.gguf")).expect("copied");
    fs::create_dir(root.path().join("inside")).expect("made");
    fs::copy(&layers, root.path().join("inside/llama-layers.gguf")).expect("copied");
    fs::create_dir(root.path().join("several")).expect("made");
    for name in ["one.gguf", "two.gguf"] {
        fs::copy(&layers, root.path().join("several").join(name)).expect("copied");
    }
    let config = AdapterConfig {
        adapters: Some(root.path().to_str().expect("UTF-8").to_owned()),
        ..Default::default()
    };
    let base = Arc::new(MadeBase::new(convert_base("llama").layout));
    let open = || {
        let (registry, report) =
            AdapterRegistry::open(&config, base.clone(), "base").expect("a directory");
        assert!(report.skipped.is_empty(), "{:?}", report.skipped);
        registry
    };
    let names = |registry: &AdapterRegistry| -> Vec<String> {
        registry.list().iter().map(|entry| entry.name.to_string()).collect()
    };
    let registry = open();
    assert_eq!(names(&registry), ["beside", "inside"]);
    let name: AdapterName = "up".parse().expect("a name");
    let files = gguf("llama", "alora", "f32");
    let done = registry.publish_blocking(&name, &files, PublishRule::Create).expect("published");
    let version = root.path().join(".lorad/versions").join(done.version.to_string());
    assert!(version.join(GGUF_FILE).is_file());
    let again = open();
    assert_eq!(names(&again), ["beside", "inside", "up"]);
    assert_eq!(again.get(&name).expect("there").version, done.version);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let wanted = AdapterRef { name: "beside".parse().expect("a name"), version: None };
    runtime.block_on(again.lease(&wanted)).expect("served");
    for gone in ["beside", "inside", "up"] {
        let name = gone.parse().expect("a name");
        runtime
            .block_on(again.retire(name, None, lorad::adapter::SwapPolicy::Pin))
            .expect("retired");
    }
    assert!(names(&open()).is_empty());
}

#[test]
fn inspection_reads_a_file_and_names_its_types() {
    let path = golden("gguf/lora/llama_tied-all-linear-q8_0.gguf");
    let layout = convert_base("llama_tied").layout;
    for model in [None, Some(("llama_tied", &layout))] {
        let found = inspect(&path, model, &AdapterLimits::default()).expect("sound");
        assert_eq!(found.description.dtypes, ["F16", "Q8_0"]);
        assert_eq!(found.description.file_bytes, fs::metadata(&path).expect("there").len());
        assert_eq!(found.misfit, None);
    }
}
