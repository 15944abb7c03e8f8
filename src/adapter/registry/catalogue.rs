//! The registry's map: bookkeeping only, no locks and no I/O.
use super::{
    entry::{AdapterEntry, VersionEntry},
    record::{NameRecord, VersionRecord},
};
use crate::adapter::{
    AdapterError, AdapterName, AdapterRef, Gate, Ledger, Stamp, VersionId, Wanted,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    hash::Hash,
    ops::Bound,
    sync::Arc,
};

/// A published name. It keeps its number while what it means is replaced.
#[derive(Clone, Debug)]
pub(super) struct Named {
    number: u64,
    pub(super) record: Arc<NameRecord>,
    /// Of the record in the store; `None` where the store is not written.
    pub(super) stamp: Option<Stamp>,
    gate: Arc<Gate>,
    pub(super) ledger: Arc<Ledger>,
}

/// Every name, and how often each version is meant by one.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    names: BTreeMap<AdapterName, Named>,
    /// Names without case, so that no two differ in it alone.
    folded: HashMap<String, AdapterName>,
    /// How many names have had a number, which is the next one's.
    numbers: u64,
    /// How many names mean a version now.
    current: HashMap<VersionId, usize>,
    /// In how many histories a version stands.
    kept: HashMap<VersionId, usize>,
    /// How many names are for the key with this hash, in small hexadecimal digits.
    keys: HashMap<String, usize>,
    /// Names that are retired, with the stamps of their records.
    retired: HashMap<AdapterName, Stamp>,
}

impl Catalogue {
    pub(super) fn get(&self, name: &AdapterName) -> Option<&Named> {
        self.names.get(name)
    }

    /// What the store's record of `name` was when it was last seen.
    pub(super) fn stamp(&self, name: &AdapterName) -> Option<&Stamp> {
        let named = self.names.get(name).and_then(|named| named.stamp.as_ref());
        named.or_else(|| self.retired.get(name))
    }

    pub(super) fn current(&self, name: &AdapterName) -> Option<&VersionRecord> {
        self.names.get(name)?.record.current()
    }

    /// What a request asks of `name`.
    pub(super) fn wanted(&self, name: &AdapterName) -> Result<Wanted, AdapterError> {
        let named = self.names.get(name).ok_or_else(|| AdapterError::NotFound(name.clone()))?;
        let (gate, terms) = (Arc::clone(&named.gate), Arc::clone(&named.record.terms));
        Ok(Wanted { name: name.clone(), gate, terms })
    }

    /// Whether some name is for the key with this hash, in small hexadecimal digits.
    pub(super) fn knows_key(&self, hash: &str) -> bool {
        self.keys.contains_key(hash)
    }

    /// The version that a reference means, and its name's record.
    pub(super) fn find(
        &self,
        wanted: &AdapterRef,
    ) -> Result<(Arc<NameRecord>, VersionId), AdapterError> {
        let AdapterRef { name, version } = wanted;
        let missing = || AdapterError::NotFound(name.clone());
        let record = &self.names.get(name).ok_or_else(missing)?.record;
        let found = match version {
            None => record.current(),
            Some(version) => record.version(*version),
        };
        match (found, version) {
            (Some(found), _) => Ok((Arc::clone(record), found.id)),
            (None, Some(version)) => Err(AdapterError::VersionNotFound(name.clone(), *version)),
            (None, None) => Err(missing()),
        }
    }

    /// The name that has this number.
    pub(super) fn numbered(&self, number: u64) -> Option<&AdapterName> {
        let found = self.names.iter().find(|(_, named)| named.number == number);
        found.map(|(name, _)| name)
    }

    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Names after `after`, in order.
    pub(super) fn after<'a>(
        &'a self,
        after: Option<&AdapterName>,
    ) -> impl Iterator<Item = &'a Named> + use<'a> {
        let start = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        self.names.range((start, Bound::Unbounded)).map(|(_, named)| named)
    }

    /// Whether a name means `version` now.
    pub(super) fn means(&self, version: VersionId) -> bool {
        self.current.contains_key(&version)
    }

    /// Whether some name has `version` in its history.
    pub(super) fn keeps(&self, version: VersionId) -> bool {
        self.kept.contains_key(&version)
    }

    /// Everything that stands in a history.
    pub(super) fn kept(&self) -> HashSet<VersionId> {
        self.kept.keys().copied().collect()
    }

    /// What names mean that want to stay in memory.
    pub(super) fn pinned(&self) -> HashSet<VersionId> {
        let pinned = self.names.values().filter(|named| named.record.terms.pin);
        pinned.filter_map(|named| named.record.current()).map(|version| version.id).collect()
    }

    /// Names that have a record no longer in the store.
    pub(super) fn without_record(&self, found: &BTreeMap<AdapterName, Stamp>) -> Vec<AdapterName> {
        let stored = self.names.iter().filter(|(_, named)| named.stamp.is_some());
        stored.map(|(name, _)| name).filter(|name| !found.contains_key(*name)).cloned().collect()
    }

    /// Names of which others have put files into the store.
    pub(super) fn dropped_in(&self) -> Vec<AdapterName> {
        let dropped = self.names.iter().filter(|(_, named)| named.record.drop_in.is_some());
        dropped.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn retired(&self) -> HashSet<AdapterName> {
        self.retired.keys().cloned().collect()
    }

    /// Whether a new name may come.
    pub(super) fn check_room(&self, name: &AdapterName, limit: usize) -> Result<(), AdapterError> {
        if self.names.len() >= limit {
            return Err(AdapterError::TooMany(limit));
        }
        match self.folded.get(&name.as_str().to_ascii_lowercase()) {
            Some(twin) if twin != name => Err(AdapterError::InvalidName(format!(
                "`{name}` differs from the published `{twin}` in case only"
            ))),
            _ => Ok(()),
        }
    }

    /// Takes over a record; returns the version that its name meant before, and those that no history holds any more.
    pub(super) fn put(
        &mut self,
        record: Arc<NameRecord>,
        stamp: Option<Stamp>,
    ) -> (Option<VersionId>, Vec<VersionId>) {
        let name = record.name.clone();
        let former = self.take(&name);
        let number = former.as_ref().map(|former| former.number);
        let counts = former.as_ref().map(|f| (Arc::clone(&f.gate), Arc::clone(&f.ledger)));
        let before = former.as_ref().and_then(|former| former.record.current().map(|v| v.id));
        if record.versions.is_empty() {
            self.retired.extend(stamp.map(|stamp| (name, stamp)));
        } else {
            let number = number.unwrap_or_else(|| {
                self.numbers += 1;
                self.numbers - 1
            });
            self.count(&record, 1);
            self.retired.remove(&name);
            self.folded.insert(name.as_str().to_ascii_lowercase(), name.clone());
            let (gate, ledger) = counts.unwrap_or_default();
            self.names.insert(name, Named { number, record, stamp, gate, ledger });
        }
        let versions = former.iter().flat_map(|former| &former.record.versions).map(|v| v.id);
        let lost = versions.filter(|id| !self.keeps(*id)).collect();
        (before, lost)
    }

    fn take(&mut self, name: &AdapterName) -> Option<Named> {
        let named = self.names.remove(name)?;
        self.folded.remove(&name.as_str().to_ascii_lowercase());
        self.count(&named.record, -1);
        Some(named)
    }

    fn count(&mut self, record: &NameRecord, by: isize) {
        record.current().into_iter().for_each(|version| add(&mut self.current, version.id, by));
        record.versions.iter().for_each(|version| add(&mut self.kept, version.id, by));
        let keys = record.terms.keys.iter().map(|key| key.to_ascii_lowercase());
        keys.for_each(|key| add(&mut self.keys, key, by));
    }
}

/// What nothing counts any more is not kept.
fn add<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K, by: isize) {
    match counts.entry(key) {
        Entry::Occupied(mut entry) => {
            *entry.get_mut() = entry.get().saturating_add_signed(by);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        Entry::Vacant(entry) if by > 0 => {
            entry.insert(by.unsigned_abs());
        }
        Entry::Vacant(_) => {}
    }
}

impl Named {
    /// As listed; `leases` counts those on a version that is in memory.
    pub(super) fn entry(
        &self,
        durable: bool,
        leases: impl Fn(VersionId) -> Option<usize>,
    ) -> Option<AdapterEntry> {
        let current = self.record.current()?;
        let held = leases(current.id);
        Some(AdapterEntry {
            name: self.record.name.clone(),
            number: self.number,
            version: current.id,
            description: Arc::clone(&current.description),
            published_at: current.since(),
            published_by: current.by.clone(),
            source: current.source.clone(),
            durable,
            warm: held.is_some(),
            leases: held.unwrap_or(0),
            versions: self.record.versions.len(),
            terms: Arc::clone(&self.record.terms),
            usage: self.ledger.usage(),
        })
    }

    /// Its versions, the current one first.
    pub(super) fn history(&self, is_warm: impl Fn(VersionId) -> bool) -> Vec<VersionEntry> {
        let entry = |(at, version): (usize, &VersionRecord)| VersionEntry {
            version: version.id,
            published_at: version.since(),
            published_by: version.by.clone(),
            source: version.source.clone(),
            current: at == 0,
            warm: is_warm(version.id),
            description: Arc::clone(&version.description),
        };
        self.record.versions.iter().enumerate().map(entry).collect()
    }
}
