//! Where a base model comes from: tensors by name, and the text side beside them.
//!
//! Knows files and dtypes. Knows no architecture: what a checkpoint must hold is asked, name by name, through [`Weights`].
mod bytes;
mod files;
mod gguf;
mod safetensors;
mod weights;

pub(crate) use files::Files;
pub(crate) use gguf::GgufCheckpoint;
pub(crate) use safetensors::SafetensorsCheckpoint;
pub(crate) use weights::{Weights, holds};

use super::{ModelError, TextAssets};
use candle_core::Tensor;
use serde_json::Value;

/// One base model's files, whatever their format, in `transformers`' words.
pub(crate) trait Checkpoint {
    /// The file or directory, for messages.
    fn origin(&self) -> &str;

    /// `config.json`, or what it would say.
    fn config(&self) -> &Value;

    /// Every tensor it holds.
    fn names(&self) -> Vec<String>;

    /// A host tensor of f32, f16 or bf16; `None` where there is none of that name.
    ///
    /// # Errors
    /// When it has another dtype, or cannot be read.
    fn tensor(&self, name: &str) -> Result<Option<Tensor>, ModelError>;

    /// The directory that it is part of; `None` where it is one file.
    fn files(&self) -> Option<&Files>;

    /// Tokenizer, chat template and what goes with them.
    ///
    /// # Errors
    /// When the tokenizer is missing or a file cannot be read.
    fn text(&self) -> Result<TextAssets, ModelError>;
}
