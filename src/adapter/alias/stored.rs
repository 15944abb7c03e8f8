//! Aliases in the store: one small object each.
use super::{AliasError, AliasRecord, live::Kept};
use crate::adapter::{AdapterError, AdapterName, Content, Objects, Stamp, WriteRule};
use std::{collections::BTreeMap, sync::Arc};

const PREFIX: &str = ".lorad/aliases/";
const ENDING: &str = ".json";
/// Largest stored alias, bytes: two forms with sixteen long names each are far below.
const MAX_BYTES: u64 = 256 << 10;

/// Where aliases outlive the process.
#[derive(Clone, Debug)]
pub(super) struct Shelf(Arc<dyn Objects>);

fn path(name: &AdapterName) -> String {
    format!("{PREFIX}{name}{ENDING}")
}

impl Shelf {
    pub(super) fn new(store: Arc<dyn Objects>) -> Self {
        Self(store)
    }

    /// What lies there now. Blocks.
    pub(super) fn stamps(&self) -> Result<BTreeMap<AdapterName, Stamp>, AliasError> {
        let listed = self.0.list(PREFIX)?.into_iter();
        let named = listed.filter_map(|info| {
            let name = info.path.strip_prefix(PREFIX)?.strip_suffix(ENDING)?;
            Some((name.parse().ok()?, info.stamp))
        });
        Ok(named.collect())
    }

    /// Blocks.
    ///
    /// # Errors
    /// Also when what lies there is no alias.
    pub(super) fn read(
        &self,
        name: &AdapterName,
    ) -> Result<Option<(AliasRecord, Stamp)>, AliasError> {
        let Some((bytes, stamp)) = self.0.get(&path(name), MAX_BYTES)? else { return Ok(None) };
        let record = serde_json::from_slice(&bytes);
        let record = record.map_err(|error| {
            AdapterError::Invalid(format!("what is stored as alias `{name}` is none: {error}"))
        })?;
        Ok(Some((record, stamp)))
    }

    /// `None` where something else lies there than `over`. Blocks.
    pub(super) fn write(
        &self,
        name: &AdapterName,
        record: &AliasRecord,
        over: Option<&Stamp>,
    ) -> Result<Option<Kept>, AliasError> {
        let rule = over.map_or(WriteRule::IfAbsent, WriteRule::IfUnchanged);
        let written = self.0.put(&path(name), Content::Bytes(&record.bytes()), rule)?;
        Ok(written.map(Kept::Stored))
    }

    /// Blocks.
    pub(super) fn delete(&self, name: &AdapterName) -> Result<(), AliasError> {
        Ok(self.0.delete(&path(name))?)
    }
}
