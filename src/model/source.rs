//! What `--model` can name.
use super::ModelError;
use std::path::{Path, PathBuf};

/// Where a base model is.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// A directory as the hub keeps it.
    Directory(PathBuf),
    /// The same files, built into the program: name and content.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl ModelSource {
    /// From what the user wrote.
    ///
    /// # Errors
    /// When it is nothing this build can read.
    pub fn parse(model: &str) -> Result<Self, ModelError> {
        let path = Path::new(model);
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let detail =
            "is not a directory; name one with config.json, *.safetensors and tokenizer.json";
        Err(ModelError::Source { model: model.to_owned(), detail: detail.to_owned() })
    }

    /// What clients call it unless `--served-model-name` says otherwise.
    pub fn name(&self) -> String {
        match self {
            Self::Embedded(_) => "demo".to_owned(),
            Self::Directory(path) => {
                let resolved = path.canonicalize().unwrap_or_else(|_| path.clone());
                let last = resolved.file_name().map(|name| name.to_string_lossy().into_owned());
                last.unwrap_or_else(|| "base".to_owned())
            }
        }
    }
}
