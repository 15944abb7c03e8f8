//! What every store promises.
use crate::adapter::{AdapterError, AdapterLimits, AdapterName, format::AdapterFiles};
use std::{fmt, time::SystemTime};

/// An adapter as the store has it.
#[derive(Debug)]
pub struct StoredAdapter {
    /// Its bytes.
    pub files: AdapterFiles,
    /// When they were put there.
    pub stored_at: SystemTime,
}

/// One adapter a name. All methods block; the registry makes sure that one writer is at work at a time. What lies
/// beside an adapter's own files is not the store's: it stays, whatever happens to the adapter.
pub trait AdapterStore: fmt::Debug + Send + Sync {
    /// Makes `files` what is stored under `name`, all or nothing, also across a crash. Returns when it would survive
    /// one.
    ///
    /// # Errors
    /// When the store fails; what was stored before is then stored still.
    fn put(&self, name: &AdapterName, files: &AdapterFiles) -> Result<(), AdapterError>;

    /// Reads an adapter.
    ///
    /// # Errors
    /// When it is not there, is over a limit or cannot be read.
    fn get(
        &self,
        name: &AdapterName,
        limits: &AdapterLimits,
    ) -> Result<StoredAdapter, AdapterError>;

    /// Every entry that wants to be an adapter, in order. An entry's text may not be a valid name.
    ///
    /// # Errors
    /// When the store fails.
    fn list(&self) -> Result<Vec<String>, AdapterError>;

    /// Forgets `name`, all or nothing. Forgetting what is not there is no error.
    ///
    /// # Errors
    /// When the store fails.
    fn delete(&self, name: &AdapterName) -> Result<(), AdapterError>;
}
