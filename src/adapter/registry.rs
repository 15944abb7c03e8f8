//! Which adapters exist, and which version each name means now.
use super::{
    AdapterConfig, AdapterDescription, AdapterError, AdapterLease, AdapterLimits, AdapterName,
    AdapterRef, AdapterStore, AdapterVersion, LocalStore, VersionId,
    catalogue::{Catalogue, Published},
    format::{self, AdapterFiles, ParsedAdapter},
};
use crate::lora::{FrozenBase, LoraLayout};
use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock},
    time::SystemTime,
};

/// When a publication may take effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PublishRule {
    /// The name is free.
    Create,
    /// Always.
    Replace,
    /// The name is at this version.
    ReplaceIf(VersionId),
}

/// What a publication did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PublishOutcome {
    /// The name is new.
    Created,
    /// The name meant this version before.
    Replaced(VersionId),
    /// The name has this very content already; nothing was done, whatever the rule.
    Unchanged,
}

/// Answer to a publication.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The content's identity.
    pub version: VersionId,
    /// What happened.
    pub outcome: PublishOutcome,
    /// Whether the adapter survives a restart.
    pub durable: bool,
    /// What was published.
    pub description: Arc<AdapterDescription>,
}

/// A published adapter, as listed.
#[derive(Clone, Debug)]
pub struct AdapterEntry {
    /// Its name.
    pub name: AdapterName,
    /// The name's number since it was first published: kept when it is replaced, never another name's.
    pub number: u64,
    /// What the name means now.
    pub version: VersionId,
    /// What that is.
    pub description: Arc<AdapterDescription>,
    /// When it was published, by this server or before its start.
    pub published_at: SystemTime,
    /// Whether it survives a restart.
    pub durable: bool,
    /// Leases on this version that are held now, by sequences and by adapter slots.
    pub leases: usize,
}

/// What was found in the store at start.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Served from now on.
    pub loaded: Vec<AdapterName>,
    /// Left out: directory and reason.
    pub skipped: Vec<(String, AdapterError)>,
}

type Departure = Box<dyn Fn(VersionId) + Send + Sync>;

/// Names → versions. Clones are handles to one registry.
///
/// Look-ups never wait for a disk: reading, checking and storing happen before the one map insert, under a lock that
/// only publishers take. On any error nothing has changed.
#[derive(Clone)]
pub struct AdapterRegistry(Arc<Inner>);

struct Inner {
    base: Arc<dyn FrozenBase>,
    limits: AdapterLimits,
    store: Option<Box<dyn AdapterStore>>,
    /// The base model's name, which no adapter may have.
    reserved: OnceLock<String>,
    catalogue: RwLock<Catalogue>,
    /// Held from the rule's check to the map insert, store included.
    publishing: Mutex<()>,
    departures: RwLock<Vec<Departure>>,
}

impl AdapterRegistry {
    /// An empty registry of adapters for this base. Without a store nothing survives a restart.
    pub fn new(
        base: Arc<dyn FrozenBase>,
        limits: AdapterLimits,
        store: Option<Box<dyn AdapterStore>>,
    ) -> Self {
        Self(Arc::new(Inner {
            base,
            limits,
            store,
            reserved: OnceLock::new(),
            catalogue: RwLock::default(),
            publishing: Mutex::default(),
            departures: RwLock::default(),
        }))
    }

    /// The registry that the settings ask for, with everything its directory holds published but what is called like
    /// the model, `name`. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be used. A broken adapter in it is no error: the report has it.
    pub fn open(
        config: &AdapterConfig,
        base: Arc<dyn FrozenBase>,
        name: &str,
    ) -> Result<(Self, LoadReport), AdapterError> {
        let store = config.adapters.as_deref().map(LocalStore::open).transpose()?;
        let store = store.map(|store| Box::new(store) as Box<dyn AdapterStore>);
        let registry = Self::new(base, config.limits.clone(), store);
        registry.0.reserved.get_or_init(|| name.to_owned());
        let report = registry.load_stored()?;
        Ok((registry, report))
    }

    /// Calls `departed` for each version that no name means any more. Running sequences may still lease it.
    pub fn on_departure(&self, departed: Departure) {
        self.0.departures.write().unwrap_or_else(PoisonError::into_inner).push(departed);
    }

    /// The current version of a name, or the asked one while it is current or leased by someone.
    ///
    /// # Errors
    /// [`AdapterError::NotFound`] and [`AdapterError::VersionNotFound`].
    #[expect(
        clippy::unused_async,
        reason = "callers must not depend on every version being in memory"
    )]
    pub async fn lease(&self, wanted: &AdapterRef) -> Result<AdapterLease, AdapterError> {
        let found = self.0.read(|catalogue| catalogue.find(wanted))?;
        Ok(AdapterLease::new(wanted.name.clone(), found))
    }

    /// Makes `files` what `name` means. The work is done on the blocking pool, to its end even when the caller leaves.
    ///
    /// # Errors
    /// When the files are refused, the rule does not hold, or the store fails.
    pub async fn publish(
        &self,
        name: AdapterName,
        files: AdapterFiles,
        rule: PublishRule,
    ) -> Result<Publication, AdapterError> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.publish(&name, &files, rule)).await
    }

    /// As [`AdapterRegistry::publish`], on this thread.
    ///
    /// # Errors
    /// As [`AdapterRegistry::publish`].
    pub fn publish_blocking(
        &self,
        name: &AdapterName,
        files: &AdapterFiles,
        rule: PublishRule,
    ) -> Result<Publication, AdapterError> {
        self.0.publish(name, files, rule)
    }

    /// Takes `name` out of service; with `expected`, only when it is at that version. Running sequences go on.
    ///
    /// # Errors
    /// When there is no such adapter, it is at another version, or the store fails.
    pub async fn retire(
        &self,
        name: AdapterName,
        expected: Option<VersionId>,
    ) -> Result<VersionId, AdapterError> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.retire(&name, expected)).await
    }

    /// Publishes everything the store holds; what is broken is reported, logged and left out. Blocks.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub fn load_stored(&self) -> Result<LoadReport, AdapterError> {
        self.0.load_stored()
    }

    /// Every published adapter, by name.
    pub fn list(&self) -> Vec<AdapterEntry> {
        self.0.read(|catalogue| catalogue.entries().collect())
    }

    /// One published adapter.
    pub fn get(&self, name: &AdapterName) -> Option<AdapterEntry> {
        self.0.read(|catalogue| catalogue.entry(name))
    }

    /// The published name with this number.
    pub fn numbered(&self, number: u64) -> Option<AdapterName> {
        self.0.read(|catalogue| catalogue.numbered(number).cloned())
    }

    /// What an adapter must fit.
    pub fn layout(&self) -> &LoraLayout {
        self.0.base.layout()
    }

    /// What is refused.
    pub fn limits(&self) -> &AdapterLimits {
        &self.0.limits
    }
}

impl Inner {
    fn publish(
        &self,
        name: &AdapterName,
        files: &AdapterFiles,
        rule: PublishRule,
    ) -> Result<Publication, AdapterError> {
        let version = files.version();
        // One at a time, parsing included: that bounds the memory of uploads.
        let _publishing = self.lock_publishing();
        if let Some(unchanged) = self.unchanged(name, version) {
            return Ok(unchanged);
        }
        self.check_name(name)?;
        self.check_rule(name, rule)?;
        let parsed = self.parse(files)?;
        if let Some(store) = &self.store {
            store.put(name, files)?;
        }
        let version = AdapterVersion { id: version, weights: parsed.weights };
        let publication = self.put(Published {
            name: name.clone(),
            version: Arc::new(version),
            description: Arc::new(parsed.description),
            since: SystemTime::now(),
            durable: self.store.is_some(),
        });
        Ok(publication)
    }

    fn parse(&self, files: &AdapterFiles) -> Result<ParsedAdapter, AdapterError> {
        let mut parsed = format::parse(files, self.base.as_ref(), &self.limits)?;
        if let Some(name) = self.reserved.get() {
            parsed.description = parsed.description.beside(name);
        }
        Ok(parsed)
    }

    fn put(&self, published: Published) -> Publication {
        let (version, durable) = (published.version.id, published.durable);
        let description = Arc::clone(&published.description);
        let previous = self.write(|catalogue| catalogue.insert(published));
        let outcome = match previous {
            Some(previous) => {
                self.depart(previous);
                PublishOutcome::Replaced(previous)
            }
            None => PublishOutcome::Created,
        };
        Publication { version, outcome, durable, description }
    }

    fn unchanged(&self, name: &AdapterName, version: VersionId) -> Option<Publication> {
        self.read(|catalogue| {
            let current = catalogue.current(name).filter(|found| found.version.id == version)?;
            Some(Publication {
                version,
                outcome: PublishOutcome::Unchanged,
                durable: current.durable,
                description: Arc::clone(&current.description),
            })
        })
    }

    /// Requests name the base and adapters in one field, so that each name can mean one of them only.
    fn check_name(&self, name: &AdapterName) -> Result<(), AdapterError> {
        match self.reserved.get() {
            Some(base) if name.as_str().eq_ignore_ascii_case(base) => {
                Err(AdapterError::InvalidName(format!(
                    "`{base}` is the base model's name; an adapter needs another"
                )))
            }
            _ => Ok(()),
        }
    }

    fn check_rule(&self, name: &AdapterName, rule: PublishRule) -> Result<(), AdapterError> {
        self.read(|catalogue| {
            let current = catalogue.current(name).map(|published| published.version.id);
            match (current, rule) {
                (Some(current), PublishRule::Create) => {
                    Err(AdapterError::Conflict { name: name.clone(), current })
                }
                (Some(current), PublishRule::ReplaceIf(expected)) if current != expected => {
                    Err(AdapterError::Conflict { name: name.clone(), current })
                }
                (None, PublishRule::ReplaceIf(_)) => Err(AdapterError::NotFound(name.clone())),
                (None, _) => catalogue.check_room(name, self.limits.max_adapters),
                (Some(_), _) => Ok(()),
            }
        })
    }

    fn retire(
        &self,
        name: &AdapterName,
        expected: Option<VersionId>,
    ) -> Result<VersionId, AdapterError> {
        let _publishing = self.lock_publishing();
        let current = self.read(|catalogue| catalogue.current(name).map(|found| found.version.id));
        let current = current.ok_or_else(|| AdapterError::NotFound(name.clone()))?;
        if expected.is_some_and(|expected| expected != current) {
            return Err(AdapterError::Conflict { name: name.clone(), current });
        }
        if let Some(store) = &self.store {
            store.delete(name)?;
        }
        self.write(|catalogue| catalogue.remove(name));
        self.depart(current);
        Ok(current)
    }

    fn load_stored(&self) -> Result<LoadReport, AdapterError> {
        let mut report = LoadReport::default();
        let Some(store) = &self.store else { return Ok(report) };
        let _publishing = self.lock_publishing();
        for entry in store.list()? {
            match self.load_one(store.as_ref(), &entry) {
                Ok(name) => report.loaded.push(name),
                Err(error) => {
                    tracing::warn!(adapter = entry, %error, "left out an adapter that cannot be served");
                    report.skipped.push((entry, error));
                }
            }
        }
        Ok(report)
    }

    fn load_one(&self, store: &dyn AdapterStore, entry: &str) -> Result<AdapterName, AdapterError> {
        let name: AdapterName = entry.parse()?;
        self.check_name(&name)?;
        self.read(|catalogue| catalogue.check_room(&name, self.limits.max_adapters))?;
        let stored = store.get(&name, &self.limits)?;
        let parsed = self.parse(&stored.files)?;
        let id = stored.files.version();
        let version = AdapterVersion { id, weights: parsed.weights };
        self.put(Published {
            name: name.clone(),
            version: Arc::new(version),
            description: Arc::new(parsed.description),
            since: stored.stored_at,
            durable: true,
        });
        Ok(name)
    }

    /// The same content may be current under another name; then it has not departed.
    fn depart(&self, version: VersionId) {
        if self.read(|catalogue| catalogue.published().any(|found| found.version.id == version)) {
            return;
        }
        for departed in self.departures.read().unwrap_or_else(PoisonError::into_inner).iter() {
            departed(version);
        }
    }

    fn read<T>(&self, look: impl FnOnce(&Catalogue) -> T) -> T {
        look(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Catalogue) -> T) -> T {
        change(&mut self.catalogue.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock_publishing(&self) -> MutexGuard<'_, ()> {
        self.publishing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for AdapterRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdapterRegistry").field("store", &self.0.store).finish_non_exhaustive()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AdapterError> + Send + 'static,
) -> Result<T, AdapterError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(AdapterError::Store(io::Error::other(error))))
}
