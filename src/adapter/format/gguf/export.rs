//! A PEFT adapter as the GGUF file that llama.cpp's converter writes of it.
use super::{
    architecture::Architecture,
    header::{
        ALPHA, ARCHITECTURE, BASE_COUNT, BASE_NAME, BASE_ORGANIZATION, BASE_URL, HUB, INVOCATION,
        KIND, NAME, QUANTIZATION, TYPE,
    },
    scale::{self, Scaled},
};
use crate::{
    adapter::{
        AdapterError,
        format::tensors::{quoted, shown, to_f32},
    },
    gguf::{GgufWriter, Storage, halves_to_pairs},
    lora::{EmbeddingShape, LoraLayout},
};
use candle_core::{Device, Tensor};
use safetensors::tensor::TensorView;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The version of the blocks' layouts.
const QUANTIZATION_VERSION: u32 = 2;

/// What to write.
#[derive(Clone, Copy, Debug)]
pub(in crate::adapter) struct Target<'a> {
    /// The base's word in `architectures` of its `config.json`.
    pub(in crate::adapter) class: &'a str,
    /// The base's layers.
    pub(in crate::adapter) layout: &'a LoraLayout,
    /// `general.name`
    pub(in crate::adapter) name: &'a str,
    /// How to store factors; `None`: each as it is.
    pub(in crate::adapter) storage: Option<Storage>,
}

/// Both factors of a module.
#[derive(Default)]
struct Pair<'a> {
    a: Option<(&'a str, &'a TensorView<'a>)>,
    b: Option<(&'a str, &'a TensorView<'a>)>,
}

/// # Errors
/// When the adapter does not continue texts: llama.cpp has no place for a head of its own.
pub(in crate::adapter) fn check_task(config: &Map<String, Value>) -> Result<(), AdapterError> {
    let task = config.get("task_type").filter(|task| !task.is_null() && *task != "CAUSAL_LM");
    task.map_or(Ok(()), |task| {
        Err(AdapterError::unsupported(format!(
            "adapter_config.json has `task_type` = {}: a GGUF file holds adapters of CAUSAL_LM only, without heads and \
             labels; keep the PEFT adapter",
            shown(task)
        )))
    })
}

/// Writes an adapter that the PEFT reader has found sound. `scaling` is PEFT's factor on `B·A` of a module of some rank.
///
/// # Errors
/// When the adapter has something that llama.cpp would leave out or compute otherwise; the message names it.
pub(in crate::adapter) fn export(
    config: &Map<String, Value>,
    tensors: &BTreeMap<String, TensorView<'_>>,
    target: &Target<'_>,
    scaling: impl Fn(&str, usize) -> Result<f32, AdapterError>,
) -> Result<Vec<u8>, AdapterError> {
    let architecture = Architecture::of_class(target.class)?;
    let pairs = pair_up(tensors)?;
    refuse_tied(config, &pairs, target.layout)?;
    let (mut scaled, mut factors) = (Vec::new(), Vec::new());
    for (module, pair) in &pairs {
        let (Some(a), Some(b)) = (pair.a, pair.b) else { continue };
        let rank = a.1.shape().first().copied().unwrap_or_default();
        scaled.push(Scaled { module, rank, scaling: scaling(module, rank)? });
        let stored = architecture.stored(module).ok_or_else(|| no_layer(a.0, architecture))?;
        factors.push((a.0, format!("{stored}.lora_a"), first(module, a)?));
        let b_tensor = second(architecture, module, b, target.layout)?;
        factors.push((b.0, format!("{stored}.lora_b"), b_tensor));
    }
    let mut file = GgufWriter::new();
    describe(&mut file, config, architecture, target.name, scale::alpha(&scaled)?)?;
    for (name, stored, tensor) in factors {
        let storage = storage(target.storage, &tensor);
        check_range(name, &tensor, storage)?;
        file.tensor(&stored, &tensor, storage).map_err(|error| failed(name, &error))?;
    }
    Ok(file.finish())
}

/// The header, in the converter's order.
fn describe(
    file: &mut GgufWriter,
    config: &Map<String, Value>,
    architecture: &Architecture,
    name: &str,
    alpha: f32,
) -> Result<(), AdapterError> {
    file.text(ARCHITECTURE, architecture.name);
    file.text(TYPE, "adapter");
    file.text(KIND, "lora");
    file.text(NAME, name);
    if let Some(id) = config.get("base_model_name_or_path").and_then(Value::as_str) {
        describe_base(file, id);
    }
    file.f32(ALPHA, alpha);
    let tokens = config.get("alora_invocation_tokens").filter(|value| !value.is_null());
    if let Some(tokens) = tokens {
        let tokens: Vec<u32> = serde_json::from_value(tokens.clone()).map_err(|error| {
            AdapterError::invalid(format!(
                "adapter_config.json has `alora_invocation_tokens` that are no tokens: {error}"
            ))
        })?;
        if !tokens.is_empty() {
            file.u32s(INVOCATION, &tokens);
        }
    }
    file.u32(QUANTIZATION, QUANTIZATION_VERSION);
    Ok(())
}

/// An id of the hub; a path of the machine that trained says nothing to others.
fn describe_base(file: &mut GgufWriter, id: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let Some((organization, name)) = id.split_once('/') else { return };
    let named = |part: &str| part.starts_with(|c: char| c.is_ascii_alphanumeric());
    if [organization, name].iter().all(|part| named(part) && part.chars().all(plain)) {
        file.u32(BASE_COUNT, 1);
        file.text(BASE_NAME, name);
        file.text(BASE_ORGANIZATION, organization);
        file.text(BASE_URL, &format!("{HUB}{id}"));
    }
}

fn pair_up<'a>(
    tensors: &'a BTreeMap<String, TensorView<'a>>,
) -> Result<BTreeMap<String, Pair<'a>>, AdapterError> {
    let mut pairs: BTreeMap<String, Pair<'a>> = BTreeMap::new();
    for (name, view) in tensors {
        // The adapter's own name, which some savers leave in.
        let plain = name.replace(".default", "");
        let plain = plain.strip_prefix("base_model.model.").unwrap_or(&plain);
        let ending = |endings: &[&str]| endings.iter().find_map(|end| plain.strip_suffix(end));
        let named = (name.as_str(), view);
        if let Some(module) = ending(&[".lora_A.weight", ".lora_embedding_A"]) {
            pairs.entry(module.to_owned()).or_default().a = Some(named);
        } else if let Some(module) = ending(&[".lora_B.weight", ".lora_embedding_B"]) {
            pairs.entry(module.to_owned()).or_default().b = Some(named);
        } else if !plain.ends_with(".base_layer.weight") {
            return Err(no_factor(name));
        }
    }
    Ok(pairs)
}

/// What a tensor that is no factor belongs to, by a part of its name.
const FEATURES: &[(&str, &str)] = &[
    ("lora_magnitude_vector", "DoRA"),
    (".token_adapter.", "trained token embeddings"),
    (".lora_B.bias", "a bias on LoRA's second factor"),
    (".bias", "a trained bias"),
    (".weight", "a whole trained layer (modules_to_save)"),
];

fn no_layer(name: &str, architecture: &Architecture) -> AdapterError {
    AdapterError::unsupported(format!(
        "tensor {}: llama.cpp has no such layer in a `{}` model",
        quoted(name),
        architecture.name
    ))
}

fn no_factor(name: &str) -> AdapterError {
    let feature = FEATURES.iter().find(|(part, _)| name.contains(part));
    let feature = feature.map_or("something else than LoRA", |(_, feature)| feature);
    AdapterError::unsupported(format!(
        "tensor {} belongs to {feature}, which a GGUF adapter cannot carry: llama.cpp would answer otherwise",
        quoted(name)
    ))
}

/// One table for both ends of the model: llama.cpp has one name for it, and no adapter on one side of it.
fn refuse_tied(
    config: &Map<String, Value>,
    pairs: &BTreeMap<String, Pair<'_>>,
    layout: &LoraLayout,
) -> Result<(), AdapterError> {
    let ends = ["lm_head", EmbeddingShape::PATH];
    let Some(end) = ends.into_iter().find(|end| pairs.contains_key(*end)) else { return Ok(()) };
    let tied = layout.embedding().is_some_and(|embedding| embedding.tied);
    if tied || config.get("ensure_weight_tying") == Some(&Value::Bool(true)) {
        return Err(AdapterError::unsupported(format!(
            "the adapter has a pair on `{end}`, and the base's embedding and head are one table: llama.cpp cannot \
             change one side of it, or both by one pair"
        )));
    }
    Ok(())
}

/// `[rank, in]`, for the embedding `[vocab, rank]`.
fn first(module: &str, named: (&str, &TensorView<'_>)) -> Result<Tensor, AdapterError> {
    let a = tensor(named)?;
    if module != EmbeddingShape::PATH {
        return Ok(a);
    }
    a.t().and_then(|a| a.contiguous()).map_err(|error| failed(named.0, &error))
}

/// `[out, rank]`, rows of queries and keys in llama.cpp's order.
fn second(
    architecture: &Architecture,
    module: &str,
    named: (&str, &TensorView<'_>),
    layout: &LoraLayout,
) -> Result<Tensor, AdapterError> {
    let b = tensor(named)?;
    let Some(count) = architecture.paired(module) else { return Ok(b) };
    let heads = layout.heads().map(count).ok_or_else(|| {
        AdapterError::invalid("the base does not say how many attention heads it has")
    })?;
    halves_to_pairs(&b, heads).map_err(|error| failed(named.0, &error))
}

fn tensor((name, view): (&str, &TensorView<'_>)) -> Result<Tensor, AdapterError> {
    // Refuses other types and what is not finite.
    drop(to_f32(name, view)?);
    let dtype = view.dtype().try_into().map_err(|error| failed(name, &error))?;
    Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)
        .map_err(|error| failed(name, &error))
}

/// As the converter decides: what blocks cannot hold is f16.
fn storage(wanted: Option<Storage>, tensor: &Tensor) -> Storage {
    let cols = tensor.dims().last().copied().unwrap_or_default();
    match wanted {
        None => Storage::Plain(tensor.dtype()),
        Some(storage) if storage.fits(cols) => storage,
        Some(_) => Storage::F16,
    }
}

/// f16 ends at 65504, and so does a block's scale.
fn check_range(name: &str, tensor: &Tensor, storage: Storage) -> Result<(), AdapterError> {
    let greatest = tensor.abs().and_then(|abs| abs.to_dtype(candle_core::DType::F32)?.max_all());
    let greatest = greatest.and_then(|greatest| greatest.to_scalar::<f32>());
    let greatest = greatest.map_err(|error| failed(name, &error))?;
    let limit = match storage {
        Storage::F16 => half::f16::MAX.to_f32(),
        Storage::Q8_0 => 127.0 * half::f16::MAX.to_f32(),
        _ => half::bf16::MAX.to_f32(),
    };
    if greatest <= limit {
        return Ok(());
    }
    Err(AdapterError::invalid(format!(
        "tensor {} has {greatest}, over the {limit} that {storage} holds: choose --outtype f32",
        quoted(name)
    )))
}

fn failed(name: &str, error: &dyn std::fmt::Display) -> AdapterError {
    AdapterError::invalid(format!("tensor {} cannot be written: {error}", quoted(name)))
}
