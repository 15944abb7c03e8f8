//! Archives made by hand, so that they can say anything.
use flate2::{Compression, Crc, write::DeflateEncoder, write::GzEncoder};
use std::io::Write;
use tar::{EntryType, Header};

/// A tar that grows.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name.as_bytes(), EntryType::Regular, content)
    }

    pub(crate) fn entry(self, name: &[u8], kind: EntryType, content: &[u8]) -> Self {
        self.changed(name, kind, content, |_| {})
    }

    /// An entry whose header is changed before its sum is taken.
    pub(crate) fn changed(
        mut self,
        name: &[u8],
        kind: EntryType,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A PAX header for the entry that follows.
    pub(crate) fn pax(self, kind: EntryType, key: &str, value: &str) -> Self {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len() + 1;
        while format!("{length}{rest}").len() != length {
            length += 1;
        }
        self.entry(b"pax", kind, format!("{length}{rest}").as_bytes())
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A file of a zip, with whatever its headers claim.
pub(crate) struct Zipped {
    pub(crate) name: Vec<u8>,
    pub(crate) packed: Vec<u8>,
    pub(crate) method: u16,
    pub(crate) sum: u32,
    pub(crate) bytes: u32,
    /// Type and permissions, as Unix has them.
    pub(crate) mode: u32,
    pub(crate) flags: u16,
    /// What the entry's own header says, if not the same.
    pub(crate) other_name: Option<Vec<u8>>,
}

impl Zipped {
    pub(crate) fn stored(name: &str, content: &[u8]) -> Self {
        let mut sum = Crc::new();
        sum.update(content);
        Self {
            name: name.into(),
            packed: content.to_vec(),
            method: 0,
            sum: sum.sum(),
            bytes: content.len() as u32,
            mode: 0o100_644,
            flags: 0,
            other_name: None,
        }
    }

    pub(crate) fn deflated(name: &str, content: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).expect("memory");
        let packed = encoder.finish().expect("memory");
        Self { packed, method: 8, ..Self::stored(name, content) }
    }

    /// From the flags to the lengths of name and extra: the same in both headers.
    fn facts(&self, name: &[u8]) -> Vec<u8> {
        let mut facts = Vec::new();
        facts.extend(self.flags.to_le_bytes());
        facts.extend(self.method.to_le_bytes());
        facts.extend([0, 0, 0x21, 0]);
        facts.extend(self.sum.to_le_bytes());
        facts.extend((self.packed.len() as u32).to_le_bytes());
        facts.extend(self.bytes.to_le_bytes());
        facts.extend((name.len() as u16).to_le_bytes());
        facts.extend(0u16.to_le_bytes());
        facts
    }
}

pub(crate) fn zip(files: &[Zipped]) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for file in files {
        let start = zip.len() as u32;
        let own_name = file.other_name.as_ref().unwrap_or(&file.name);
        zip.extend(b"PK\x03\x04\x14\0");
        zip.extend(file.facts(own_name));
        zip.extend(own_name);
        zip.extend(&file.packed);
        directory.extend(b"PK\x01\x02\x14\x03\x14\0");
        directory.extend(file.facts(&file.name));
        directory.extend([0; 6]);
        directory.extend((file.mode << 16).to_le_bytes());
        directory.extend(start.to_le_bytes());
        directory.extend(&file.name);
    }
    let (start, count) = (zip.len() as u32, (files.len() as u16).to_le_bytes());
    zip.extend(&directory);
    zip.extend(b"PK\x05\x06\0\0\0\0");
    zip.extend(count);
    zip.extend(count);
    zip.extend((directory.len() as u32).to_le_bytes());
    zip.extend(start.to_le_bytes());
    zip.extend([0, 0]);
    zip
}
