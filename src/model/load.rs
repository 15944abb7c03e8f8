//! From a source to a model that can run.
use super::{
    BaseModel, BaseWeights, EmbeddingFacts, ModelError, ModelSource, Pooling, TextAssets,
    arch::read_spec,
    base_weights::BaseSite,
    checkpoint::{Checkpoint, Files, GgufCheckpoint, SafetensorsCheckpoint, Weights, holds},
    decoder::Decoder,
    encoder::Encoder,
    hub,
    layers::dense_tensor,
    sentence::Embedder,
    spec::Spec,
};
use crate::{
    kernel::{BaseWeight, Kernels, KvChoice, KvPrecision, Precision},
    lora::{ClassHead, LoraLayout, Site},
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{collections::BTreeMap, sync::Arc};

const DOWNLOAD: &str =
    "downloading {msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
const LOAD: &str = "loading {msg} {wide_bar} {pos}/{len} tensors";

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// How base weights are stored; [`Precision::Auto`] is the device's choice.
    pub precision: Precision,
    /// How keys and values are kept.
    pub kv_precision: KvChoice,
    /// Longest sequence; `None` is what the model was made for.
    pub max_positions: Option<usize>,
    /// What the KV cache may take; positions that it can never hold are not prepared for.
    pub kv_cache_bytes: Option<usize>,
    /// How hidden states become embeddings; `None` is as the model's makers say.
    pub pooling: Option<Pooling>,
    /// Whether a bar shows how far it is.
    pub progress: Progress,
}

/// A progress bar on the terminal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// Shown where standard error is a terminal.
    Shown,
    /// Never.
    Hidden,
}

/// A model on the device with all that belongs to it.
pub struct LoadedModel {
    /// What the engine runs.
    pub lm: Box<dyn BaseModel>,
    /// Its weights, for whoever wants to see that they stay the same.
    pub weights: BaseWeights,
    /// What it is, for the log and the API.
    pub facts: ModelFacts,
    /// Its text side.
    pub text: TextAssets,
    /// How it embeds texts; `None` where it does not.
    pub embedding: Option<EmbeddingFacts>,
}

/// What a loaded model is.
#[derive(Clone, Debug)]
pub struct ModelFacts {
    /// What clients call it by default.
    pub name: String,
    /// `config.json`'s word.
    pub architecture: &'static str,
    /// Numbers in all tensors, tied ones once.
    pub parameters: usize,
    /// Bytes of the packed weights.
    pub weight_bytes: usize,
    /// How they are stored.
    pub precision: Precision,
    /// How keys and values are kept.
    pub kv_precision: KvPrecision,
    /// Decoder blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Longest sequence.
    pub max_positions: usize,
    /// Tokens.
    pub vocab: usize,
}

/// Loads a base model onto the device of `kernels`.
///
/// # Errors
/// When a file is missing, damaged or asks for something this build does not serve, or the device is out of memory.
pub fn load(
    source: &ModelSource,
    kernels: &dyn Kernels,
    options: &LoadOptions,
) -> Result<LoadedModel, ModelError> {
    let checkpoint = open(source, options.progress)?;
    load_checkpoint(checkpoint.as_ref(), source.name(), kernels, options)
}

/// What adapters have to know of a model.
#[derive(Clone, Debug)]
pub struct Outline {
    /// `config.json`'s word for what it is.
    pub architecture: &'static str,
    /// What adapters may change.
    pub layout: LoraLayout,
}

/// What adapters of this model have to know of it, from its config alone.
///
/// # Errors
/// As [`load`], as far as the config goes.
pub fn outline(source: &ModelSource) -> Result<Outline, ModelError> {
    let checkpoint = open(source, Progress::Shown)?;
    let (architecture, spec) = read_spec(checkpoint.config())?;
    let names = spec.names();
    let dense = dense_tensor(names);
    let has_dense = dense.is_none_or(|name| holds(checkpoint.as_ref(), names, &name));
    Ok(Outline { architecture, layout: spec.lora_layout(has_dense) })
}

/// The sites that adapters of this model may change, from its config alone.
///
/// # Errors
/// As [`load`], as far as the config goes.
pub fn layout(source: &ModelSource) -> Result<LoraLayout, ModelError> {
    Ok(outline(source)?.layout)
}

fn open(source: &ModelSource, progress: Progress) -> Result<Box<dyn Checkpoint>, ModelError> {
    let files = match source {
        ModelSource::Gguf(path) => return Ok(Box::new(GgufCheckpoint::open(path)?)),
        ModelSource::Directory(path) => Files::Directory(path.clone()),
        ModelSource::Hub(id) => {
            let bar = progress_bar(progress, DOWNLOAD, &source.name());
            Files::Directory(hub::fetch(id, bar)?)
        }
        ModelSource::Embedded(files) => Files::Embedded(files),
    };
    Ok(Box::new(SafetensorsCheckpoint::open(files)?))
}

fn load_checkpoint(
    checkpoint: &dyn Checkpoint,
    name: String,
    kernels: &dyn Kernels,
    options: &LoadOptions,
) -> Result<LoadedModel, ModelError> {
    let (architecture, spec) = read_spec(checkpoint.config())?;
    let precision = match options.precision {
        Precision::Auto => kernels.auto_precision(),
        precision => precision,
    };
    let kv_precision = options.kv_precision.beside(precision);
    let max_positions = max_positions(&spec, options, kv_precision)?;
    // Before the weights: a missing tokenizer is known at once.
    let text = checkpoint.text()?;
    let embedding = embedding(checkpoint, &text, &spec, options.pooling)?;
    let bar = progress_bar(options.progress, LOAD, &name);
    let mut weights = Weights::new(checkpoint, kernels, (precision, spec.names()), &bar);
    let (lm, base) = load_model(&mut weights, &spec, (max_positions, kv_precision))?;
    let (packed, parameters) = weights.finish()?;
    bar.finish_and_clear();
    let weights = BaseWeights { packed, ..base };
    let dims = spec.dims();
    let facts = ModelFacts {
        name,
        architecture,
        parameters,
        weight_bytes: weights.bytes(),
        precision,
        kv_precision,
        layers: dims.layers,
        hidden: dims.hidden,
        max_positions,
        vocab: dims.vocab,
    };
    Ok(LoadedModel { lm, weights, facts, text, embedding })
}

/// How the model embeds texts, from the files beside its weights.
fn embedding(
    checkpoint: &dyn Checkpoint,
    text: &TextAssets,
    spec: &Spec,
    chosen: Option<Pooling>,
) -> Result<Option<EmbeddingFacts>, ModelError> {
    const ONE_FILE: Files = Files::Embedded(&[]);
    let embedder = Embedder {
        files: checkpoint.files().unwrap_or(&ONE_FILE),
        config: checkpoint.config(),
        tokenizer: &text.tokenizer,
        hidden: spec.dims().hidden,
        is_causal: matches!(spec, Spec::Decoder(_)),
        chosen,
    };
    embedder.facts()
}

/// The model, and its weights as others see them; `packed` is not known yet.
fn load_model(
    weights: &mut Weights<'_>,
    spec: &Spec,
    limits: (usize, KvPrecision),
) -> Result<(Box<dyn BaseModel>, BaseWeights), ModelError> {
    match spec {
        Spec::Decoder(spec) => {
            let model = Decoder::load(weights, spec, limits)?;
            let parts = (model.base_sites(), model.embedding_table(), model.class_head());
            let base = base_weights(model.lora_layout(), parts);
            Ok((Box::new(model), base))
        }
        Spec::Encoder(spec) => {
            let model = Encoder::load(weights, spec, limits)?;
            let parts = (model.base_sites(), model.embedding_table(), model.class_head());
            let base = base_weights(model.lora_layout(), parts);
            Ok((Box::new(model), base))
        }
    }
}

fn base_weights(
    layout: &LoraLayout,
    (sites, embedding, class_head): (
        BTreeMap<Site, BaseSite>,
        &Arc<BaseWeight>,
        Option<&ClassHead>,
    ),
) -> BaseWeights {
    BaseWeights {
        packed: Vec::new(),
        layout: layout.clone(),
        sites,
        embedding: Arc::clone(embedding),
        class_head: class_head.cloned(),
    }
}

fn max_positions(spec: &Spec, options: &LoadOptions, kv: KvPrecision) -> Result<usize, ModelError> {
    let made_for = spec.dims().max_positions;
    let wanted = options.max_positions.unwrap_or(made_for);
    if !(1..=made_for).contains(&wanted) {
        let detail = format!("is {made_for}; --max-model-len {wanted} must be from 1 to that");
        return Err(ModelError::config("max_position_embeddings", detail));
    }
    let (layers, attention) = match spec {
        Spec::Decoder(spec) => (spec.dims.layers, &spec.attention),
        // Its cache holds one step, whatever it is given.
        Spec::Encoder(_) => return Ok(wanted),
    };
    let token = 2 * layers * attention.kv_heads * kv.head_bytes(attention.head_dim);
    let held = options.kv_cache_bytes.map_or(wanted, |bytes| bytes / token);
    Ok(wanted.min(held.max(1)))
}

fn progress_bar(progress: Progress, template: &str, name: &str) -> ProgressBar {
    let bar = match progress {
        Progress::Hidden => ProgressBar::hidden(),
        Progress::Shown => ProgressBar::new(0),
    };
    let style = ProgressStyle::with_template(template).expect("both templates are well formed");
    bar.with_style(style).with_message(name.to_owned())
}
