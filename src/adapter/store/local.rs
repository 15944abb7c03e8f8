//! A directory with one PEFT directory for each adapter, which other programs can read as it is.
//!
//! Names that begin with a dot are never adapters; some of them carry a change, and [`LocalStore::open`] finishes or
//! undoes what a crash left. One process may write to a directory at a time.
use super::{
    AdapterStore, StoredAdapter,
    place::{PREFIXES, Place},
};
use crate::adapter::{
    AdapterError, AdapterLimits, AdapterName,
    format::{AdapterFiles, CONFIG_FILE, WEIGHTS_FILE},
};
use std::{
    collections::BTreeSet,
    fs, io,
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
        let store = Self { root: root.to_owned() };
        store.recover().map_err(|error| {
            AdapterError::invalid(format!(
                "`{}` cannot be used as a directory of adapters: {error}",
                root.display()
            ))
        })?;
        Ok(store)
    }

    fn recover(&self) -> io::Result<()> {
        let name_of = |file: &String| {
            let name = PREFIXES.iter().find_map(|prefix| file.strip_prefix(prefix)).unwrap_or(file);
            name.parse().ok()
        };
        let names: BTreeSet<AdapterName> = self.file_names()?.iter().filter_map(name_of).collect();
        names.iter().try_for_each(|name| self.place(name).recover())
    }

    /// In order; names that are not UTF-8 are nobody's adapter.
    fn file_names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
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
        let directory = self.place(name).directory();
        let files = AdapterFiles::read(&directory, limits)?;
        let modified = fs::metadata(directory.join(WEIGHTS_FILE)).and_then(|m| m.modified());
        Ok(StoredAdapter { files, stored_at: modified.unwrap_or_else(|_| SystemTime::now()) })
    }

    fn list(&self) -> Result<Vec<String>, AdapterError> {
        let wants_to_be_one = |name: &String| {
            !name.starts_with('.') && self.root.join(name).join(CONFIG_FILE).exists()
        };
        Ok(self.file_names()?.into_iter().filter(wants_to_be_one).collect())
    }

    fn delete(&self, name: &AdapterName) -> Result<(), AdapterError> {
        Ok(self.place(name).clear()?)
    }
}
