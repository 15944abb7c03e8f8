//! One adapter in both forms: what is written is what llama.cpp's converter writes, and comes back bit by bit.
use crate::{
    adapter_maker::{Maker, base::MadeBase, values},
    gguf::{EXACT, convert_base, gguf, golden, numbers, peft, read, small_layout_with_heads},
    parse_files,
};
use lorad::{
    adapter::{AdapterFiles, AdapterLimits, ConvertBase, to_gguf, to_peft, write},
    gguf::{GgufFile, Storage},
};
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use tempfile::TempDir;

fn bytes(files: &AdapterFiles) -> &[u8] {
    match files {
        AdapterFiles::Gguf(bytes) => bytes,
        AdapterFiles::Peft { .. } => panic!("a GGUF file"),
    }
}

fn parsed(files: &AdapterFiles) -> GgufFile {
    GgufFile::parse("test".to_owned(), bytes(files).to_vec().into()).expect("a sound file")
}

/// The name that the converter made of a directory's.
fn name(files: &AdapterFiles) -> String {
    parsed(files).text("general.name").expect("a text").expect("a name").to_owned()
}

fn export(
    files: &AdapterFiles,
    base: &ConvertBase,
    name: &str,
    storage: Option<Storage>,
) -> Result<AdapterFiles, String> {
    to_gguf(files, base, name, storage, &AdapterLimits::default()).map_err(|e| e.to_string())
}

fn import(files: &AdapterFiles, base: &ConvertBase) -> AdapterFiles {
    to_peft(files, Some(base), &AdapterLimits::default()).expect("served")
}

#[test]
fn what_is_written_is_the_converters_file_to_the_byte() {
    let kinds = [
        ("f32", Storage::F32),
        ("f16", Storage::F16),
        ("bf16", Storage::BF16),
        ("q8_0", Storage::Q8_0),
    ];
    let exact = EXACT.iter().filter(|(_, adapter)| *adapter != "norms");
    let exact = exact.map(|(base, adapter)| (*base, *adapter, "f32", Storage::F32));
    let others = kinds.map(|(kind, storage)| ("llama_tied", "all-linear", kind, storage));
    let half = [("qwen2", "fp16", "f16", Storage::F16)];
    for (base, adapter, kind, storage) in exact.chain(others).chain(half) {
        let wanted = gguf(base, adapter, kind);
        let (base, source) = (convert_base(base), peft(base, adapter));
        let got = export(&source, &base, &name(&wanted), Some(storage)).expect("written");
        assert!(bytes(&got) == bytes(&wanted), "{adapter} {kind}");
    }
}

#[test]
fn a_gguf_adapter_comes_back_from_pefts_form_to_the_byte() {
    let exact = EXACT.iter().filter(|(_, adapter)| *adapter != "norms");
    let exact = exact.map(|(base, adapter)| (*base, *adapter, "f32", None));
    let others = [
        ("llama_tied", "all-linear", "f16", None),
        ("llama_tied", "all-linear", "bf16", None),
        ("qwen2", "fp16", "f16", None),
        // Numbers out of blocks go back into the same blocks.
        ("llama_tied", "all-linear", "q8_0", Some(Storage::Q8_0)),
    ];
    for (base, adapter, kind, storage) in exact.chain(others) {
        let (file, base) = (gguf(base, adapter, kind), convert_base(base));
        let again = export(&import(&file, &base), &base, &name(&file), storage).expect("written");
        assert!(bytes(&again) == bytes(&file), "{adapter} {kind}");
    }
}

#[test]
fn rows_in_another_order_ask_for_the_base() {
    let limits = AdapterLimits::default();
    let error = to_peft(&gguf("mistral", "all-linear", "f32"), None, &limits).expect_err("refused");
    assert!(error.to_string().contains("--model"), "{error}");
    let files =
        to_peft(&gguf("qwen3", "all-linear", "f32"), None, &limits).expect("the same order");
    let base = MadeBase::new(convert_base("qwen3").layout);
    let [got, wanted] = [files, peft("qwen3", "all-linear")]
        .map(|files| numbers(&parse_files(&files, &base).expect("served").weights));
    assert!(got == wanted);
}

#[test]
fn what_a_gguf_file_cannot_say_is_refused_by_name() {
    for (base, adapter, reason) in [
        ("llama", "dora", "DoRA"),
        ("llama", "lora-bias", "a bias on LoRA's second factor"),
        ("llama", "bias-all", "a trained bias"),
        ("llama", "norms", "modules_to_save"),
        ("llama", "tokens", "trained token embeddings"),
        ("llama", "whole", "modules_to_save"),
        ("llama_tied", "patterns", "`alpha_pattern`"),
        ("llama_tied", "head", "one table"),
        ("llama_tied", "embedding", "one table"),
        ("phi3", "separate", "no such layer in a `phi3` model"),
    ] {
        let error =
            export(&peft(base, adapter), &convert_base(base), "x", None).expect_err(adapter);
        assert!(error.contains(reason), "{base} {adapter}: {error}");
    }
}

#[test]
fn rslora_becomes_an_alpha() {
    let base = convert_base("llama_tied");
    let source = peft("llama_tied", "rslora");
    let file = export(&source, &base, "x", None).expect("one rank");
    let made = MadeBase::new(convert_base("llama_tied").layout);
    let [got, wanted] =
        [&file, &source].map(|files| numbers(&parse_files(files, &made).expect("served").weights));
    assert!(got == wanted);
}

#[test]
fn types_that_cannot_hold_a_number_are_refused() {
    let mut maker = Maker::new(1);
    maker.add(0, "mlp.down_proj", [2, 12, 8], 3);
    let key = crate::adapter_maker::key(0, "mlp.down_proj", 'A');
    maker.set(&key, &[2, 12], &[1e6; 24]);
    let base = ConvertBase { class: "LlamaForCausalLM", layout: small_layout_with_heads() };
    assert!(export(&maker.files(), &base, "x", Some(Storage::BF16)).is_ok());
    for storage in [Storage::F16, Storage::Q8_0] {
        let error = export(&maker.files(), &base, "x", Some(storage)).expect_err("too large");
        assert!(error.contains("65504") && error.contains("--outtype"), "{error}");
    }
}

#[test]
fn nothing_is_written_over_unless_it_is_asked_for() {
    let root = TempDir::new().expect("a directory");
    let (source, base) = (gguf("llama", "layers", "f32"), convert_base("llama"));
    let (peft, file) = (root.path().join("adapter"), root.path().join("adapter.gguf"));
    for (files, place) in [(&import(&source, &base), &peft), (&source, &file)] {
        write(files, place, false).expect("free");
        let written = fs::read_dir(root.path()).expect("listed").count();
        let error = write(files, place, false).expect_err("taken").to_string();
        assert!(error.contains("--force"), "{error}");
        write(files, place, true).expect("replaced");
        assert_eq!(read(place).version(), files.version());
        assert_eq!(fs::read_dir(root.path()).expect("listed").count(), written);
    }
    let other = root.path().join("photographs");
    fs::create_dir(&other).expect("made");
    fs::write(other.join("cat.jpg"), "miaow").expect("written");
    let error = write(&source, &other, true).expect_err("something else").to_string();
    assert!(error.contains("something else"), "{error}");
    assert!(golden("gguf/lora").is_dir());
}

fn lorad(source: &Path, destination: &Path, more: &[&str]) -> Output {
    let mut lorad = Command::new(env!("CARGO_BIN_EXE_lorad"));
    let lorad = lorad.arg("convert").args([source, destination]).args(more);
    lorad.env_remove("LORAD_MODEL").output().expect("it runs")
}

#[test]
fn the_command_takes_an_adapter_there_and_back() {
    let root = TempDir::new().expect("a directory");
    let source = golden("llama_tied/adapters/all-linear");
    let (file, back) = (root.path().join("adapter.gguf"), root.path().join("back"));
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let base = golden("llama_tied");
    let model = ["--model", base.to_str().expect("a plain path")];
    let blind = lorad(&source, &file, &[]);
    assert!(!blind.status.success() && said(&blind).contains("--model"), "{}", said(&blind));
    for (from, to) in [(&source, &file), (&file, &back)] {
        let done = lorad(from, to, &model);
        assert!(done.status.success(), "{}", said(&done));
        let again = lorad(from, to, &model);
        assert!(!again.status.success() && said(&again).contains("--force"), "{}", said(&again));
    }
    assert!(file.is_file(), "the source stays, whatever the other form is called");
    let beside = root.path().join("adapter");
    assert!(lorad(&file, &beside, &model).status.success() && file.is_file());
    let inside = beside.join("export.gguf");
    fs::copy(&file, &inside).expect("copied");
    let over = lorad(&inside, &beside, &[&model[..], &["--force"]].concat());
    assert!(!over.status.success() && said(&over).contains("export.gguf"), "{}", said(&over));
    assert!(inside.is_file());
    let weights = |directory: &Path| fs::read(directory.join("adapter_model.safetensors")).unwrap();
    assert!(weights(&source) == weights(&back));
    let same = lorad(&file, &root.path().join("other.gguf"), &model);
    assert!(said(&same).contains("a GGUF file already"), "{}", said(&same));
    let whole = [&model[..], &["--outtype", "q8_0", "--force"]].concat();
    assert!(lorad(&source, &file, &whole).status.success());
    assert!(bytes(&read(&file)) == bytes(&export_q8_0(&source)));
}

/// What the command should have written.
fn export_q8_0(source: &Path) -> AdapterFiles {
    let base = convert_base("llama_tied");
    export(&read(source), &base, "all-linear", Some(Storage::Q8_0)).expect("written")
}

/// Numbers of a type, as bytes.
fn encoded(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| match dtype {
            Dtype::F16 => half::f16::from_f32(*value).to_le_bytes().to_vec(),
            Dtype::BF16 => half::bf16::from_f32(*value).to_le_bytes().to_vec(),
            _ => (value / 3.0).to_le_bytes().to_vec(),
        })
        .collect()
}

/// Some layers of the small base, each at its rank.
fn random_adapter(dtype: Dtype, ranks: [usize; 4], alpha: f64, seed: u32) -> Maker {
    let modules = [
        ("self_attn.q_proj", 8, 8),
        ("self_attn.k_proj", 8, 4),
        ("self_attn.o_proj", 8, 8),
        ("mlp.down_proj", 12, 8),
    ];
    let mut maker = Maker::new(seed);
    maker.tensors.clear();
    let (mut targets, mut pattern) = (Vec::new(), serde_json::Map::new());
    for (at, ((module, input, output), rank)) in modules.into_iter().zip(ranks).enumerate() {
        if rank == 0 {
            continue;
        }
        let short = module.rsplit('.').next().expect("a name");
        targets.push(short);
        pattern.insert(short.to_owned(), rank.into());
        for layer in 0..2 {
            for (factor, shape) in [('A', [rank, input]), ('B', [output, rank])] {
                let numbers = values(shape[0] * shape[1], seed + 10 * at as u32 + layer as u32);
                let key = crate::adapter_maker::key(layer, module, factor);
                let entry = (dtype, shape.to_vec(), encoded(dtype, &numbers));
                maker.tensors.insert(key, entry);
            }
        }
    }
    maker
        .with("r", json!(ranks.into_iter().max()))
        .with("lora_alpha", json!(alpha))
        .with("rank_pattern", Value::Object(pattern))
        .with("target_modules", json!(targets))
}

proptest! {
    #[test]
    fn adapters_survive_both_ways_bit_by_bit(
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::BF16]),
        ranks in prop::array::uniform4(0..6_usize),
        alpha in prop_oneof![(1..64_u32).prop_map(f64::from), 0.01..100.0_f64],
        seed in 0..1000_u32,
        rslora: bool,
    ) {
        prop_assume!(ranks.iter().any(|rank| *rank > 0));
        let one_rank = ranks.iter().filter(|rank| **rank > 0).max() == ranks.iter().filter(|rank| **rank > 0).min();
        let maker = random_adapter(dtype, ranks, alpha, seed);
        let maker = maker.with("use_rslora", json!(rslora && one_rank && ranks.iter().all(|r| r % 3 != 0 && *r != 5)));
        let source = maker.files();
        let layout = small_layout_with_heads();
        let made = MadeBase::new(layout.clone());
        let base = ConvertBase { class: "LlamaForCausalLM", layout };
        let file = export(&source, &base, "x", None);
        prop_assert!(file.is_ok(), "{}", file.unwrap_err());
        let back = import(&file.unwrap(), &base);
        let (AdapterFiles::Peft { weights: before, .. }, AdapterFiles::Peft { weights: after, .. }) =
            (&source, &back) else { unreachable!("PEFT's form") };
        let (before, after) = (SafeTensors::deserialize(before).unwrap(), SafeTensors::deserialize(after).unwrap());
        prop_assert_eq!(before.len(), after.len());
        for (name, tensor) in before.iter() {
            let again = after.tensor(name).unwrap();
            prop_assert_eq!((tensor.dtype(), tensor.shape(), tensor.data()), (again.dtype(), again.shape(), again.data()));
        }
        if alpha.fract() == 0.0 {
            let [before, after] = [&source, &back].map(|files| numbers(&parse_files(files, &made).unwrap().weights));
            prop_assert!(before == after);
        }
    }
}
