//! Where uploads wait: a directory of this process's own, which a later one removes if this one cannot.
use super::Incoming;
use crate::adapter::AdapterError;
use std::{
    fs::{self, DirEntry, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::{Builder, TempDir};

/// How the directories of all processes begin.
const PREFIX: &str = "lorad-incoming-";
/// Its owner holds a lock on it, which the system releases however the owner ends.
const LOCK: &str = "lock";
/// A directory without a lock file is somebody's who is about to make it, or who died before.
const NEWBORN: Duration = Duration::from_hours(1);

/// A place for uploads. Clones are handles to one; the last one removes it.
#[derive(Clone, Debug)]
pub struct Staging(Arc<Place>);

#[derive(Debug)]
struct Place {
    directory: TempDir,
    _lock: File,
}

impl Staging {
    /// A place in `parent`, which is made if need be. Removes what processes that are no more left there. Blocks.
    ///
    /// # Errors
    /// When `parent` cannot be written to.
    pub fn open(parent: &Path) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        sweep(parent)?;
        loop {
            let directory = Builder::new().prefix(PREFIX).tempdir_in(parent)?;
            let path = directory.path().join(LOCK);
            let lock = File::create_new(&path)?;
            // A file system without locks has no sweepers either: they take every lock for held.
            let _ = lock.try_lock();
            // Somebody may have swept between these two lines.
            if path.exists() {
                return Ok(Self(Arc::new(Place { directory, _lock: lock })));
            }
        }
    }

    /// A place in the system's directory of temporary files. Blocks.
    ///
    /// # Errors
    /// When that cannot be written to.
    pub fn temporary() -> io::Result<Self> {
        Self::open(&std::env::temp_dir())
    }

    /// Begins an upload of at most `limit` bytes.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn receive(&self, limit: u64) -> Result<Incoming, AdapterError> {
        Incoming::open(self.clone(), limit).await
    }

    /// A new directory, of one upload.
    pub(super) fn directory(&self) -> io::Result<TempDir> {
        TempDir::new_in(self.path())
    }

    /// Where uploads lie.
    pub fn path(&self) -> &Path {
        self.0.directory.path()
    }
}

fn sweep(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let Some(left) = entry.ok().and_then(|entry| abandoned(&entry)) else { continue };
        match fs::remove_dir_all(&left) {
            Ok(()) => tracing::info!("removed what an interrupted upload left"),
            Err(error) => tracing::warn!(%error, "what an interrupted upload left stays"),
        }
    }
    Ok(())
}

/// The directory, if it is of our kind and its owner is no more.
fn abandoned(entry: &DirEntry) -> Option<PathBuf> {
    let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
    if !ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
        return None;
    }
    let free = match File::open(entry.path().join(LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = entry.metadata().and_then(|metadata| metadata.modified()).ok()?;
            made.elapsed().is_ok_and(|age| age > NEWBORN)
        }
        Err(_) => false,
    };
    free.then(|| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }

    #[test]
    fn a_place_is_gone_with_its_last_handle() {
        let parent = TempDir::new().expect("a directory");
        let staging = Staging::open(&parent.path().join("deep/er")).expect("a place");
        let (path, clone) = (staging.path().to_owned(), staging.clone());
        drop(staging);
        assert!(path.exists());
        drop(clone);
        assert!(entries(&parent.path().join("deep/er")).is_empty());
    }

    #[test]
    fn what_a_crash_left_is_removed_and_what_others_use_is_not() {
        let parent = TempDir::new().expect("a directory");
        let living = Staging::open(parent.path()).expect("a place");
        let dead = parent.path().join("lorad-incoming-dead");
        fs::create_dir(&dead).expect("made");
        fs::write(dead.join(LOCK), "").expect("written");
        fs::write(dead.join("adapter_model.safetensors"), "half").expect("written");
        let newborn = parent.path().join("lorad-incoming-newborn");
        fs::create_dir(&newborn).expect("made");
        let foreign = parent.path().join("mine");
        fs::create_dir(&foreign).expect("made");
        let second = Staging::open(parent.path()).expect("another place");
        assert!(!dead.exists());
        for kept in [living.path(), second.path(), &newborn, &foreign] {
            assert!(kept.exists(), "{}", kept.display());
        }
    }
}
