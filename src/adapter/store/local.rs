//! A directory with one directory for each adapter, PEFT's or with a GGUF file in it, which other programs can read as
//! it is; GGUF files beside them are adapters too.
//!
//! Names that begin with a dot are never adapters; some of them carry a change, and [`LocalStore::open`] finishes or
//! undoes what a crash left. One process may write to a directory at a time.
use super::{
    AdapterStore, StoredAdapter,
    place::{self, Place, file_names},
};
use crate::adapter::{
    AdapterError, AdapterLimits, AdapterName,
    format::{AdapterFiles, CONFIG_FILE, GGUF_ENDING},
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// See the file's first lines.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
}

impl LocalStore {
    /// The store in `root`, after repairing what a crash left there.
    ///
    /// # Errors
    /// When `root` is no directory, or cannot be read or repaired.
    pub fn open(root: &Path) -> Result<Self, AdapterError> {
        if root.join(CONFIG_FILE).exists() {
            return Err(AdapterError::invalid(format!(
                "`{}` is itself an adapter: give the directory that it lies in",
                root.display()
            )));
        }
        place::recover_all(root).map_err(|error| {
            AdapterError::invalid(format!(
                "`{}` cannot be used as a directory of adapters: {error}",
                root.display()
            ))
        })?;
        Ok(Self { root: root.to_owned() })
    }

    fn place<'a>(&'a self, name: &'a AdapterName) -> Place<'a> {
        Place::new(&self.root, name.as_str())
    }
}

impl AdapterStore for LocalStore {
    fn put(&self, name: &AdapterName, files: &AdapterFiles) -> Result<(), AdapterError> {
        Ok(self.place(name).put(files)?)
    }

    fn get(
        &self,
        name: &AdapterName,
        limits: &AdapterLimits,
    ) -> Result<StoredAdapter, AdapterError> {
        let place = self.place(name);
        let path = place.current().unwrap_or_else(|| place.directory());
        let files = AdapterFiles::read(&path, limits)?;
        let written = files.named().last().map(|(name, _)| path.join(name));
        let written = written.filter(|file| file.exists()).unwrap_or(path);
        let modified = fs::metadata(written).and_then(|metadata| metadata.modified());
        Ok(StoredAdapter { files, stored_at: modified.unwrap_or_else(|_| SystemTime::now()) })
    }

    fn list(&self) -> Result<Vec<String>, AdapterError> {
        let wants_to_be_one = |file: &String| {
            let plain = file.strip_suffix(GGUF_ENDING).filter(|_| self.root.join(file).is_file());
            let name = plain.unwrap_or(file);
            let found = Place::new(&self.root, name).current();
            (!name.starts_with('.') && found.is_some()).then(|| name.to_owned())
        };
        let found: BTreeSet<_> =
            file_names(&self.root)?.iter().filter_map(wants_to_be_one).collect();
        Ok(found.into_iter().collect())
    }

    fn delete(&self, name: &AdapterName) -> Result<(), AdapterError> {
        Ok(self.place(name).clear()?)
    }
}
