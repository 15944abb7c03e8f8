//! A zip: every entry is held against the plan, and only admitted ones are inflated.
use super::{
    form::broken,
    names::unsafe_entry,
    plan::{Entry, Kind, MAX_ENTRIES, Plan},
    staged::Part,
};
use crate::adapter::AdapterError;
use flate2::{CrcReader, read::DeflateDecoder};
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
};
use zip::{
    CompressionMethod, ZipArchive,
    read::{ArchiveOffset, Config, ZipFileEntry},
    result::ZipError,
};

/// The end record with the longest comment, and the locator before it.
const LONGEST_END: u64 = 22 + u16::MAX as u64 + 20;

/// Unpacks what `plan` admits.
pub(super) fn unpack(mut file: File, plan: &mut Plan<'_>) -> Result<(), AdapterError> {
    refuse_zip64(&mut file)?;
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, BufReader::new(file)).map_err(unreadable)?;
    if archive.len() > MAX_ENTRIES {
        return Err(AdapterError::UnsafeArchive(format!(
            "the archive has {} entries: pack one adapter's own files only",
            archive.len()
        )));
    }
    // The same names and sizes wherever they stand, each once, none over another.
    archive.validate_header_consistency().map_err(inconsistent)?;
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index).map_err(unreadable)?;
        let part = plan.admit(&described(&entry))?;
        if let Some(part) = part {
            refuse_encryption(&entry)?;
            inflate(&mut archive, index, part, plan)?;
        }
    }
    Ok(())
}

fn described<'a>(entry: &'a ZipFileEntry<'_>) -> Entry<'a> {
    const TYPE: u32 = 0o170_000;
    // `unix_mode` hides set-uid.
    let mode = entry.external_attributes() >> 16;
    let kind = match mode & TYPE {
        0o040_000 => Kind::Directory,
        _ if entry.is_dir() => Kind::Directory,
        0 | 0o100_000 => Kind::File,
        0o120_000 => Kind::Other("is a symbolic link"),
        0o010_000 => Kind::Other("is a pipe"),
        0o020_000 | 0o060_000 => Kind::Other("is a device"),
        _ => Kind::Other("is of an unknown kind"),
    };
    Entry { name: entry.name_raw(), kind, bytes: entry.size(), mode }
}

fn refuse_encryption(entry: &ZipFileEntry<'_>) -> Result<(), AdapterError> {
    let shown = String::from_utf8_lossy(entry.name_raw());
    if entry.encrypted() { Err(unsafe_entry(&shown, "is encrypted")) } else { Ok(()) }
}

fn inflate(
    archive: &mut ZipArchive<BufReader<File>>,
    index: usize,
    part: Part,
    plan: &Plan<'_>,
) -> Result<(), AdapterError> {
    let packed = archive.by_index_raw(index).map_err(unreadable)?;
    let (told, sum, method) = (packed.size(), packed.crc32(), packed.compression());
    let mut content = CrcReader::new(match method {
        CompressionMethod::Stored => Box::new(packed) as Box<dyn Read + '_>,
        CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(packed)),
        other => {
            return Err(AdapterError::BrokenArchive(format!(
                "`{}` in the archive is compressed with {other}: use the usual method, deflate",
                part.file_name()
            )));
        }
    });
    plan.store(part, told, &mut content)?;
    if content.crc().sum() == sum {
        return Ok(());
    }
    Err(broken(&io::Error::other("a wrong checksum")))
}

/// The form for more than 4 GiB or 65,535 entries, which may claim any number of either.
fn refuse_zip64(file: &mut File) -> Result<(), AdapterError> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(LONGEST_END)))?;
    let mut end = Vec::new();
    file.take(LONGEST_END).read_to_end(&mut end)?;
    let is_locator =
        |at: &[u8]| at.starts_with(b"PK\x06\x07") && at[20..].starts_with(b"PK\x05\x06");
    if end.windows(24).any(is_locator) {
        return Err(AdapterError::UnsafeArchive(
            "the archive is a zip64, made for more than 4 GiB or 65,535 files: use a tar.gz".into(),
        ));
    }
    Ok(file.rewind()?)
}

fn unreadable(error: ZipError) -> AdapterError {
    match error {
        ZipError::Io(error) => broken(&error),
        other => broken(&io::Error::other(other)),
    }
}

/// What no honest program writes; but a zip that was cut off looks like it too.
fn inconsistent(error: ZipError) -> AdapterError {
    match error {
        ZipError::Io(error) => broken(&error),
        other => AdapterError::UnsafeArchive(format!(
            "the archive contradicts itself ({other}): pack and upload it again"
        )),
    }
}
