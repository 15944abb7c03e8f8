//! Where the files of an adapter are, found without reading its weights.
use super::{
    AdapterError,
    format::{
        CONFIG_FILE, MAX_CONFIG_BYTES, MODEL_CONFIG_FILE, WEIGHTS_FILE, gguf_count, gguf_in,
        missing_weights, no_adapter, pickle_among, wants_model_config,
    },
    upload,
};
use serde_json::{Map, Value};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// Files that look like an adapter. Whether they are one is known when they are read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AdapterPaths {
    /// As PEFT's `save_pretrained` writes it; the config is a JSON object.
    Peft {
        /// `adapter_config.json`
        config: PathBuf,
        /// `adapter_model.safetensors`
        weights: PathBuf,
        /// `config.json`, where the labels of the adapter are in it.
        model: Option<PathBuf>,
    },
    /// A GGUF file, or an archive of a form that uploads have.
    Whole(PathBuf),
}

impl AdapterPaths {
    /// Looks at what is at `path`: a directory or a file. Cheap, whatever its size.
    ///
    /// # Errors
    /// When that can be no adapter; the text says why.
    pub fn find(path: &Path) -> Result<Self, AdapterError> {
        if path.is_file() {
            upload::recognise(&mut open(path)?)?;
            return Ok(Self::Whole(path.to_owned()));
        }
        if !path.is_dir() {
            return Err(AdapterError::invalid("it is neither a directory nor a regular file"));
        }
        let config = path.join(CONFIG_FILE);
        if !config.exists() {
            return match gguf_in(path) {
                Some(name) => Self::find(&path.join(name)),
                None => Err(no_adapter(gguf_count(path))),
            };
        }
        let weights = path.join(WEIGHTS_FILE);
        if !weights.is_file() {
            return Err(missing_weights(pickle_among(|name| path.join(name).exists())));
        }
        open(&weights)?;
        let wants_model = check_config(&config)?;
        let model =
            Some(path.join(MODEL_CONFIG_FILE)).filter(|model| wants_model && model.is_file());
        Ok(Self::Peft { config, weights, model })
    }
}

fn open(path: &Path) -> Result<File, AdapterError> {
    File::open(path).map_err(|error| unreadable(path, &error))
}

/// Whether the labels that the adapter scores stand elsewhere, if anywhere.
fn check_config(path: &Path) -> Result<bool, AdapterError> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(AdapterError::invalid(format!("`{CONFIG_FILE}` is not a regular file")));
    }
    if metadata.len() > MAX_CONFIG_BYTES {
        return Err(AdapterError::invalid(format!(
            "`{CONFIG_FILE}` has {} bytes, which no config of an adapter has: is it the right file?",
            metadata.len()
        )));
    }
    let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
    match serde_json::from_slice::<Map<String, Value>>(&bytes) {
        Ok(_) => Ok(wants_model_config(&bytes)),
        Err(error) => {
            Err(AdapterError::invalid(format!("`{CONFIG_FILE}` is not a JSON object: {error}")))
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> AdapterError {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    AdapterError::invalid(format!("`{name}` cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn found(files: &[(&str, &str)]) -> Result<AdapterPaths, AdapterError> {
        let directory = TempDir::new().expect("a directory");
        for (name, content) in files {
            fs::write(directory.path().join(name), content).expect("written");
        }
        AdapterPaths::find(directory.path())
    }

    #[test]
    fn directories_of_both_kinds_are_found() {
        let peft = found(&[(CONFIG_FILE, "{}"), (WEIGHTS_FILE, "weights")]).expect("PEFT's");
        assert!(matches!(peft, AdapterPaths::Peft { model: None, .. }));
        let classifier = (CONFIG_FILE, r#"{"task_type": "SEQ_CLS"}"#);
        let labelled = found(&[classifier, (WEIGHTS_FILE, "weights"), (MODEL_CONFIG_FILE, "{}")]);
        let labelled = labelled.expect("PEFT's");
        assert!(matches!(labelled, AdapterPaths::Peft { model: Some(_), .. }));
        let gguf = found(&[("lora.gguf", "GGUF…"), ("README.md", "")]).expect("llama.cpp's");
        assert!(matches!(gguf, AdapterPaths::Whole(path) if path.ends_with("lora.gguf")));
    }

    #[test]
    fn what_can_be_no_adapter_says_why() {
        for (files, words) in [
            (&[][..], "there is no `adapter_config.json`"),
            (&[(CONFIG_FILE, "{}")], "there is no `adapter_model.safetensors`"),
            (&[(CONFIG_FILE, "{}"), ("adapter_model.bin", "")], "is a pickle"),
            (&[(CONFIG_FILE, "[]"), (WEIGHTS_FILE, "")], "is not a JSON object"),
            (&[(CONFIG_FILE, "{"), (WEIGHTS_FILE, "")], "is not a JSON object"),
            (&[("a.gguf", "GGUF"), ("b.gguf", "GGUF")], "2 GGUF files"),
            (&[("a.gguf", "no")], "of no known form"),
        ] {
            let error = found(files).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
        let missing = AdapterPaths::find(Path::new("/no/such/place")).expect_err("nothing there");
        assert!(missing.to_string().contains("neither a directory"), "{missing}");
    }
}
