//! The registry's map: bookkeeping only, no locks and no I/O.
use super::{
    AdapterDescription, AdapterEntry, AdapterError, AdapterName, AdapterRef, AdapterVersion,
    VersionId,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::SystemTime,
};

/// What a name means now.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) name: AdapterName,
    pub(super) version: Arc<AdapterVersion>,
    pub(super) description: Arc<AdapterDescription>,
    pub(super) since: SystemTime,
    pub(super) durable: bool,
}

/// A name's place: it keeps its number while what it means is replaced.
#[derive(Debug)]
struct Place {
    number: u64,
    published: Published,
}

impl Place {
    fn entry(&self) -> AdapterEntry {
        let Published { name, version, description, since, durable } = &self.published;
        AdapterEntry {
            name: name.clone(),
            number: self.number,
            version: version.id,
            description: Arc::clone(description),
            published_at: *since,
            durable: *durable,
            // The catalogue's own is not a lease.
            leases: Arc::strong_count(version) - 1,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Catalogue {
    current: BTreeMap<AdapterName, Place>,
    /// How many names have had a number, which is the next one's.
    numbers: u64,
    /// Replaced versions of names that are still published, for `name@version` while someone leases them.
    former: Vec<(AdapterName, Weak<AdapterVersion>)>,
}

impl Catalogue {
    pub(super) fn current(&self, name: &AdapterName) -> Option<&Published> {
        self.current.get(name).map(|place| &place.published)
    }

    pub(super) fn published(&self) -> impl Iterator<Item = &Published> {
        self.current.values().map(|place| &place.published)
    }

    pub(super) fn entry(&self, name: &AdapterName) -> Option<AdapterEntry> {
        self.current.get(name).map(Place::entry)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = AdapterEntry> {
        self.current.values().map(Place::entry)
    }

    /// The name that has this number.
    pub(super) fn numbered(&self, number: u64) -> Option<&AdapterName> {
        let mut places = self.current.iter();
        places.find(|(_, place)| place.number == number).map(|(name, _)| name)
    }

    pub(super) fn find(&self, wanted: &AdapterRef) -> Result<Arc<AdapterVersion>, AdapterError> {
        let AdapterRef { name, version } = wanted;
        let Some(current) = self.current(name) else {
            return Err(AdapterError::NotFound(name.clone()));
        };
        let Some(version) = version.filter(|version| *version != current.version.id) else {
            return Ok(Arc::clone(&current.version));
        };
        let of_name = self.former.iter().filter(|(former, _)| former == name);
        of_name
            .filter_map(|(_, former)| former.upgrade())
            .find(|former| former.id == version)
            .ok_or_else(|| AdapterError::VersionNotFound(name.clone(), version))
    }

    /// Whether a new name may come.
    pub(super) fn check_room(&self, name: &AdapterName, limit: usize) -> Result<(), AdapterError> {
        if self.current.len() >= limit {
            return Err(AdapterError::TooMany(limit));
        }
        let twin = |other: &&AdapterName| other.as_str().eq_ignore_ascii_case(name.as_str());
        match self.current.keys().find(twin) {
            Some(twin) if twin != name => Err(AdapterError::InvalidName(format!(
                "`{name}` differs from the published `{twin}` in case only"
            ))),
            _ => Ok(()),
        }
    }

    /// Returns the version that `published` replaces.
    pub(super) fn insert(&mut self, published: Published) -> Option<VersionId> {
        let name = published.name.clone();
        let Some(place) = self.current.get_mut(&name) else {
            let number = self.numbers;
            self.numbers += 1;
            self.current.insert(name, Place { number, published });
            return None;
        };
        let previous = std::mem::replace(&mut place.published, published);
        self.former.retain(|(_, former)| former.strong_count() > 0);
        self.former.push((previous.name, Arc::downgrade(&previous.version)));
        Some(previous.version.id)
    }

    pub(super) fn remove(&mut self, name: &AdapterName) {
        self.current.remove(name);
        self.former.retain(|(former, _)| former != name);
    }
}
