//! The smallest thing that can keep adapters: bytes under paths, with compare-and-swap.
use crate::adapter::AdapterError;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{fmt, path::Path, time::SystemTime};

/// Differs whenever what lies at a path does: an object store's `ETag`, a file's size, time and inode.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Stamp(pub String);

/// An object, as a listing shows it.
#[derive(Clone, Debug)]
pub struct ObjectInfo {
    /// Below the root, `/` between its parts.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// When it was written, by the store's clock.
    pub modified: SystemTime,
    /// Its content's stamp.
    pub stamp: Stamp,
}

/// When an object may be written.
#[derive(Clone, Copy, Debug)]
pub enum WriteRule<'a> {
    /// Always.
    Always,
    /// Nothing lies there.
    IfAbsent,
    /// What lies there has this stamp.
    IfUnchanged(&'a Stamp),
}

/// What is written.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Small things.
    Bytes(&'a [u8]),
    /// A file on this machine, which stays where it is.
    File(&'a Path),
}

/// All methods block, and none may be called on an async thread. Paths are made of checked names, never of a client's text.
///
/// Whatever happens, an object is either whole or not there, and what a method has answered survives a crash.
pub trait Objects: fmt::Debug + Send + Sync {
    /// Everything whose path begins with `prefix`, which is empty or ends in `/`, in any order.
    ///
    /// # Errors
    /// When the store fails.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, AdapterError>;

    /// An object's bytes; `None` where there is none.
    ///
    /// # Errors
    /// [`AdapterError::TooLarge`] when it has more than `limit` bytes, and when the store fails.
    fn get(&self, path: &str, limit: u64) -> Result<Option<(Bytes, Stamp)>, AdapterError>;

    /// Writes an object. `None`: the rule does not hold, and nothing was done.
    ///
    /// # Errors
    /// When the store fails or is read-only; then what was there is there still.
    fn put(
        &self,
        path: &str,
        content: Content<'_>,
        rule: WriteRule<'_>,
    ) -> Result<Option<Stamp>, AdapterError>;

    /// Removes an object. Removing what is not there is no error.
    ///
    /// # Errors
    /// When the store fails or is read-only.
    fn delete(&self, path: &str) -> Result<(), AdapterError>;

    /// Adds one line to a log that grows for ever; lines of several writers may come in any order.
    ///
    /// # Errors
    /// When the store fails or is read-only.
    fn append(&self, path: &str, line: &str) -> Result<(), AdapterError>;

    /// The last `count` lines of a log, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    fn tail(&self, path: &str, count: usize) -> Result<Vec<String>, AdapterError>;

    /// Whether anything can be written.
    fn is_writable(&self) -> bool;

    /// The directory that the objects' paths lie below, where they are files on this machine.
    fn directory(&self) -> Option<&Path> {
        None
    }

    /// Whether other servers are to be expected, which write to it at the same time.
    fn is_shared(&self) -> bool {
        true
    }
}
