//! The files that are an adapter, as bytes.
use super::MODEL_CONFIG_FILE;
use crate::{
    adapter::{AdapterError, AdapterLimits, VersionId},
    gguf,
};
use bytes::Bytes;
use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

/// The hyper-parameters of a PEFT adapter, JSON.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The tensors of a PEFT adapter.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// What an uploaded GGUF adapter is called in its directory.
pub const GGUF_FILE: &str = "adapter.gguf";
/// How names of GGUF files end.
pub const GGUF_ENDING: &str = ".gguf";

/// Names under which PEFT stores tensors as pickles.
const PICKLE_FILES: [&str; 3] = ["adapter_model.bin", "adapter_model.pt", "adapter_model.pth"];
/// Configs are a few kilobytes; one entry for each layer in a pattern makes some tens.
pub(in crate::adapter) const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// An adapter as it is stored and uploaded. Owned memory, never a mapping: files may change under a mapping.
#[derive(Clone, Debug)]
pub enum AdapterFiles {
    /// As PEFT's `save_pretrained` writes it.
    Peft {
        /// `adapter_config.json`
        config: Bytes,
        /// `adapter_model.safetensors`
        weights: Bytes,
    },
    /// As llama.cpp's converter writes it.
    Gguf(Bytes),
}

impl AdapterFiles {
    /// Reads a PEFT directory, with the labels out of a `config.json` in it where the adapter names none, a directory with a GGUF file, or a GGUF file.
    ///
    /// # Errors
    /// When a file is missing, is not a regular file, is over its limit, or cannot be read.
    pub fn read(path: &Path, limits: &AdapterLimits) -> Result<Self, AdapterError> {
        if path.is_file() {
            return Self::read_gguf(path, limits);
        }
        let Some(config) = read_file(path, CONFIG_FILE, MAX_CONFIG_BYTES)? else {
            return match gguf_in(path) {
                Some(name) => Self::read_gguf(&path.join(name), limits),
                None => Err(no_adapter(gguf_count(path))),
            };
        };
        match read_file(path, WEIGHTS_FILE, limits.max_adapter_bytes)? {
            Some(weights) => {
                let model = read_file(path, MODEL_CONFIG_FILE, MAX_CONFIG_BYTES)?;
                Self::Peft { config, weights }.beside(model.as_ref())
            }
            None => Err(missing_weights(pickle_among(|name| path.join(name).exists()))),
        }
    }

    fn read_gguf(path: &Path, limits: &AdapterLimits) -> Result<Self, AdapterError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let directory = path.parent().unwrap_or(path);
        Self::of_gguf(name, read_file(directory, name, limits.max_adapter_bytes)?)
    }

    /// The adapter that the file `name` is, if it is one.
    pub(in crate::adapter) fn of_gguf(
        name: &str,
        bytes: Option<Bytes>,
    ) -> Result<Self, AdapterError> {
        match bytes {
            Some(bytes) if bytes.starts_with(gguf::MAGIC) => Ok(Self::Gguf(bytes)),
            _ => Err(AdapterError::invalid(format!(
                "`{name}` is not a GGUF file: an adapter is one, or a directory as PEFT's save_pretrained writes it"
            ))),
        }
    }

    /// Whether there is something at `path` that wants to be an adapter.
    pub fn is_at(path: &Path) -> bool {
        let gguf = || path.extension().is_some_and(|extension| extension == "gguf");
        path.join(CONFIG_FILE).exists() || path.is_file() && gguf() || gguf_in(path).is_some()
    }

    /// Identity of the content.
    pub fn version(&self) -> VersionId {
        match self {
            Self::Peft { config, weights } => VersionId::of(&[config, weights]),
            Self::Gguf(bytes) => VersionId::of(&[bytes]),
        }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Peft { config, weights } => (config.len() + weights.len()) as u64,
            Self::Gguf(bytes) => bytes.len() as u64,
        }
    }

    /// Each file with its name.
    pub fn named(&self) -> Vec<(&'static str, &Bytes)> {
        match self {
            Self::Peft { config, weights } => vec![(CONFIG_FILE, config), (WEIGHTS_FILE, weights)],
            Self::Gguf(bytes) => vec![(GGUF_FILE, bytes)],
        }
    }

    /// # Errors
    /// [`AdapterError::TooLarge`].
    pub(in crate::adapter) fn check_size(
        &self,
        limits: &AdapterLimits,
    ) -> Result<(), AdapterError> {
        let config = match self {
            Self::Peft { config, .. } => config.len() as u64,
            Self::Gguf(_) => 0,
        };
        if config > MAX_CONFIG_BYTES {
            return Err(AdapterError::TooLarge { bytes: config, limit: MAX_CONFIG_BYTES });
        }
        match (self.bytes(), limits.max_adapter_bytes) {
            (bytes, limit) if bytes > limit => Err(AdapterError::TooLarge { bytes, limit }),
            _ => Ok(()),
        }
    }
}

/// The GGUF file that a directory without a config holds: the one called [`GGUF_FILE`], or the only one.
pub(in crate::adapter) fn gguf_in(directory: &Path) -> Option<String> {
    if directory.join(GGUF_FILE).is_file() {
        return Some(GGUF_FILE.to_owned());
    }
    let entries = fs::read_dir(directory).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found = names
        .filter(|name| !name.starts_with('.') && name.ends_with(GGUF_ENDING))
        .filter(|name| directory.join(name).is_file());
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// `None` when there is no such file. A pipe or device is not opened: that could block for ever.
fn read_file(directory: &Path, name: &str, limit: u64) -> Result<Option<Bytes>, AdapterError> {
    let path = directory.join(name);
    let unreadable = |error| AdapterError::invalid(format!("`{name}` cannot be read: {error}"));
    let metadata = match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(unreadable)?,
    };
    if !metadata.is_file() {
        return Err(AdapterError::invalid(format!("`{name}` is not a regular file")));
    }
    if metadata.len() > limit {
        return Err(AdapterError::TooLarge { bytes: metadata.len(), limit });
    }
    let bytes = read_up_to(&path, limit + 1).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(AdapterError::TooLarge { bytes: bytes.len() as u64, limit });
    }
    Ok(Some(bytes.into()))
}

/// The file may grow after its size was asked for.
fn read_up_to(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// How many there are.
pub(in crate::adapter) fn gguf_count(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|e| e.file_name().as_encoded_bytes().ends_with(b".gguf")).count()
}

/// Of a directory without a config and with so many GGUF files.
pub(in crate::adapter) fn no_adapter(gguf_files: usize) -> AdapterError {
    AdapterError::invalid(match gguf_files {
        0 | 1 => format!(
            "there is no `{CONFIG_FILE}`: an adapter is a directory as PEFT's save_pretrained writes it, or a GGUF file"
        ),
        several => format!("there are {several} GGUF files: call the adapter `{GGUF_FILE}`"),
    })
}

/// The first of PEFT's pickles that `has` has.
pub(in crate::adapter) fn pickle_among(has: impl Fn(&str) -> bool) -> Option<&'static str> {
    PICKLE_FILES.into_iter().find(|name| has(name))
}

/// Of a config without weights, beside which there may be a pickle.
pub(in crate::adapter) fn missing_weights(pickle: Option<&str>) -> AdapterError {
    match pickle {
        Some(pickle) => AdapterError::unsupported(format!(
            "`{pickle}` is a pickle, which can run code when it is read, and there is no `{WEIGHTS_FILE}`: load the \
             adapter with PEFT and save it with safe_serialization=True"
        )),
        None => AdapterError::invalid(format!("there is no `{WEIGHTS_FILE}`")),
    }
}
