//! One writer at a time, between threads and between processes.
use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Writers hold it for milliseconds.
const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(5);

/// Gives turns, by a lock on a file that the system takes back from a process that dies.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Also says whether the file system was found to know no locks.
    lockless: Mutex<bool>,
}

/// The right to change what lies in the directory.
pub(super) struct Turn<'a> {
    _thread: MutexGuard<'a, bool>,
    _process: Option<File>,
}

impl Turns {
    /// Waits for the turn.
    ///
    /// # Errors
    /// When another process keeps it for a minute, or the disk fails.
    pub(super) fn wait(&self, lock: &Path) -> io::Result<Turn<'_>> {
        let mut lockless = self.lockless.lock().unwrap_or_else(PoisonError::into_inner);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(lock)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Turn { _thread: lockless, _process: Some(file) }),
                Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let reason = "another process has kept the adapter store's lock for a minute";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
                }
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    if !*lockless {
                        tracing::warn!(
                            "the adapter store's file system knows no locks: only one server may write to it"
                        );
                    }
                    *lockless = true;
                    return Ok(Turn { _thread: lockless, _process: None });
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}
