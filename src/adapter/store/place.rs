//! One adapter's directory, changed in steps that a crash may interrupt anywhere.
//!
//! To replace: `.incoming-NAME` is written and flushed, `NAME` moves to `.replaced-NAME`, `.incoming-NAME` moves to
//! `NAME`, what else lay in the old directory moves over, the old directory is removed. To forget: the config, which is
//! what makes a directory an adapter, gets another name; then the adapter's files are removed, and the directory when
//! nothing else lies in it. Of a link to a directory only the link goes. Files that are not the adapter's are never
//! removed: people serve the directory that a training run still writes its checkpoints to.
use crate::adapter::format::{AdapterFiles, CONFIG_FILE, WEIGHTS_FILE};
use std::{
    ffi::OsStr,
    fs::{self, DirEntry, File, Metadata},
    io::{self, Write},
    path::{Path, PathBuf},
};

const INCOMING: &str = ".incoming-";
const REPLACED: &str = ".replaced-";
/// Of a link.
const RETIRED: &str = ".retired-";
/// Beside `NAME`; an adapter's name begins with a letter or digit.
pub(super) const PREFIXES: [&str; 3] = [INCOMING, REPLACED, RETIRED];

/// The config of an adapter that is being forgotten.
const RETIRED_CONFIG: &str = ".retired-adapter_config.json";
/// In the order of removal: as long as the last one is there, the next start goes on.
const OURS: [&str; 3] = [CONFIG_FILE, WEIGHTS_FILE, RETIRED_CONFIG];

/// Where the adapter `name` lies in `root`.
pub(super) struct Place<'a> {
    root: &'a Path,
    name: &'a str,
    /// Makes renames inside a directory survive a power cut.
    flush: fn(&Path) -> io::Result<()>,
}

impl<'a> Place<'a> {
    pub(super) fn new(root: &'a Path, name: &'a str) -> Self {
        Self { root, name, flush: sync_directory }
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.root.join(self.name)
    }

    fn hidden(&self, prefix: &str) -> PathBuf {
        self.root.join(format!("{prefix}{}", self.name))
    }

    /// Makes `files` the adapter here. On an error the former adapter is here still.
    pub(super) fn put(&self, files: &AdapterFiles) -> io::Result<()> {
        let done = self.settle().and_then(|()| self.write(files)).and_then(|()| self.swap());
        if done.is_err() {
            // The error that led here is the one to tell; the next start removes what stays.
            let _ = discard(&self.hidden(INCOMING));
        } else if let Err(error) = self.settle() {
            // The new adapter is in place whatever happened; the next start tries again.
            tracing::warn!(adapter = self.name, %error, "could not clear the replaced directory");
        }
        done
    }

    fn write(&self, files: &AdapterFiles) -> io::Result<()> {
        let incoming = self.hidden(INCOMING);
        discard(&incoming)?;
        fs::create_dir(&incoming)?;
        for (name, bytes) in [(CONFIG_FILE, &files.config), (WEIGHTS_FILE, &files.weights)] {
            let mut file = File::create_new(incoming.join(name))?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        (self.flush)(&incoming)
    }

    fn swap(&self) -> io::Result<()> {
        let current = self.directory();
        if let Some(found) = look(&current)? {
            if found.is_file() {
                let reason = format!("`{}` is a file: an adapter is a directory", self.name);
                return Err(io::Error::new(io::ErrorKind::NotADirectory, reason));
            }
            fs::rename(&current, self.hidden(REPLACED))?;
        }
        let done = fs::rename(self.hidden(INCOMING), &current);
        let done = done.and_then(|()| (self.flush)(self.root));
        if done.is_err()
            && let Err(error) = self.put_back()
        {
            tracing::error!(adapter = self.name, %error, "could not put the replaced adapter back");
        }
        done
    }

    fn put_back(&self) -> io::Result<()> {
        let current = self.directory();
        rename_if_there(&current, &self.hidden(INCOMING))?;
        rename_if_there(&self.hidden(REPLACED), &current).map(drop)
    }

    /// Ends a replacement: the new directory inherits from the old one if it is in place, else the old one returns.
    fn settle(&self) -> io::Result<()> {
        let (current, old) = (self.directory(), self.hidden(REPLACED));
        match (look(&old)?, look(&current)?) {
            (None, _) => Ok(()),
            (Some(_), None) => fs::rename(&old, &current),
            (Some(found), Some(_)) => {
                if found.is_dir() {
                    self.carry(&old, &current)?;
                }
                discard(&old)
            }
        }
    }

    /// Moves everything that is not an adapter's own from one directory to the other.
    fn carry(&self, from: &Path, to: &Path) -> io::Result<()> {
        let entries: Vec<DirEntry> = fs::read_dir(from)?.collect::<io::Result<_>>()?;
        let mut carried = false;
        for entry in entries {
            let name = entry.file_name();
            if entry.file_type()?.is_dir() || !OURS.iter().any(|ours| name == *ours) {
                fs::rename(entry.path(), free_path(to, &name))?;
                carried = true;
            }
        }
        if carried { (self.flush)(to) } else { Ok(()) }
    }

    /// Makes this no adapter, or fails and leaves it as it is.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.settle()?;
        let current = self.directory();
        let is_link = look(&current)?.is_some_and(|found| found.is_symlink());
        let (parent, from, to) = if is_link {
            (self.root, current.clone(), self.hidden(RETIRED))
        } else {
            (&*current, current.join(CONFIG_FILE), current.join(RETIRED_CONFIG))
        };
        if !rename_if_there(&from, &to)? {
            return Ok(());
        }
        if let Err(error) = (self.flush)(parent) {
            fs::rename(&to, &from)?;
            return Err(error);
        }
        if let Err(error) = self.clean() {
            tracing::warn!(adapter = self.name, %error, "could not remove the files of a retired adapter");
        }
        Ok(())
    }

    /// Removes what is left of a forgotten adapter.
    fn clean(&self) -> io::Result<()> {
        discard(&self.hidden(RETIRED))?;
        let current = self.directory();
        let retired = current.join(RETIRED_CONFIG);
        let is_directory = look(&current)?.is_some_and(|found| found.is_dir());
        if !is_directory || look(&retired)?.is_none() {
            return Ok(());
        }
        match look(&current.join(CONFIG_FILE))? {
            None => discard(&current),
            // Somebody made it an adapter again.
            Some(_) => fs::remove_file(&retired),
        }
    }

    /// Finishes or undoes what a crash interrupted.
    pub(super) fn recover(&self) -> io::Result<()> {
        self.settle()?;
        discard(&self.hidden(INCOMING))?;
        self.clean()
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// What is there, links not followed.
fn look(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Err(error) if is_absence(&error) => Ok(None),
        other => other.map(Some),
    }
}

/// Whether there was something to rename.
fn rename_if_there(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::rename(from, to) {
        Err(error) if is_absence(&error) => Ok(false),
        other => other.map(|()| true),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// `name` in `directory`, with a number behind it when that is taken.
fn free_path(directory: &Path, name: &OsStr) -> PathBuf {
    let mut path = directory.join(name);
    let mut number = 0;
    while fs::symlink_metadata(&path).is_ok() {
        number += 1;
        let mut numbered = name.to_owned();
        numbered.push(format!(".{number}"));
        path = directory.join(numbered);
    }
    path
}

/// Removes an adapter's files, and their directory when nothing else lies in it; of a link, the link.
fn discard(directory: &Path) -> io::Result<()> {
    let Some(found) = look(directory)? else { return Ok(()) };
    if found.is_symlink() {
        return fs::remove_file(directory);
    }
    for name in OURS {
        match fs::remove_file(directory.join(name)) {
            Err(error) if is_absence(&error) => {}
            other => other?,
        }
    }
    // Fails when something else lies in it, as it should.
    let _ = fs::remove_dir(directory);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn files(text: &'static str) -> AdapterFiles {
        AdapterFiles { config: text.into(), weights: text.into() }
    }

    fn failing(root: &Path, flush: fn(&Path) -> io::Result<()>) -> Place<'_> {
        Place { flush, ..Place::new(root, "a") }
    }

    fn fail_if(fails: bool) -> io::Result<()> {
        if fails { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("listed");
        let name = |entry: io::Result<DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> =
            entries.map(|entry| name(entry).into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    #[test]
    fn a_replacement_that_cannot_be_flushed_is_undone() {
        let root = TempDir::new().expect("a directory");
        Place::new(root.path(), "a").put(&files("old")).expect("stored");
        fs::write(root.path().join("a/notes"), "mine").expect("written");
        let place = failing(root.path(), |path| fail_if(path.join(".replaced-a").exists()));
        place.put(&files("new")).expect_err("not flushed");
        assert_eq!(names(root.path()), ["a"]);
        assert_eq!(names(&root.path().join("a")), [CONFIG_FILE, WEIGHTS_FILE, "notes"]);
        assert_eq!(fs::read(root.path().join("a").join(WEIGHTS_FILE)).expect("there"), b"old");
    }

    #[test]
    fn a_first_one_that_cannot_be_flushed_is_not_there() {
        let root = TempDir::new().expect("a directory");
        let place = failing(root.path(), |path| fail_if(path.join("a").exists()));
        place.put(&files("new")).expect_err("not flushed");
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn a_removal_that_cannot_be_flushed_is_undone() {
        let root = TempDir::new().expect("a directory");
        Place::new(root.path(), "a").put(&files("old")).expect("stored");
        let place = failing(root.path(), |path| fail_if(path.join(RETIRED_CONFIG).exists()));
        place.clear().expect_err("not flushed");
        assert_eq!(names(&root.path().join("a")), [CONFIG_FILE, WEIGHTS_FILE]);
    }

    #[test]
    fn a_file_in_the_way_stays() {
        let root = TempDir::new().expect("a directory");
        fs::write(root.path().join("a"), "mine").expect("written");
        let place = Place::new(root.path(), "a");
        assert!(
            place.put(&files("new")).expect_err("in the way").to_string().contains("is a file")
        );
        place.clear().expect("nothing to forget");
        place.recover().expect("nothing to do");
        assert_eq!(names(root.path()), ["a"]);
    }
}
