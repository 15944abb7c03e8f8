//! The file behind [`Checkpoint`]: `transformers`' names outside, llama.cpp's inside.
use super::{
    config::{Described, ROPE_DIVISORS, describe},
    text,
};
use crate::{
    gguf::{GgufError, GgufFile, TensorEntry, pairs_to_halves, to_transformers},
    model::{
        ModelError, TextAssets,
        checkpoint::{Checkpoint, Files, bytes::map},
    },
};
use candle_core::Tensor;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// An open file. Tensors are read when asked for.
pub(crate) struct GgufCheckpoint {
    file: GgufFile,
    described: Described,
    /// `transformers`' name → the file's.
    names: BTreeMap<String, String>,
}

impl GgufCheckpoint {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// When the file is damaged, or describes a model that is not served.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let bytes = map(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
        Ok(Self::new(GgufFile::parse(path.display().to_string(), bytes)?)?)
    }

    pub(super) fn new(file: GgufFile) -> Result<Self, GgufError> {
        let described = describe(&file)?;
        // A tensor without a counterpart keeps its name, is never asked for, and is refused as left over.
        let name =
            |name: &String| (to_transformers(name).unwrap_or_else(|| name.clone()), name.clone());
        let names = file.tensors().keys().filter(|name| *name != ROPE_DIVISORS).map(name).collect();
        Ok(Self { file, described, names })
    }

    fn read(&self, stored: &str, entry: &TensorEntry) -> candle_core::Result<Tensor> {
        let tensor = entry.read(&self.file)?;
        match self.paired_heads(stored) {
            Some(heads) => pairs_to_halves(&tensor, heads),
            None => Ok(tensor),
        }
    }

    /// How many heads' rows a tensor has in rotary pairs.
    fn paired_heads(&self, stored: &str) -> Option<usize> {
        let (heads, kv_heads) = self.described.paired_heads?;
        match stored.strip_prefix("blk.")?.split('.').nth(1)? {
            "attn_q" => Some(heads),
            "attn_k" => Some(kv_heads),
            _ => None,
        }
    }
}

impl Checkpoint for GgufCheckpoint {
    fn origin(&self) -> &str {
        self.file.place()
    }

    fn config(&self) -> &Value {
        &self.described.config
    }

    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn tensor(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        let Some(stored) = self.names.get(name) else { return Ok(None) };
        let Some(entry) = self.file.tensors().get(stored) else { return Ok(None) };
        let read = self.read(stored, entry).map_err(|error| ModelError::Tensor {
            origin: self.origin().to_owned(),
            name: stored.clone(),
            detail: format!("cannot be read: {error}"),
        });
        read.map(Some)
    }

    fn files(&self) -> Option<&Files> {
        None
    }

    fn text(&self) -> Result<TextAssets, ModelError> {
        Ok(text::read(&self.file)?)
    }
}
