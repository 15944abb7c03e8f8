//! A file's content, mapped or in the program itself.
use memmap2::Mmap;
use std::{fs::File, io, ops::Deref, path::Path};

/// Bytes that stay where they are.
pub(super) enum Bytes {
    /// A file's pages, read as they are touched.
    Mapped(Mmap),
    /// Part of the program.
    Static(&'static [u8]),
}

impl Bytes {
    /// Maps a file. It must not be truncated while the model loads: the system ends a process that reads a page
    /// which is gone.
    pub(super) fn map(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        #[expect(unsafe_code, reason = "mapping a file has no safe form")]
        // SAFETY: the map is read-only and private to this value, which is dropped once the weights are packed.
        // Another process that writes to the file meanwhile could change the bytes under us; they are only copied
        // into tensors, for which every bit pattern is a value, and never interpreted as references.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self::Mapped(map))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
        }
    }
}
