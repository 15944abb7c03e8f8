//! Objects in memory: for a server without a store, and for tests.
use super::{Content, ObjectInfo, Objects, Stamp, WriteRule};
use crate::adapter::AdapterError;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// Gone with the process. What is read shares its memory with what is kept.
#[derive(Debug, Default)]
pub struct MemoryObjects(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    objects: BTreeMap<String, Object>,
    logs: BTreeMap<String, Vec<String>>,
    writes: u64,
}

#[derive(Debug)]
struct Object {
    bytes: Bytes,
    modified: SystemTime,
    stamp: Stamp,
}

impl MemoryObjects {
    /// Lines of a log that are kept: nobody reads further back.
    const MOST_LINES: usize = 10_000;

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects for MemoryObjects {
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, AdapterError> {
        let info = |(path, object): (&String, &Object)| ObjectInfo {
            path: path.clone(),
            bytes: object.bytes.len() as u64,
            modified: object.modified,
            stamp: object.stamp.clone(),
        };
        let kept = self.lock();
        let visible = |path: &str| !prefix.is_empty() || !path.starts_with('.');
        let found = kept.objects.iter().filter(|(path, _)| path.starts_with(prefix));
        Ok(found.filter(|(path, _)| visible(path)).map(info).collect())
    }

    fn get(&self, path: &str, limit: u64) -> Result<Option<(Bytes, Stamp)>, AdapterError> {
        match self.lock().objects.get(path) {
            None => Ok(None),
            Some(Object { bytes, .. }) if bytes.len() as u64 > limit => {
                Err(AdapterError::TooLarge { bytes: bytes.len() as u64, limit })
            }
            Some(Object { bytes, stamp, .. }) => Ok(Some((bytes.clone(), stamp.clone()))),
        }
    }

    fn put(
        &self,
        path: &str,
        content: Content<'_>,
        rule: WriteRule<'_>,
    ) -> Result<Option<Stamp>, AdapterError> {
        let bytes = match content {
            Content::Bytes(bytes) => Bytes::copy_from_slice(bytes),
            Content::File(file) => fs::read(file)?.into(),
        };
        let mut kept = self.lock();
        let found = kept.objects.get(path).map(|object| &object.stamp);
        let may = match rule {
            WriteRule::Always => true,
            WriteRule::IfAbsent => found.is_none(),
            WriteRule::IfUnchanged(stamp) => found == Some(stamp),
        };
        if !may {
            return Ok(None);
        }
        kept.writes += 1;
        let stamp = Stamp(kept.writes.to_string());
        let object = Object { bytes, modified: SystemTime::now(), stamp: stamp.clone() };
        kept.objects.insert(path.to_owned(), object);
        Ok(Some(stamp))
    }

    fn delete(&self, path: &str) -> Result<(), AdapterError> {
        self.lock().objects.remove(path);
        Ok(())
    }

    fn append(&self, path: &str, line: &str) -> Result<(), AdapterError> {
        let mut kept = self.lock();
        let log = kept.logs.entry(path.to_owned()).or_default();
        if log.len() >= 2 * Self::MOST_LINES {
            log.drain(..Self::MOST_LINES);
        }
        log.push(line.to_owned());
        Ok(())
    }

    fn tail(&self, path: &str, count: usize) -> Result<Vec<String>, AdapterError> {
        let kept = self.lock();
        let lines = kept.logs.get(path).map_or(&[][..], Vec::as_slice);
        Ok(lines[lines.len().saturating_sub(count)..].to_vec())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn is_shared(&self) -> bool {
        false
    }
}
