//! A model's files by name: a directory's, or those built into the program.
use super::bytes::map;
use crate::model::ModelError;
use bytes::Bytes;
use serde_json::Value;
use std::{borrow::Cow, fs, io, path::PathBuf};

/// Where to look a file name up.
#[derive(Clone, Debug)]
pub(crate) enum Files {
    /// On the disk.
    Directory(PathBuf),
    /// Name and content, from `include_bytes!`.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl Files {
    /// The file's place, for messages.
    pub(crate) fn place(&self, name: &str) -> String {
        match self {
            Self::Directory(directory) => directory.join(name).display().to_string(),
            Self::Embedded(_) => format!("embedded model: {name}"),
        }
    }

    /// Whether there is such a file.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory(directory) => directory.join(name).is_file(),
            Self::Embedded(files) => embedded(files, name).is_some(),
        }
    }

    /// A small file, whole.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>, ModelError> {
        match self {
            Self::Embedded(files) => Ok(embedded(files, name).map(Cow::Borrowed)),
            Self::Directory(directory) => {
                let path = directory.join(name);
                found(fs::read(&path), path).map(|bytes| bytes.map(Cow::Owned))
            }
        }
    }

    /// A file of text.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, ModelError> {
        self.read(name)?
            .map(|bytes| {
                String::from_utf8(bytes.into_owned())
                    .map_err(|_| ModelError::file(self.place(name), "is not UTF-8 text"))
            })
            .transpose()
    }

    /// A JSON file.
    pub(crate) fn json(&self, name: &str) -> Result<Option<Value>, ModelError> {
        self.read(name)?
            .map(|bytes| {
                serde_json::from_slice(&bytes).map_err(|error| {
                    ModelError::file(self.place(name), format!("is not valid JSON: {error}"))
                })
            })
            .transpose()
    }

    /// A large file, mapped.
    pub(super) fn map(&self, name: &str) -> Result<Option<Bytes>, ModelError> {
        match self {
            Self::Embedded(files) => Ok(embedded(files, name).map(Bytes::from_static)),
            Self::Directory(directory) => {
                let path = directory.join(name);
                found(map(&path), path)
            }
        }
    }
}

fn embedded(files: &[(&'static str, &'static [u8])], wanted: &str) -> Option<&'static [u8]> {
    files.iter().find(|(name, _)| *name == wanted).map(|(_, bytes)| *bytes)
}

fn found<T>(read: io::Result<T>, path: PathBuf) -> Result<Option<T>, ModelError> {
    match read {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ModelError::Io { path, source }),
    }
}
