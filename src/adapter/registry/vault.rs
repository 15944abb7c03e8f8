//! Versions and records in a store: which object lies where, and in which order they are written.
//!
//! A version's files are written before any record names them, and a record is written with compare-and-swap: it is the
//! one point at which a change happens, whatever dies before or after it.
use super::record::NameRecord;
use crate::adapter::{
    AdapterError, AdapterLimits, AdapterName, Content, Objects, Stamp, VersionId, WriteRule,
    format::{AdapterFiles, CONFIG_FILE, GGUF_FILE, MAX_CONFIG_BYTES, WEIGHTS_FILE},
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

const VERSIONS: &str = ".lorad/versions/";
const NAMES: &str = ".lorad/names/";
/// Of a record: the description of an adapter with very many sites, times the versions that are kept.
const MAX_RECORD_BYTES: u64 = 16 << 20;
/// What no record names is left alone for so long: somebody may be about to write the record.
const GRACE: Duration = Duration::from_hours(1);

/// See the file's first lines. All methods block.
#[derive(Clone, Debug)]
pub(super) struct Vault(Arc<dyn Objects>);

impl Vault {
    pub(super) fn new(objects: Arc<dyn Objects>) -> Self {
        Self(objects)
    }

    pub(super) fn objects(&self) -> &Arc<dyn Objects> {
        &self.0
    }

    /// Writes a version's files, unless they are there.
    pub(super) fn put_version(
        &self,
        id: VersionId,
        files: &AdapterFiles,
    ) -> Result<(), AdapterError> {
        let found = self.0.list(&directory(id))?;
        let sizes: BTreeMap<_, _> =
            found.iter().map(|object| (object.path.as_str(), object.bytes)).collect();
        for (name, bytes) in files.named() {
            let path = format!("{}{name}", directory(id));
            let is_there = sizes.get(path.as_str()) == Some(&(bytes.len() as u64));
            // Written again it is young again, and nobody takes it for something left behind.
            if !is_there || self.0.is_shared() {
                self.0.put(&path, Content::Bytes(bytes), WriteRule::Always)?;
            }
        }
        Ok(())
    }

    /// A version's files, compared with its hash.
    pub(super) fn version(
        &self,
        id: VersionId,
        limits: &AdapterLimits,
    ) -> Result<AdapterFiles, AdapterError> {
        let get = |name: &str, limit| self.0.get(&format!("{}{name}", directory(id)), limit);
        let files = if let Some((bytes, _)) = get(GGUF_FILE, limits.max_adapter_bytes)? {
            AdapterFiles::Gguf(bytes)
        } else {
            let config = get(CONFIG_FILE, MAX_CONFIG_BYTES)?;
            let weights = get(WEIGHTS_FILE, limits.max_adapter_bytes)?;
            let (Some((config, _)), Some((weights, _))) = (config, weights) else {
                return Err(AdapterError::Lost { version: id, reason: "its files are gone" });
            };
            AdapterFiles::Peft { config, weights }
        };
        if files.version() != id {
            return Err(AdapterError::Lost { version: id, reason: "its files have changed" });
        }
        Ok(files)
    }

    /// Removes a version's files.
    pub(super) fn remove_version(&self, id: VersionId) -> Result<(), AdapterError> {
        for object in self.0.list(&directory(id))? {
            self.0.delete(&object.path)?;
        }
        Ok(())
    }

    /// Writes a record where the one with this stamp lies, or none. `None`: somebody else was there first.
    pub(super) fn put_record(
        &self,
        record: &NameRecord,
        expected: Option<&Stamp>,
    ) -> Result<Option<Stamp>, AdapterError> {
        let text = serde_json::to_vec(record).map_err(std::io::Error::other)?;
        let rule = expected.map_or(WriteRule::IfAbsent, WriteRule::IfUnchanged);
        self.0.put(&path(&record.name), Content::Bytes(&text), rule)
    }

    /// The record of a name.
    pub(super) fn record(
        &self,
        name: &AdapterName,
    ) -> Result<Option<(NameRecord, Stamp)>, AdapterError> {
        let Some((text, stamp)) = self.0.get(&path(name), MAX_RECORD_BYTES)? else {
            return Ok(None);
        };
        let record: NameRecord = serde_json::from_slice(&text).map_err(|error| {
            let text = format!("the record of `{name}` in the store cannot be read: {error}");
            std::io::Error::new(std::io::ErrorKind::InvalidData, text)
        })?;
        Ok(Some((record, stamp)))
    }

    /// Every name that has a record, and the record's stamp.
    pub(super) fn records(&self) -> Result<BTreeMap<AdapterName, Stamp>, AdapterError> {
        let name = |path: &str| path.strip_prefix(NAMES)?.strip_suffix(".json")?.parse().ok();
        let objects = self.0.list(NAMES)?.into_iter();
        Ok(objects.filter_map(|object| Some((name(&object.path)?, object.stamp))).collect())
    }

    /// Removes what was left behind: versions that no record names, and records of names that are retired.
    pub(super) fn collect(
        &self,
        named: &HashSet<VersionId>,
        retired: &HashSet<AdapterName>,
    ) -> Result<usize, AdapterError> {
        let now = SystemTime::now();
        let old = |modified: SystemTime| now.duration_since(modified).is_ok_and(|age| age > GRACE);
        let version = |path: &str| path.strip_prefix(VERSIONS)?.split_once('/')?.0.parse().ok();
        let mut removed = 0;
        for object in self.0.list(VERSIONS)?.into_iter().filter(|object| old(object.modified)) {
            if version(&object.path).is_some_and(|version: VersionId| !named.contains(&version)) {
                self.0.delete(&object.path)?;
                removed += 1;
            }
        }
        for object in self.0.list(NAMES)?.into_iter().filter(|object| old(object.modified)) {
            let name = object.path.strip_prefix(NAMES).and_then(|name| name.strip_suffix(".json"));
            if name.is_some_and(|name| retired.iter().any(|retired| retired.as_str() == name)) {
                self.0.delete(&object.path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn directory(id: VersionId) -> String {
    format!("{VERSIONS}{id}/")
}

fn path(name: &AdapterName) -> String {
    format!("{NAMES}{name}.json")
}
