//! The two files that are an adapter, as bytes.
use crate::adapter::{AdapterError, AdapterLimits, VersionId};
use bytes::Bytes;
use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

/// The adapter's hyper-parameters, JSON.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The adapter's tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// Names under which PEFT stores tensors as pickles.
const PICKLE_FILES: [&str; 3] = ["adapter_model.bin", "adapter_model.pt", "adapter_model.pth"];
/// Configs are a few kilobytes; one entry for each layer in a pattern makes some tens.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// An adapter as it is stored and uploaded. Owned memory, never a mapping: files may change under a mapping.
#[derive(Clone, Debug)]
pub struct AdapterFiles {
    /// `adapter_config.json`
    pub config: Bytes,
    /// `adapter_model.safetensors`
    pub weights: Bytes,
}

impl AdapterFiles {
    /// Reads both files of a PEFT directory.
    ///
    /// # Errors
    /// When a file is missing, is not a regular file, is over its limit, or cannot be read.
    pub fn read(directory: &Path, limits: &AdapterLimits) -> Result<Self, AdapterError> {
        let config = read_file(directory, CONFIG_FILE, MAX_CONFIG_BYTES)?;
        let Some(config) = config else {
            return Err(AdapterError::invalid(format!(
                "there is no `{CONFIG_FILE}`: an adapter is a directory as PEFT's save_pretrained writes it"
            )));
        };
        match read_file(directory, WEIGHTS_FILE, limits.max_adapter_bytes)? {
            Some(weights) => Ok(Self { config, weights }),
            None => Err(missing_weights(directory)),
        }
    }

    /// Identity of the content.
    pub fn version(&self) -> VersionId {
        VersionId::of(&[&self.config, &self.weights])
    }

    /// Bytes of both files.
    pub fn bytes(&self) -> u64 {
        (self.config.len() + self.weights.len()) as u64
    }

    /// # Errors
    /// [`AdapterError::TooLarge`].
    pub(in crate::adapter) fn check_size(
        &self,
        limits: &AdapterLimits,
    ) -> Result<(), AdapterError> {
        let config = self.config.len() as u64;
        if config > MAX_CONFIG_BYTES {
            return Err(AdapterError::TooLarge { bytes: config, limit: MAX_CONFIG_BYTES });
        }
        match (self.bytes(), limits.max_adapter_bytes) {
            (bytes, limit) if bytes > limit => Err(AdapterError::TooLarge { bytes, limit }),
            _ => Ok(()),
        }
    }
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

fn missing_weights(directory: &Path) -> AdapterError {
    match PICKLE_FILES.iter().find(|name| directory.join(name).exists()) {
        Some(pickle) => AdapterError::unsupported(format!(
            "`{pickle}` is a pickle, which can run code when it is read, and there is no `{WEIGHTS_FILE}`: load the \
             adapter with PEFT and save it with safe_serialization=True"
        )),
        None => AdapterError::invalid(format!("there is no `{WEIGHTS_FILE}`")),
    }
}
