//! The store in a directory; see the contract for what it promises.
use super::{
    super::place,
    incoming::{self, Incoming},
    log,
    turn::{Turn, Turns},
    walk::{Walker, is_absence, same_content, stamp},
};
use crate::adapter::{
    AdapterError,
    format::CONFIG_FILE,
    store::{Content, ObjectInfo, Objects, Stamp, WriteRule},
};
use bytes::Bytes;
use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

/// Where files lie that are not whole yet, below the root.
const INCOMING: &str = ".lorad/incoming";
/// Whose lock is the turn to write, below the root.
const LOCK: &str = ".lorad/lock";

/// What a write has just done; tests stop there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Begun,
    Filled,
    Prepared,
    Renamed,
}

/// Objects that are files below a directory, which may hold other people's files too.
///
/// To write: a file in `.lorad/incoming/` is filled and flushed, renamed to its place, and the place flushed. One process
/// at a time changes names, by a lock on `.lorad/lock`. A [`Content::File`] that lies in `.lorad/incoming/` itself becomes
/// the object without a copy, so nobody may write to it afterwards; every other one is copied.
#[derive(Debug)]
pub struct DirectoryObjects {
    root: PathBuf,
    writable: bool,
    turns: Turns,
    walker: Walker,
    /// Makes renames inside a directory survive a power cut.
    pub(super) flush: fn(&Path) -> io::Result<()>,
    /// Called after each step of a write.
    pub(super) after: fn(Step),
}

impl DirectoryObjects {
    /// The objects in `root`, after repairing what a crash left there. Where nothing can be written, what lies there can
    /// be read.
    ///
    /// # Errors
    /// When `root` is no directory, is an adapter itself, or cannot be read or repaired.
    pub fn open(root: &Path) -> Result<Self, AdapterError> {
        if root.join(CONFIG_FILE).exists() {
            return Err(AdapterError::invalid(format!(
                "`{}` is itself an adapter: give the directory that it lies in",
                root.display()
            )));
        }
        let mut store = Self {
            root: root.to_owned(),
            writable: true,
            turns: Turns::default(),
            walker: Walker::default(),
            flush: place::sync_directory,
            after: |_| {},
        };
        store.recover().map_err(|error| {
            AdapterError::invalid(format!(
                "`{}` cannot be used as a directory of adapters: {error}",
                root.display()
            ))
        })?;
        Ok(store)
    }

    /// Where files may be put that shall become objects without being copied. They are removed an hour after their last
    /// change, by the next server that starts.
    pub fn incoming(&self) -> PathBuf {
        self.root.join(INCOMING)
    }

    fn recover(&mut self) -> io::Result<()> {
        fs::read_dir(&self.root)?;
        match self.prepare() {
            Err(error) if is_read_only(&error) => {
                tracing::warn!(
                    directory = %self.root.display(), %error,
                    "nothing can be written to the directory of adapters: what lies there is served"
                );
                self.writable = false;
                Ok(())
            }
            other => other,
        }
    }

    fn prepare(&self) -> io::Result<()> {
        self.make_directory(&self.incoming())?;
        let _turn = self.turn()?;
        // Only this shows that names can be changed here.
        drop(Incoming::begin(&self.incoming(), Content::Bytes(&[]))?);
        incoming::sweep(&self.incoming())?;
        place::recover_all(&self.root)
    }

    fn turn(&self) -> io::Result<Turn<'_>> {
        self.turns.wait(&self.root.join(LOCK))
    }

    fn check_writable(&self) -> Result<(), AdapterError> {
        if self.writable {
            return Ok(());
        }
        Err(AdapterError::ReadOnly(
            "nothing can be written to the server's directory of adapters: make it writable for the server and start \
             it again, or put the adapter there yourself"
                .to_owned(),
        ))
    }

    fn at(&self, path: &str) -> io::Result<PathBuf> {
        let mut parts = Path::new(path).components();
        let plain = parts.all(|part| matches!(part, Component::Normal(_)));
        let written_once = Path::new(path).components().count() == path.split('/').count();
        if plain && written_once {
            return Ok(self.root.join(path));
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of an object"))
    }

    /// Where there is no root, nothing is known to be absent.
    fn absence(&self) -> io::Result<()> {
        fs::metadata(&self.root).map(drop)
    }

    /// A regular file's metadata; nothing else is ever opened.
    fn look(&self, file: &Path) -> io::Result<Option<Metadata>> {
        match fs::metadata(file) {
            Err(error) if is_absence(&error) => self.absence().map(|()| None),
            Ok(found) if found.is_dir() => Ok(None),
            other => other.map(Some),
        }
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<(Bytes, Stamp)>, AdapterError> {
        let file = self.at(path)?;
        let Some(found) = self.look(&file)? else { return Ok(None) };
        if !found.is_file() {
            return Err(AdapterError::invalid(format!("`{path}` is not a regular file")));
        }
        let over = |bytes| Err(AdapterError::TooLarge { bytes, limit });
        if found.len() > limit {
            return over(found.len());
        }
        let mut file = match File::open(&file) {
            Err(error) if is_absence(&error) => return Ok(None),
            other => other?,
        };
        let before = file.metadata()?;
        let mut bytes = Vec::with_capacity(found.len() as usize);
        // It may grow while it is read.
        (&mut file).take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return over(bytes.len() as u64);
        }
        // Of our own making it cannot change, but others write over their files.
        if !same_content(&before, &file.metadata()?) {
            return Err(AdapterError::Unreachable(format!(
                "`{path}` changes while it is read: try again when it is whole"
            )));
        }
        Ok(Some((bytes.into(), stamp(&before))))
    }

    fn write(
        &self,
        path: &str,
        content: Content<'_>,
        rule: WriteRule<'_>,
    ) -> io::Result<Option<Stamp>> {
        let target = self.at(path)?;
        // Asked again when it counts; now it saves writing for nothing.
        if !self.holds(&target, rule)? {
            return Ok(None);
        }
        let mut incoming = self.begin(content)?;
        (self.after)(Step::Begun);
        incoming.fill(content)?;
        (self.after)(Step::Filled);
        let _turn = self.turn()?;
        if !self.holds(&target, rule)? {
            return Ok(None);
        }
        self.make_directory(parent(&target))?;
        (self.after)(Step::Prepared);
        self.swap(&incoming, &target)?;
        (self.after)(Step::Renamed);
        fs::metadata(&target).map(|found| Some(stamp(&found)))
    }

    fn begin(&self, content: Content<'_>) -> io::Result<Incoming> {
        self.make_directory(&self.incoming())?;
        let _turn = self.turn()?;
        Incoming::begin(&self.incoming(), content)
    }

    fn holds(&self, target: &Path, rule: WriteRule<'_>) -> io::Result<bool> {
        let found = || self.look(target).map(|found| found.map(|found| stamp(&found)));
        match rule {
            WriteRule::Always => Ok(true),
            WriteRule::IfAbsent => Ok(found()?.is_none()),
            WriteRule::IfUnchanged(expected) => Ok(found()?.as_ref() == Some(expected)),
        }
    }

    /// Puts the new file in its place, or leaves the old one there.
    fn swap(&self, incoming: &Incoming, target: &Path) -> io::Result<()> {
        let old = incoming.path.with_extension("old");
        let was_there = fs::symlink_metadata(target).is_ok();
        // A file system without hard links cannot take a rename back.
        let kept = was_there && fs::hard_link(target, &old).is_ok();
        let moved = incoming.settle(target);
        let done = moved.and_then(|()| {
            (self.flush)(parent(target)).inspect_err(|_| {
                let undone = match (kept, was_there) {
                    (true, _) => fs::rename(&old, target),
                    (false, false) => fs::remove_file(target),
                    (false, true) => Ok(()),
                };
                if let Err(error) = undone {
                    tracing::error!(%error, "could not take back a write to the adapter store");
                }
            })
        });
        if kept {
            // Not there when it went back; else the next start removes it.
            let _ = fs::remove_file(&old);
        }
        done
    }

    /// Makes a directory below the root, and those above it, to stay.
    fn make_directory(&self, directory: &Path) -> io::Result<()> {
        if directory.is_dir() || directory == self.root {
            return Ok(());
        }
        self.make_directory(parent(directory))?;
        match fs::create_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other.and_then(|()| (self.flush)(parent(directory))),
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let target = self.at(path)?;
        let _turn = self.turn()?;
        if self.look(&target)?.is_none() {
            return Ok(());
        }
        fs::remove_file(&target)?;
        (self.flush)(parent(&target))?;
        let mut empty = parent(&target);
        // Fails when something lies in it, as it should.
        while empty != self.root && fs::remove_dir(empty).is_ok() {
            empty = parent(empty);
        }
        Ok(())
    }

    fn add_line(&self, path: &str, line: &str) -> io::Result<()> {
        if line.contains('\n') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not one line"));
        }
        let target = self.at(path)?;
        let _turn = self.turn()?;
        self.make_directory(parent(&target))?;
        let is_new = log::append(&target, line)?;
        if is_new { (self.flush)(parent(&target)) } else { Ok(()) }
    }

    fn files(&self, prefix: &str) -> io::Result<Vec<ObjectInfo>> {
        let directory = match prefix.strip_suffix('/') {
            None if prefix.is_empty() => self.root.clone(),
            inner => self.at(inner.unwrap_or_default())?,
        };
        match self.walker.walk(&directory, prefix) {
            Err(error) if is_absence(&error) && !prefix.is_empty() => {
                self.absence().map(|()| Vec::new())
            }
            other => other,
        }
    }
}

impl Objects for DirectoryObjects {
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, AdapterError> {
        self.files(prefix).map_err(|error| failed("list", prefix, &error))
    }

    fn get(&self, path: &str, limit: u64) -> Result<Option<(Bytes, Stamp)>, AdapterError> {
        self.read(path, limit).map_err(|error| match error {
            AdapterError::Store(error) => failed("read", path, &error),
            other => other,
        })
    }

    fn put(
        &self,
        path: &str,
        content: Content<'_>,
        rule: WriteRule<'_>,
    ) -> Result<Option<Stamp>, AdapterError> {
        self.check_writable()?;
        self.write(path, content, rule).map_err(|error| failed("write", path, &error))
    }

    fn delete(&self, path: &str) -> Result<(), AdapterError> {
        self.check_writable()?;
        self.remove(path).map_err(|error| failed("remove", path, &error))
    }

    fn append(&self, path: &str, line: &str) -> Result<(), AdapterError> {
        self.check_writable()?;
        self.add_line(path, line).map_err(|error| failed("write", path, &error))
    }

    fn tail(&self, path: &str, count: usize) -> Result<Vec<String>, AdapterError> {
        let read = self.at(path).and_then(|file| log::tail(&file, count));
        read.map_err(|error| failed("read", path, &error))
    }

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn directory(&self) -> Option<&Path> {
        Some(&self.root)
    }
}

/// Every path here lies below the root, so it has a parent.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn failed(action: &str, path: &str, error: &io::Error) -> AdapterError {
    let told = format!("could not {action} `{path}`: {error}");
    AdapterError::Store(io::Error::new(error.kind(), told))
}
