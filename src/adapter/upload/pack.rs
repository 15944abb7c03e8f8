//! The reverse of an upload: an adapter's files as a tar.
use crate::adapter::{AdapterError, AdapterFiles};
use bytes::Bytes;
use std::io;
use tar::{EntryType, Header};

/// A tar's block.
const BLOCK: usize = 512;
/// What a stream gives at once: large enough to be fast, small enough to be fair.
const PIECE: usize = 256 << 10;

/// The pieces of a tar of `files`, at its root, and their bytes together. Nothing is copied; the same files make the same
/// tar.
///
/// # Errors
/// Never, unless a header cannot hold a name of ours.
pub fn packed(files: &AdapterFiles) -> Result<(Vec<Bytes>, u64), AdapterError> {
    let mut pieces = Vec::new();
    for (name, content) in files.named() {
        pieces.push(header(name, content.len() as u64)?);
        let ends = (0..content.len()).step_by(PIECE);
        pieces.extend(ends.map(|start| content.slice(start..content.len().min(start + PIECE))));
        let padding = content.len().next_multiple_of(BLOCK) - content.len();
        pieces.push(Bytes::from(vec![0; padding]));
    }
    pieces.push(Bytes::from(vec![0; 2 * BLOCK]));
    let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
    Ok((pieces, bytes))
}

fn header(name: &str, bytes: u64) -> io::Result<Bytes> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(bytes);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}
