//! What lies in a directory of objects.
use super::super::place::RETIRED_MARKS;
use crate::adapter::store::{ObjectInfo, Stamp};
use std::{
    collections::HashSet,
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

/// Lists objects and remembers what it could not read, so that it complains of each thing once.
#[derive(Debug, Default)]
pub(super) struct Walker {
    complained: Mutex<HashSet<PathBuf>>,
}

impl Walker {
    /// Every regular file below `directory`; `prefix` is what their paths begin with.
    ///
    /// Links to files are files. A link to a directory is followed where it lies at the top only, which is where people
    /// put links to training runs; so there are no circles. Names that begin with a dot are left out, but for those
    /// that say that a directory is no adapter any more.
    pub(super) fn walk(&self, directory: &Path, prefix: &str) -> io::Result<Vec<ObjectInfo>> {
        let mut found = Vec::new();
        let mut deeper = self.enter(directory, prefix, prefix.is_empty(), &mut found)?;
        while let Some((directory, prefix)) = deeper.pop() {
            match self.enter(&directory, &prefix, false, &mut found) {
                Ok(more) => deeper.extend(more),
                Err(error) if is_absence(&error) => {}
                Err(error) => self.complain(&directory, &format!("cannot be read: {error}")),
            }
        }
        Ok(found)
    }

    /// Adds the files in one directory and returns the directories in it.
    fn enter(
        &self,
        directory: &Path,
        prefix: &str,
        follow: bool,
        found: &mut Vec<ObjectInfo>,
    ) -> io::Result<Vec<(PathBuf, String)>> {
        let mut deeper = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // What is not UTF-8 has no path here.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') && !RETIRED_MARKS.contains(&name.as_str()) {
                continue;
            }
            let is_link = entry.file_type()?.is_symlink();
            let metadata = match fs::metadata(entry.path()) {
                Err(error) if is_absence(&error) => continue,
                Err(error) => {
                    self.complain(&entry.path(), &format!("cannot be read: {error}"));
                    continue;
                }
                Ok(metadata) => metadata,
            };
            if metadata.is_file() {
                found.push(info(format!("{prefix}{name}"), &metadata));
            } else if !metadata.is_dir() {
                self.complain(&entry.path(), "is not a regular file");
            } else if follow || !is_link {
                deeper.push((entry.path(), format!("{prefix}{name}/")));
            }
        }
        Ok(deeper)
    }

    fn complain(&self, path: &Path, what: &str) {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.insert(path.to_owned()) {
            tracing::warn!(path = %path.display(), what, "left out of the adapter store");
        }
    }
}

fn info(path: String, metadata: &Metadata) -> ObjectInfo {
    let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
    ObjectInfo { path, bytes: metadata.len(), modified, stamp: stamp(metadata) }
}

/// A file that was written anew has another inode; one that was written over has another time, unless somebody set it
/// back, which changes the time of the last change of anything.
pub(super) fn stamp(metadata: &Metadata) -> Stamp {
    let modified = nanoseconds(metadata.modified().unwrap_or(UNIX_EPOCH));
    Stamp(format!("{}-{modified}-{}", metadata.len(), identity(metadata)))
}

/// Of an open file. Another name for it, or one name fewer, is no change of what is in it.
pub(super) fn same_content(before: &Metadata, after: &Metadata) -> bool {
    before.len() == after.len() && before.modified().ok() == after.modified().ok()
}

fn nanoseconds(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> String {
    use std::os::unix::fs::MetadataExt;
    format!("{}-{}.{}", metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn identity(metadata: &Metadata) -> String {
    nanoseconds(metadata.created().unwrap_or(UNIX_EPOCH)).to_string()
}

pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
