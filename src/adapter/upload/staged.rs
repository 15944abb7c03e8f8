//! An upload that has come whole and is on disk: what it is, and the adapter in it.
use super::{Staging, form, plan::Plan, tar, zip};
use crate::adapter::{
    AdapterError, AdapterLimits,
    format::{
        AdapterFiles, CONFIG_FILE, GGUF_FILE, MAX_CONFIG_BYTES, MODEL_CONFIG_FILE, WEIGHTS_FILE,
        split_labels,
    },
};
use flate2::read::MultiGzDecoder;
use std::{
    fs::{self, File},
    io::{BufReader, Read},
    path::Path,
};
use tempfile::TempDir;

/// A body of an upload that is an adapter in itself.
const WHOLE_FILE: &str = "upload";

/// Names of labels, as a form's part has them.
const LABELS_FILE: &str = "labels";

/// What of an adapter comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// `adapter_config.json`
    Config,
    /// `adapter_model.safetensors`
    Weights,
    /// `config.json`, of the model that it was trained in.
    ModelConfig,
    /// Names of its labels, with commas between them.
    Labels,
    /// A GGUF file.
    Gguf,
    /// All of it: an archive, or a GGUF file.
    Whole,
}

impl Part {
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::Config => CONFIG_FILE,
            Self::Weights => WEIGHTS_FILE,
            Self::ModelConfig => MODEL_CONFIG_FILE,
            Self::Labels => LABELS_FILE,
            Self::Gguf => GGUF_FILE,
            Self::Whole => WHOLE_FILE,
        }
    }
}

/// A whole upload. Dropping it removes it, and may block.
#[derive(Debug)]
pub struct Staged {
    directory: TempDir,
    _staging: Staging,
}

impl Staged {
    pub(super) fn new(staging: Staging, directory: TempDir) -> Self {
        Self { directory, _staging: staging }
    }

    /// The adapter's files, read once, and what its uploader should know. Blocks; nothing is left on disk.
    ///
    /// # Errors
    /// When there is no adapter in it, it is over a limit, or it is not safe to unpack.
    pub fn into_files(
        self,
        limits: &AdapterLimits,
    ) -> Result<(AdapterFiles, Vec<String>), AdapterError> {
        let whole = self.directory.path().join(WHOLE_FILE);
        let warnings = if whole.exists() { self.open(&whole, limits)? } else { Vec::new() };
        let files = AdapterFiles::read(self.directory.path(), limits)?;
        let files = match self.labels()? {
            Some(names) => files.with_labels(&names)?,
            None => files,
        };
        Ok((files, warnings))
    }

    /// The part with names of labels, if it came.
    fn labels(&self) -> Result<Option<Vec<String>>, AdapterError> {
        let path = self.directory.path().join(LABELS_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let mut text = String::new();
        let read = File::open(path)?.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text);
        match read {
            Ok(bytes) if bytes as u64 <= MAX_CONFIG_BYTES => Ok(Some(split_labels(&text))),
            Ok(_) => Err(AdapterError::invalid("the part `labels` is longer than any labels are")),
            Err(_) => Err(AdapterError::invalid("the part `labels` is not UTF-8")),
        }
    }

    /// Puts what is in `whole` where separate parts would lie.
    fn open(&self, whole: &Path, limits: &AdapterLimits) -> Result<Vec<String>, AdapterError> {
        let mut file = File::open(whole)?;
        let form = form::recognise(&mut file)?;
        let mut plan = Plan::new(self.directory.path(), limits.max_adapter_bytes);
        match form {
            form::Form::Gguf => {
                drop(file);
                fs::rename(whole, self.directory.path().join(GGUF_FILE))?;
                return Ok(Vec::new());
            }
            form::Form::Tar => tar::unpack(BufReader::new(file), &mut plan)?,
            form::Form::Gzip => {
                tar::unpack(MultiGzDecoder::new(BufReader::new(file)), &mut plan)?;
            }
            form::Form::Zip => zip::unpack(file, &mut plan)?,
        }
        // Its bytes are on disk twice now.
        fs::remove_file(whole)?;
        plan.finish()
    }
}
