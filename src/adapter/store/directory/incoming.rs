//! Files on their way into the store.
//!
//! Each lies in `.lorad/incoming/` until it is whole, and its writer holds a lock on it: what nobody holds was left by
//! a process that died.
use super::walk::is_absence;
use crate::adapter::store::Content;
use std::{
    ffi::OsStr,
    fs::{self, DirEntry, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use uuid::Uuid;

/// Before the names of the files that the store itself writes.
const OURS: &str = "put-";
/// Others may put files here while they come over the network. They hold no lock, so they get time.
const GRACE: Duration = Duration::from_hours(1);

/// A file that is removed with this, unless it was moved away.
pub(super) struct Incoming {
    pub(super) path: PathBuf,
    /// Holds the lock.
    file: File,
    /// Whether it has its content already.
    linked: bool,
}

impl Incoming {
    /// Begins one in `directory`. A turn must be held, or a process that starts now could take it for a leftover.
    pub(super) fn begin(directory: &Path, content: Content<'_>) -> io::Result<Self> {
        let path = directory.join(format!("{OURS}{}", Uuid::new_v4()));
        let linked = match content {
            Content::File(source) => {
                lies_in(source, directory) && fs::hard_link(source, &path).is_ok()
            }
            Content::Bytes(_) => false,
        };
        if !linked {
            File::create_new(&path)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        // A file system without locks has one writer, and then nothing is a leftover of the living.
        let _ = file.try_lock();
        Ok(Self { path, file, linked })
    }

    /// Makes it whole and durable. The time of its last change is set by a fine clock: file systems' own may not tell
    /// two writes apart.
    pub(super) fn fill(&mut self, content: Content<'_>) -> io::Result<()> {
        match content {
            Content::Bytes(bytes) => self.file.write_all(bytes)?,
            Content::File(_) if self.linked => {}
            Content::File(source) => drop(io::copy(&mut File::open(source)?, &mut self.file)?),
        }
        self.file.set_modified(SystemTime::now())?;
        self.file.sync_all()
    }

    /// Moves it to where it belongs.
    pub(super) fn settle(&self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Not there when it was moved; else the next start removes it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Only the store's own folder is trusted to leave a file's bytes alone after it was linked: everything else is copied.
fn lies_in(source: &Path, directory: &Path) -> bool {
    let is_plain = fs::symlink_metadata(source).is_ok_and(|found| found.is_file());
    let parent = source.parent().and_then(|parent| parent.canonicalize().ok());
    is_plain && parent.is_some() && parent == directory.canonicalize().ok()
}

/// Removes what processes that died left. A turn must be held.
pub(super) fn sweep(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match is_left(&entry) {
            Ok(false) => {}
            Ok(true) => fs::remove_file(entry.path())?,
            Err(error) if is_absence(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_left(entry: &DirEntry) -> io::Result<bool> {
    let metadata = entry.metadata()?;
    if !metadata.is_file() {
        return Ok(false);
    }
    let is_old = metadata.modified()?.elapsed().is_ok_and(|age| age > GRACE);
    if !is_ours(&entry.file_name()) {
        return Ok(is_old);
    }
    match File::open(entry.path())?.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(_)) => Ok(is_old),
    }
}

fn is_ours(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(OURS.as_bytes())
}
