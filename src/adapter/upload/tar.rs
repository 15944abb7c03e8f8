//! A tar, entry by entry as its headers stand there: extensions are read here, within bounds, and may not change what
//! an entry is.
use super::{
    copy::Counted,
    form::broken,
    names::unsafe_entry,
    plan::{Entry, Kind, Plan},
};
use crate::adapter::AdapterError;
use std::{
    io::{self, Read},
    mem,
};
use tar::{Archive, EntryType, Header, PaxExtensions};

/// Longest extension: names, times and attributes are far shorter.
const MAX_EXTENSION: u64 = 64 << 10;
/// Bytes of a name that fit a header.
const HEADER_NAME: usize = 99;

/// Unpacks what `plan` admits.
pub(super) fn unpack(from: impl Read, plan: &mut Plan<'_>) -> Result<(), AdapterError> {
    let mut counted = Counted::new(from, plan.most_read());
    let done = walk(&mut counted, plan);
    if counted.over { Err(plan.too_large()) } else { done }
}

fn walk(from: &mut impl Read, plan: &mut Plan<'_>) -> Result<(), AdapterError> {
    let mut archive = Archive::new(from);
    let mut told = Told::default();
    for entry in archive.entries().map_err(|error| broken(&error))?.raw(true) {
        let mut entry = entry.map_err(|error| broken(&error))?;
        let (kind, bytes) = (entry.header().entry_type(), entry.size());
        match kind {
            EntryType::GNULongName => told.name(extension(&mut entry, bytes)?)?,
            EntryType::XHeader => told.records(&extension(&mut entry, bytes)?)?,
            EntryType::XGlobalHeader => refuse_overrides(&extension(&mut entry, bytes)?)?,
            // The link that it belongs to is refused.
            EntryType::GNULongLink => {}
            kind => {
                let name = mem::take(&mut told).applied_to(entry.header(), bytes)?;
                let mode = entry.header().mode().unwrap_or(0);
                let kind = kind_of(kind, &name);
                let part = plan.admit(&Entry { name: &name, kind, bytes, mode })?;
                if let Some(part) = part {
                    plan.store(part, bytes, &mut entry)?;
                }
            }
        }
    }
    expect_padding(archive.into_inner())
}

fn kind_of(kind: EntryType, name: &[u8]) -> Kind {
    match kind {
        // As archives older than the type for them say it.
        EntryType::Regular if name.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Other("is a symbolic link"),
        EntryType::Link => Kind::Other("is a hard link"),
        EntryType::Char | EntryType::Block => Kind::Other("is a device"),
        EntryType::Fifo => Kind::Other("is a pipe"),
        EntryType::GNUSparse => Kind::Other("is a sparse file"),
        _ => Kind::Other("is of an unknown kind"),
    }
}

fn extension(entry: &mut impl Read, bytes: u64) -> Result<Vec<u8>, AdapterError> {
    if bytes > MAX_EXTENSION {
        return Err(unsafe_entry("an extension", "is endless"));
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content).map_err(|error| broken(&error))?;
    Ok(content)
}

/// What extensions say about the entry that follows them.
#[derive(Default)]
struct Told {
    name: Option<Vec<u8>>,
    bytes: Option<u64>,
    /// Which extensions came.
    gnu: bool,
    pax: bool,
}

impl Told {
    /// GNU's long name.
    fn name(&mut self, mut name: Vec<u8>) -> Result<(), AdapterError> {
        if mem::replace(&mut self.gnu, true) || self.name.is_some() {
            return Err(unsafe_entry("an entry", "has several long names"));
        }
        while name.pop_if(|last| *last == 0).is_some() {}
        self.name = Some(name);
        Ok(())
    }

    /// PAX records.
    fn records(&mut self, records: &[u8]) -> Result<(), AdapterError> {
        if mem::replace(&mut self.pax, true) {
            return Err(unsafe_entry("an entry", "has several PAX headers"));
        }
        for (key, value) in parsed(records)? {
            match key {
                b"path" if self.name.is_some() => {
                    return Err(unsafe_entry("an entry", "has several long names"));
                }
                b"path" => self.name = Some(value.to_owned()),
                b"size" => {
                    let bytes = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    self.bytes = Some(bytes.ok_or_else(malformed)?);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(unsafe_entry("an entry", "is a sparse file"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The entry's name. Readers that know no extensions must see the same file, or else one archive is two.
    fn applied_to(self, header: &Header, bytes: u64) -> Result<Vec<u8>, AdapterError> {
        let short = header.path_bytes().into_owned();
        let name = self.name.unwrap_or_else(|| short.clone());
        let shown = String::from_utf8_lossy(&name);
        if self.bytes.is_some_and(|told| told != bytes) {
            return Err(unsafe_entry(&shown, "has two sizes"));
        }
        if !stands_for(&short, &name) {
            return Err(unsafe_entry(&shown, "has another name for other programs"));
        }
        Ok(name)
    }
}

/// Whether a header may say `short` where an extension says `name`: cut where the header's room ends, or with
/// question marks for what is not ASCII.
fn stands_for(short: &[u8], name: &[u8]) -> bool {
    let cut = short.len() >= HEADER_NAME && name.starts_with(short);
    let ascii = || {
        let replaced = String::from_utf8_lossy(name);
        let mut replaced = replaced.chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' });
        let same = short.iter().all(|byte| replaced.next() == Some(*byte));
        same && (replaced.next().is_none() || short.len() >= HEADER_NAME)
    };
    short == name || cut || ascii()
}

/// Records for all entries may say when and by whom, not what.
fn refuse_overrides(records: &[u8]) -> Result<(), AdapterError> {
    let overrides =
        |key: &[u8]| matches!(key, b"path" | b"size") || key.starts_with(b"GNU.sparse.");
    if parsed(records)?.iter().any(|(key, _)| overrides(key)) {
        return Err(unsafe_entry("a global PAX header", "gives every entry one name or size"));
    }
    Ok(())
}

/// A key and its value.
type Record<'a> = (&'a [u8], &'a [u8]);

fn parsed(records: &[u8]) -> Result<Vec<Record<'_>>, AdapterError> {
    let records = PaxExtensions::new(records).map(|record| {
        let record = record.map_err(|_| malformed())?;
        Ok((record.key_bytes(), record.value_bytes()))
    });
    records.collect()
}

fn malformed() -> AdapterError {
    broken(&io::Error::other("a malformed PAX record"))
}

/// Reads to the end, which also makes a gzip check its sum: only zeros may come.
fn expect_padding(rest: &mut impl Read) -> Result<(), AdapterError> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match rest.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) if buffer[..read].iter().all(|byte| *byte == 0) => {}
            Ok(_) => return Err(broken(&io::Error::other("something follows its end"))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(&error)),
        }
    }
}
