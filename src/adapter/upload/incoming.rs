//! The pieces of an upload as they come, on their way to disk.
use super::{Part, Staged, Staging};
use crate::adapter::AdapterError;
use bytes::Bytes;
use std::{
    fs::File,
    io::{self, Write},
    mem,
};
use tempfile::TempDir;
use tokio::{runtime::Handle, task::spawn_blocking};

/// What is gathered before a thread that may block is asked to write it.
const GATHERED_BYTES: usize = 512 << 10;
/// Pieces may be of one byte, and each has a handle.
const GATHERED_PIECES: usize = 1024;

/// An upload that still comes. Memory holds about half a MiB of it; whoever is faster than the disk waits. Dropping it
/// removes it.
#[derive(Debug)]
pub struct Incoming {
    staging: Staging,
    directory: Option<TempDir>,
    file: Option<File>,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    received: u64,
    limit: u64,
}

impl Incoming {
    pub(super) async fn open(staging: Staging, limit: u64) -> Result<Self, AdapterError> {
        let place = staging.clone();
        let directory = blocking(move || place.directory()).await?;
        Ok(Self {
            staging,
            directory: Some(directory),
            file: None,
            gathered: Vec::new(),
            gathered_bytes: 0,
            received: 0,
            limit,
        })
    }

    /// From now on the pieces are of `part`, which must not have come before.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn begin(&mut self, part: Part) -> Result<(), AdapterError> {
        self.flush().await?;
        let Some(directory) = &self.directory else { return Err(lost()) };
        let path = directory.path().join(part.file_name());
        self.file = Some(blocking(move || File::create_new(path)).await?);
        Ok(())
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`AdapterError::TooLarge`] over the limit of the upload, and when the disk fails.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), AdapterError> {
        self.received += piece.len() as u64;
        if self.received > self.limit {
            return Err(AdapterError::TooLarge { bytes: self.received, limit: self.limit });
        }
        self.gathered_bytes += piece.len();
        self.gathered.push(piece);
        if self.gathered_bytes >= GATHERED_BYTES || self.gathered.len() >= GATHERED_PIECES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Everything has come.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn finish(mut self) -> Result<Staged, AdapterError> {
        self.flush().await?;
        let directory = self.directory.take().ok_or_else(lost)?;
        Ok(Staged::new(self.staging.clone(), directory))
    }

    /// Removes it; returns when nothing is left.
    pub async fn discard(mut self) {
        if let Some(directory) = self.directory.take() {
            // What stays is swept when a server starts next.
            let _ = blocking(move || directory.close()).await;
        }
    }

    /// Bytes so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    async fn flush(&mut self) -> Result<(), AdapterError> {
        self.gathered_bytes = 0;
        let pieces = mem::take(&mut self.gathered);
        if pieces.is_empty() {
            return Ok(());
        }
        // On an error the file is no more, and with it the upload.
        let mut file = self.file.take().ok_or_else(lost)?;
        let written = blocking(move || {
            pieces.iter().try_for_each(|piece| file.write_all(piece))?;
            Ok(file)
        });
        self.file = Some(written.await?);
        Ok(())
    }
}

impl Drop for Incoming {
    /// On a thread that may block: large files take a while to remove.
    fn drop(&mut self) {
        if let (Some(directory), Ok(runtime)) = (self.directory.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(directory));
        }
    }
}

fn lost() -> AdapterError {
    AdapterError::Store(io::Error::other(
        "a piece of an upload came before its part, or after an error",
    ))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, AdapterError> {
    let done = spawn_blocking(work).await;
    Ok(done.map_err(io::Error::other)??)
}
