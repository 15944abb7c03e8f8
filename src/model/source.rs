//! What `--model` can name.
use super::ModelError;
use crate::gguf;
use crate::hub::HubId;
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// Where a base model is.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// A directory as the hub keeps it.
    Directory(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
    /// A repository on the hub.
    Hub(HubId),
    /// A directory's files, built into the program: name and content.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl ModelSource {
    /// From what the user wrote: what exists on the disk, or else a hub id.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(model: &str) -> Result<Self, ModelError> {
        let path = Path::new(model);
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        if is_gguf(path) {
            return Ok(Self::Gguf(path.to_owned()));
        }
        match model.parse() {
            Ok(id) if !path.exists() => Ok(Self::Hub(id)),
            _ => Err(ModelError::Source {
                model: model.to_owned(),
                detail: "is neither a directory with config.json, *.safetensors and tokenizer.json, nor a GGUF \
                         file, nor a hub id like org/name or org/name@revision"
                    .to_owned(),
            }),
        }
    }

    /// What clients call it unless `--served-model-name` says otherwise.
    pub fn name(&self) -> String {
        match self {
            Self::Embedded(_) => "demo".to_owned(),
            Self::Hub(id) => id.repository(),
            Self::Gguf(path) => {
                let stem = path.file_stem().map(|name| name.to_string_lossy().into_owned());
                stem.unwrap_or_else(|| "base".to_owned())
            }
            Self::Directory(path) => {
                let resolved = path.canonicalize().unwrap_or_else(|_| path.clone());
                let last = resolved.file_name().map(|name| name.to_string_lossy().into_owned());
                last.unwrap_or_else(|| "base".to_owned())
            }
        }
    }
}

/// By its name, or else by how it begins: caches name files by their hash.
fn is_gguf(path: &Path) -> bool {
    let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    let begins = || {
        let mut start = [0; gguf::MAGIC.len()];
        File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
            && start == *gguf::MAGIC
    };
    path.is_file() && (named || begins())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_counts_before_the_hub() {
        assert!(matches!(ModelSource::parse("src/model"), Ok(ModelSource::Directory(_))));
        assert!(matches!(ModelSource::parse("org/name@v1"), Ok(ModelSource::Hub(_))));
    }

    #[test]
    fn what_is_neither_is_an_error_that_names_it() {
        for text in ["", "./no/such/directory", "Cargo.toml", "src/lib.rs"] {
            let message = ModelSource::parse(text).unwrap_err().to_string();
            assert!(message.contains(&format!("`{text}`")), "{message}");
        }
    }

    #[test]
    fn the_name_is_the_directorys_or_the_repositorys() {
        let name = |model| ModelSource::parse(model).unwrap().name();
        assert_eq!(name("src/model/"), "model");
        assert_eq!(name("org/name@v1"), "org/name");
    }
}
