//! A GGUF adapter as the two files that PEFT would have saved.
use super::{
    config::config,
    contents::{self, Contents},
    header::Header,
};
use crate::{
    adapter::AdapterError,
    gguf::GgufFile,
    lora::{EmbeddingShape, LoraLayout},
};
use bytes::Bytes;
use candle_core::Tensor;
use std::collections::{BTreeMap, BTreeSet};

/// The same adapter in PEFT's form.
#[derive(Debug)]
pub(in crate::adapter) struct Translated {
    /// `adapter_config.json`
    pub(in crate::adapter) config: Bytes,
    /// `adapter_model.safetensors`
    pub(in crate::adapter) weights: Bytes,
    /// Element types in the GGUF file.
    pub(in crate::adapter) types: Vec<String>,
    /// Whether rows of queries or keys are in llama.cpp's order still, since nobody said how many heads there are:
    /// norms and shapes are right, answers would not be.
    pub(in crate::adapter) rows_in_pairs: bool,
}

/// Translates names, order of rows and scaling; types stay, but blocks become f32. The layout says how many heads and
/// blocks the base has.
///
/// # Errors
/// When the file is damaged, no LoRA adapter, or for a base of an architecture that is not served.
pub(in crate::adapter) fn translate(
    bytes: &Bytes,
    layout: Option<&LoraLayout>,
) -> Result<Translated, AdapterError> {
    let file = GgufFile::parse("the GGUF file".to_owned(), bytes.clone())?;
    let header = Header::read(&file)?;
    let heads = layout.and_then(LoraLayout::heads);
    let contents = contents::read(&file, header.architecture, heads)?;
    let config = config(&header, &contents, layout.map(LoraLayout::layers));
    let types: BTreeSet<_> = file.tensors().values().map(|e| e.storage.to_string()).collect();
    let config = serde_json::to_vec_pretty(&config).map_err(|error| failed(&error))?;
    Ok(Translated {
        config: config.into(),
        weights: weights(&contents)?.into(),
        types: types.into_iter().collect(),
        rows_in_pairs: contents.rows_in_pairs,
    })
}

fn weights(contents: &Contents) -> Result<Vec<u8>, AdapterError> {
    let mut tensors: BTreeMap<String, &Tensor> = BTreeMap::new();
    for (module, pair) in &contents.pairs {
        let [a, b] = match module.as_str() {
            EmbeddingShape::PATH => ["lora_embedding_A", "lora_embedding_B"],
            _ => ["lora_A.weight", "lora_B.weight"],
        };
        tensors.insert(format!("base_model.model.{module}.{a}"), &pair.a);
        tensors.insert(format!("base_model.model.{module}.{b}"), &pair.b);
    }
    for (module, norm) in &contents.norms {
        tensors.insert(format!("base_model.model.{module}.weight"), norm);
    }
    let format = Some([("format".to_owned(), "pt".to_owned())].into());
    safetensors::serialize(tensors, format).map_err(|error| failed(&error))
}

fn failed(error: &dyn std::fmt::Display) -> AdapterError {
    AdapterError::invalid(format!("the GGUF file cannot be put into PEFT's form: {error}"))
}
