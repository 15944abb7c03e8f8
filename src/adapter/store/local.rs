//! A directory with one PEFT directory for each adapter, which other programs can read as it is.
//!
//! Three hidden names beside `NAME` carry a change; [`AdapterName`] rules out that an adapter is called so:
//! `.incoming-NAME` is written and flushed, `NAME` moves to `.replaced-NAME`, `.incoming-NAME` moves to `NAME`,
//! `.replaced-NAME` is removed. `.retired-NAME` is being removed. [`LocalStore::open`] finishes or undoes what a crash
//! left. One process may write to a directory at a time.
use super::{AdapterStore, StoredAdapter};
use crate::adapter::{
    AdapterError, AdapterLimits, AdapterName,
    format::{AdapterFiles, CONFIG_FILE, WEIGHTS_FILE},
};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

const INCOMING: &str = ".incoming-";
const REPLACED: &str = ".replaced-";
const RETIRED: &str = ".retired-";

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
        let names = self.file_names()?;
        for name in names.iter().filter_map(|file| file.strip_prefix(REPLACED)) {
            let (old, current) = (self.hidden(REPLACED, name), self.root.join(name));
            match fs::symlink_metadata(&current) {
                Ok(_) => remove(&old)?,
                Err(_) => fs::rename(&old, &current)?,
            }
        }
        for file in names.iter().filter(|n| n.starts_with(INCOMING) || n.starts_with(RETIRED)) {
            remove(&self.root.join(file))?;
        }
        Ok(())
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

    fn hidden(&self, prefix: &str, name: &str) -> PathBuf {
        self.root.join(format!("{prefix}{name}"))
    }

    fn directory(&self, name: &AdapterName) -> PathBuf {
        self.root.join(name.as_str())
    }

    fn replace(&self, name: &AdapterName, incoming: &Path) -> io::Result<()> {
        let (current, old) = (self.directory(name), self.hidden(REPLACED, name.as_str()));
        remove(&old)?;
        let replaces = fs::symlink_metadata(&current).is_ok();
        if replaces {
            fs::rename(&current, &old)?;
        }
        if let Err(error) = fs::rename(incoming, &current) {
            if replaces {
                fs::rename(&old, &current)?;
            }
            return Err(error);
        }
        sync_directory(&self.root)?;
        // What is left of the old one is removed at the next start; the new one is in place whatever happens here.
        if let Err(error) = remove(&old) {
            tracing::warn!(adapter = %name, %error, "could not remove the replaced files");
        }
        Ok(())
    }
}

impl AdapterStore for LocalStore {
    fn put(&self, name: &AdapterName, files: &AdapterFiles) -> Result<(), AdapterError> {
        let incoming = self.hidden(INCOMING, name.as_str());
        let done = write_new(&incoming, files).and_then(|()| self.replace(name, &incoming));
        if done.is_err() {
            // The error that led here is the one to tell; the next start removes what stays.
            let _ = remove(&incoming);
        }
        Ok(done?)
    }

    fn get(
        &self,
        name: &AdapterName,
        limits: &AdapterLimits,
    ) -> Result<StoredAdapter, AdapterError> {
        let directory = self.directory(name);
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
        let retired = self.hidden(RETIRED, name.as_str());
        remove(&retired)?;
        match fs::rename(self.directory(name), &retired) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        sync_directory(&self.root)?;
        if let Err(error) = remove(&retired) {
            tracing::warn!(adapter = %name, %error, "could not remove the retired files");
        }
        Ok(())
    }
}

fn write_new(directory: &Path, files: &AdapterFiles) -> io::Result<()> {
    remove(directory)?;
    fs::create_dir(directory)?;
    for (name, bytes) in [(CONFIG_FILE, &files.config), (WEIGHTS_FILE, &files.weights)] {
        let mut file = File::create_new(directory.join(name))?;
        file.write_all(bytes)?;
        file.sync_all()?;
    }
    sync_directory(directory)
}

/// Makes renames inside `directory` survive a power cut.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Removes a directory, or a link to one and not what it leads to. No error when there is none.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
