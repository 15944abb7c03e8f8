//! A file's content as pages of memory, read as they are touched.
use bytes::Bytes;
use memmap2::Mmap;
use std::{fs::File, io, path::Path};

/// Maps a file. It must not be truncated while the model loads: the system ends a process that reads a page which is
/// gone.
pub(super) fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    #[expect(unsafe_code, reason = "mapping a file has no safe form")]
    // SAFETY: the map is read-only and private to this value, which is dropped once the weights are packed.
    // Another process that writes to the file meanwhile could change the bytes under us; they are only copied
    // into tensors, for which every bit pattern is a value, and never interpreted as references.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}
