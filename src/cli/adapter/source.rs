//! What is to be pushed, as it lies on this machine or on the hub; looked at before it is sent.
use super::error::CommandError;
use crate::{
    adapter::{AdapterPaths, hub::SCHEME},
    hub::HubId,
};
use std::path::{Path, PathBuf};

/// Where the server gets an adapter from.
#[derive(Debug)]
pub(super) enum PushSource {
    /// The server fetches it: `hf://org/name@revision`.
    Reference(String),
    /// These files of a form, each under its part's name.
    Parts(Vec<(&'static str, LocalFile)>),
    /// A GGUF file or an archive, whole.
    Whole(LocalFile),
}

/// A file and its size when it was looked at.
#[derive(Debug)]
pub(super) struct LocalFile {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

impl PushSource {
    /// Looks at `text`: a reference, a directory or a file.
    ///
    /// # Errors
    /// When it is none of them, or cannot be an adapter.
    pub(super) fn find(text: &str) -> Result<Self, CommandError> {
        if let Some(id) = text.strip_prefix(SCHEME) {
            return match id.parse::<HubId>() {
                Ok(_) => Ok(Self::Reference(text.to_owned())),
                Err(()) => Err(CommandError::usage(format!(
                    "`{text}` is no adapter on the hub: write hf://ORG/NAME or hf://ORG/NAME@REVISION"
                ))),
            };
        }
        let path = Path::new(text);
        if !path.exists() {
            return Err(CommandError::failed(format!(
                "{text} does not exist: give a directory as PEFT's save_pretrained writes it, a GGUF file, a tar, \
                 tar.gz or zip of one, or hf://ORG/NAME"
            )));
        }
        let found = AdapterPaths::find(path);
        match found.map_err(|error| CommandError::failed(format!("{text}: {error}")))? {
            AdapterPaths::Peft { config, weights, model } => {
                let mut parts = vec![("config", file(config)?)];
                // Before the weights, which are long.
                parts.extend(model.map(file).transpose()?.map(|file| ("model_config", file)));
                parts.push(("weights", file(weights)?));
                Ok(Self::Parts(parts))
            }
            AdapterPaths::Whole(path) => Ok(Self::Whole(file(path)?)),
        }
    }

    /// Bytes that go over the line.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Reference(_) => 0,
            Self::Parts(parts) => parts.iter().map(|(_, file)| file.bytes).sum(),
            Self::Whole(file) => file.bytes,
        }
    }
}

fn file(path: PathBuf) -> Result<LocalFile, CommandError> {
    match path.metadata() {
        Ok(metadata) => Ok(LocalFile { bytes: metadata.len(), path }),
        Err(error) => Err(CommandError::failed(format!("{}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_paths_and_checked() {
        let found = PushSource::find("hf://org/name@main").expect("a reference");
        assert!(matches!(&found, PushSource::Reference(text) if text == "hf://org/name@main"));
        assert_eq!(found.bytes(), 0);
        let wrong = PushSource::find("hf://org").expect_err("no id");
        assert!(matches!(wrong, CommandError::Usage(_)));
        let missing = PushSource::find("/no/such/adapter").expect_err("nothing there").to_string();
        assert!(missing.contains("does not exist"), "{missing}");
    }
}
