//! A store that fails from a given change on, as a machine does that loses its power.
use lorad::adapter::{AdapterError, Content, ObjectInfo, Objects, Stamp, WriteRule};
use std::{io, sync::Arc, sync::atomic::AtomicUsize, sync::atomic::Ordering};

/// Objects of which only so many changes are written; from then on everything fails.
#[derive(Debug)]
pub(crate) struct Failing {
    disk: Arc<dyn Objects>,
    left: AtomicUsize,
}

impl Failing {
    pub(crate) fn after(changes: usize, disk: &Arc<dyn Objects>) -> Arc<Self> {
        Arc::new(Self { disk: Arc::clone(disk), left: AtomicUsize::new(changes) })
    }

    /// Whether every change was written.
    pub(crate) fn is_alive(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0
    }

    fn change(&self) -> Result<(), AdapterError> {
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(left) if left > 1 => Ok(()),
            // The last one is written, and nobody hears of it.
            _ => Err(io::Error::from(io::ErrorKind::StorageFull).into()),
        }
    }

    fn alive(&self) -> Result<(), AdapterError> {
        if self.is_alive() {
            return Ok(());
        }
        Err(io::Error::from(io::ErrorKind::NotConnected).into())
    }
}

impl Objects for Failing {
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, AdapterError> {
        self.alive()?;
        self.disk.list(prefix)
    }

    fn get(&self, path: &str, limit: u64) -> Result<Option<(bytes::Bytes, Stamp)>, AdapterError> {
        self.alive()?;
        self.disk.get(path, limit)
    }

    fn put(
        &self,
        path: &str,
        content: Content<'_>,
        rule: WriteRule<'_>,
    ) -> Result<Option<Stamp>, AdapterError> {
        self.alive()?;
        let written = self.disk.put(path, content, rule)?;
        self.change()?;
        Ok(written)
    }

    fn delete(&self, path: &str) -> Result<(), AdapterError> {
        self.alive()?;
        self.disk.delete(path)?;
        self.change()
    }

    fn append(&self, path: &str, line: &str) -> Result<(), AdapterError> {
        self.alive()?;
        // No change of the registry's: the event log has a thread of its own.
        self.disk.append(path, line)
    }

    fn tail(&self, path: &str, count: usize) -> Result<Vec<String>, AdapterError> {
        self.alive()?;
        self.disk.tail(path, count)
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn is_shared(&self) -> bool {
        false
    }
}
