//! One adapter's directory, changed in steps that a crash may interrupt anywhere.
//!
//! To replace: `.incoming-NAME` is written and flushed, `NAME` moves to `.replaced-NAME`, `.incoming-NAME` moves to
//! `NAME`, what else lay in the old directory moves over, the old directory is removed. To forget: the config, which is
//! what makes a directory an adapter (or the GGUF file, where it is one), gets another name; then the adapter's files are removed, and the directory when
//! nothing else lies in it. Of a link to a directory only the link goes. Files that are not the adapter's are never
//! removed: people serve the directory that a training run still writes its checkpoints to.
use crate::adapter::{
    AdapterName,
    format::{AdapterFiles, CONFIG_FILE, GGUF_ENDING, GGUF_FILE, WEIGHTS_FILE, gguf_in},
};
use std::{
    borrow::Cow,
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, DirEntry, File, Metadata},
    io::{self, Write},
    path::{Path, PathBuf},
};

const INCOMING: &str = ".incoming-";
const REPLACED: &str = ".replaced-";
/// Of a link, or of a GGUF file beside the directories.
const RETIRED: &str = ".retired-";
/// Beside `NAME`; an adapter's name begins with a letter or digit.
const PREFIXES: [&str; 3] = [INCOMING, REPLACED, RETIRED];

/// The config of an adapter that is being forgotten.
const RETIRED_CONFIG: &str = ".retired-adapter_config.json";
/// The GGUF file of an adapter that is being forgotten.
const RETIRED_GGUF: &str = ".retired-adapter.gguf";
/// What says of a directory that it is no adapter any more.
pub(super) const RETIRED_MARKS: [&str; 2] = [RETIRED_CONFIG, RETIRED_GGUF];
/// In the order of removal: as long as one of the last two is there, the next start goes on.
const OURS: [&str; 5] = [CONFIG_FILE, WEIGHTS_FILE, GGUF_FILE, RETIRED_CONFIG, RETIRED_GGUF];

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

    /// A GGUF file beside the directories, which is an adapter where no directory is.
    pub(super) fn file(&self) -> PathBuf {
        self.root.join(format!("{}{GGUF_ENDING}", self.name))
    }

    fn hidden(&self, prefix: &str) -> PathBuf {
        self.root.join(format!("{prefix}{}", self.name))
    }

    /// Makes `files` the directory here. On an error the former one is here still.
    fn replace(&self, files: &AdapterFiles) -> io::Result<()> {
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
        for (name, bytes) in files.named() {
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
        let ours = ours(from);
        let mut carried = false;
        for entry in entries {
            let name = entry.file_name();
            if entry.file_type()?.is_dir() || !ours.iter().any(|ours| name == **ours) {
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
        let mark = mark(&current);
        if mark.is_some() || is_link {
            // The directory hid it; it must not come back when the directory is gone.
            remove_if_there(&self.file())?;
        }
        let (parent, from, to) = match mark {
            _ if is_link => (self.root, current.clone(), self.hidden(RETIRED)),
            None => (self.root, self.file(), self.hidden(RETIRED)),
            Some(config) if config == CONFIG_FILE => {
                (&*current, current.join(config), current.join(RETIRED_CONFIG))
            }
            Some(gguf) => (&*current, current.join(gguf), current.join(RETIRED_GGUF)),
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
        let is_directory = look(&current)?.is_some_and(|found| found.is_dir());
        if !is_directory || !is_retired(&current) {
            return Ok(());
        }
        match mark(&current) {
            None => discard(&current),
            // Somebody made it an adapter again.
            Some(_) => {
                RETIRED_MARKS.iter().try_for_each(|name| remove_if_there(&current.join(name)))
            }
        }
    }

    /// Finishes or undoes what a crash interrupted.
    pub(super) fn recover(&self) -> io::Result<()> {
        self.settle()?;
        discard(&self.hidden(INCOMING))?;
        self.clean()
    }
}

/// Finishes or undoes what a crash interrupted anywhere in `root`.
pub(super) fn recover_all(root: &Path) -> io::Result<()> {
    let name_of = |file: &String| {
        let name = PREFIXES.iter().find_map(|prefix| file.strip_prefix(prefix)).unwrap_or(file);
        name.parse().ok()
    };
    let names: BTreeSet<AdapterName> = file_names(root)?.iter().filter_map(name_of).collect();
    names.iter().try_for_each(|name| Place::new(root, name.as_str()).recover())
}

/// In order; names that are not UTF-8 are nobody's adapter.
pub(super) fn file_names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Makes `files` the directory `name` in `parent`, all or nothing; what else lies in `parent` stays.
///
/// # Errors
/// When the disk fails; what was there is there still.
pub(in crate::adapter) fn replace_directory(
    parent: &Path,
    name: &str,
    files: &AdapterFiles,
) -> io::Result<()> {
    Place::new(parent, name).replace(files)
}

/// The file that makes a directory an adapter. A GGUF file that lies in a forgotten one does not, unless it bears the
/// name that the store gives.
fn mark(directory: &Path) -> Option<String> {
    let named = [CONFIG_FILE, GGUF_FILE].into_iter().find(|name| directory.join(name).exists());
    match named {
        Some(name) => Some(name.to_owned()),
        None if is_retired(directory) => None,
        None => gguf_in(directory),
    }
}

/// Whether an adapter was forgotten here and the directory is not cleaned up.
fn is_retired(directory: &Path) -> bool {
    RETIRED_MARKS.iter().any(|name| directory.join(name).exists())
}

/// The names of an adapter's files in its directory.
fn ours(directory: &Path) -> Vec<Cow<'static, str>> {
    let mark = mark(directory).filter(|mark| !OURS.contains(&mark.as_str()));
    mark.into_iter().map(Cow::Owned).chain(OURS.map(Cow::Borrowed)).collect()
}

/// Makes renames inside a directory survive a power cut.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
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

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if is_absence(&error) => Ok(()),
        other => other,
    }
}

/// Removes an adapter's files, and their directory when nothing else lies in it; of a link or a file, itself. Where a
/// GGUF file stays that would be an adapter, so does the sign that there is none.
fn discard(directory: &Path) -> io::Result<()> {
    let Some(found) = look(directory)? else { return Ok(()) };
    if !found.is_dir() {
        return fs::remove_file(directory);
    }
    for name in ours(directory) {
        if name.starts_with(RETIRED) && gguf_in(directory).is_some() {
            return Ok(());
        }
        remove_if_there(&directory.join(&*name))?;
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
        AdapterFiles::Peft { config: text.into(), weights: text.into() }
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
        Place::new(root.path(), "a").replace(&files("old")).expect("stored");
        fs::write(root.path().join("a/notes"), "mine").expect("written");
        let place = failing(root.path(), |path| fail_if(path.join(".replaced-a").exists()));
        place.replace(&files("new")).expect_err("not flushed");
        assert_eq!(names(root.path()), ["a"]);
        assert_eq!(names(&root.path().join("a")), [CONFIG_FILE, WEIGHTS_FILE, "notes"]);
        assert_eq!(fs::read(root.path().join("a").join(WEIGHTS_FILE)).expect("there"), b"old");
    }

    #[test]
    fn a_first_one_that_cannot_be_flushed_is_not_there() {
        let root = TempDir::new().expect("a directory");
        let place = failing(root.path(), |path| fail_if(path.join("a").exists()));
        place.replace(&files("new")).expect_err("not flushed");
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn a_removal_that_cannot_be_flushed_is_undone() {
        let root = TempDir::new().expect("a directory");
        Place::new(root.path(), "a").replace(&files("old")).expect("stored");
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
            place.replace(&files("new")).expect_err("in the way").to_string().contains("is a file")
        );
        place.clear().expect("nothing to forget");
        place.recover().expect("nothing to do");
        assert_eq!(names(root.path()), ["a"]);
    }

    fn gguf(text: &'static str) -> AdapterFiles {
        AdapterFiles::Gguf(text.into())
    }

    #[test]
    fn a_gguf_file_beside_the_directories_is_an_adapter_until_it_is_replaced_or_forgotten() {
        let root = TempDir::new().expect("a directory");
        let place = Place::new(root.path(), "a");
        fs::write(root.path().join("a.gguf"), "old").expect("written");
        place.replace(&gguf("new")).expect("stored");
        // Hidden by the directory, and gone with it.
        assert_eq!(names(root.path()), ["a", "a.gguf"]);
        assert_eq!(names(&root.path().join("a")), [GGUF_FILE]);
        place.clear().expect("forgotten");
        assert!(names(root.path()).is_empty());
        fs::write(root.path().join("a.gguf"), "again").expect("written");
        place.clear().expect("forgotten");
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn the_only_gguf_file_of_a_directory_is_the_adapters_own() {
        let root = TempDir::new().expect("a directory");
        let place = Place::new(root.path(), "a");
        let directory = root.path().join("a");
        fs::create_dir(&directory).expect("made");
        fs::write(directory.join("mine-f16.gguf"), "old").expect("written");
        fs::write(directory.join("notes"), "mine").expect("written");
        place.replace(&files("new")).expect("stored");
        assert_eq!(names(&directory), [CONFIG_FILE, WEIGHTS_FILE, "notes"]);
        place.replace(&gguf("newer")).expect("stored");
        assert_eq!(names(&directory), [GGUF_FILE, "notes"]);
        place.clear().expect("forgotten");
        assert_eq!(names(&directory), ["notes"]);
    }

    #[test]
    fn a_gguf_file_beside_a_forgotten_peft_adapter_does_not_take_its_place() {
        let root = TempDir::new().expect("a directory");
        let place = Place::new(root.path(), "a");
        place.replace(&files("one")).expect("stored");
        fs::write(root.path().join("a/export.gguf"), "mine").expect("written");
        place.clear().expect("forgotten");
        place.recover().expect("nothing to do");
        assert_eq!(names(&root.path().join("a")), [RETIRED_CONFIG, "export.gguf"]);
        place.replace(&files("two")).expect("stored");
        assert_eq!(names(&root.path().join("a")), [CONFIG_FILE, WEIGHTS_FILE, "export.gguf"]);
    }
}
