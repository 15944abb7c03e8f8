//! Bytes out of an archive: counted as they really come, so that what an archive claims does not matter.
use std::io::{self, Read};

/// A reader that ends in an error after `left` bytes.
#[derive(Debug)]
pub(super) struct Counted<R> {
    reader: R,
    left: u64,
    /// Whether there was more.
    pub(super) over: bool,
}

impl<R: Read> Counted<R> {
    pub(super) fn new(reader: R, limit: u64) -> Self {
        Self { reader, left: limit, over: false }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        if let Some(left) = self.left.checked_sub(read as u64) {
            self.left = left;
            return Ok(read);
        }
        self.over = true;
        Err(io::Error::other("more bytes than may be"))
    }
}

/// Which side of a copy failed.
#[derive(Debug)]
pub(super) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// [`io::copy`], but it says which side failed.
pub(super) fn copy(from: &mut dyn Read, to: &mut dyn io::Write) -> Result<u64, CopyError> {
    let mut buffer = vec![0; 64 << 10];
    let mut copied = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(CopyError::Read)?,
        };
        to.write_all(&buffer[..read]).map_err(CopyError::Write)?;
        copied += read as u64;
    }
}
