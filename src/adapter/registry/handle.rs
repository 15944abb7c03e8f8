//! The registry as other rooms see it.
use super::{
    AdapterEntry, Candidate, Change, Departure, LoadReport, Publication, PublishOptions,
    VersionEntry, WarmUsage,
    catalogue::Catalogue,
    vault::Vault,
    warm::{Budget, Warm},
};
use crate::{
    adapter::{
        AdapterConfig, AdapterError, AdapterFiles, AdapterLease, AdapterLimits, AdapterName,
        AdapterRef, AdapterTerms, EventLog, MemoryObjects, Objects, Permit, VersionId, store,
    },
    lora::{FrozenBase, LoraLayout},
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, atomic::AtomicBool},
    time::Instant,
};

/// Whoever has a say in names beside the registry.
pub trait NameKeeper: Send + Sync {
    /// Whether an adapter may have this name.
    ///
    /// # Errors
    /// Why not.
    fn may_publish(&self, name: &AdapterName) -> Result<(), AdapterError>;

    /// Whether the adapter of this name may go.
    ///
    /// # Errors
    /// Why not.
    fn may_retire(&self, name: &AdapterName) -> Result<(), AdapterError>;
}

pub(super) type OnDeparture = Box<dyn Fn(&Departure) + Send + Sync>;

/// Names → versions. Clones are handles to one registry.
///
/// Look-ups of what is in host memory never wait for a disk: reading, checking and storing happen before the one map
/// insert, under a lock that only publishers take. On any error nothing has changed.
#[derive(Clone)]
pub struct AdapterRegistry(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) base: Arc<dyn FrozenBase>,
    pub(super) limits: AdapterLimits,
    pub(super) vault: Vault,
    /// Whether what is published survives a restart.
    pub(super) durable: bool,
    /// Versions of a name that are kept, where its terms do not say.
    pub(super) keep_versions: usize,
    pub(super) warm: Arc<Warm>,
    /// The base model's name, which no adapter may have.
    pub(super) reserved: OnceLock<String>,
    pub(super) catalogue: RwLock<Catalogue>,
    /// Held while a record is changed, store included.
    pub(super) changing: Mutex<()>,
    /// Files of others that could not be served, by name and stamp, so that they are not read again and again.
    pub(super) refused: Mutex<HashMap<String, store::Stamp>>,
    /// Files of others, as they were listed last, by name.
    pub(super) places: Mutex<BTreeMap<String, store::DropIn>>,
    /// Whether the store has been looked through once.
    pub(super) has_looked: AtomicBool,
    pub(super) departures: RwLock<Vec<OnDeparture>>,
    pub(super) keepers: RwLock<Vec<Arc<dyn NameKeeper>>>,
    pub(super) events: EventLog,
}

impl AdapterRegistry {
    /// An empty registry of adapters for this base, as the settings have it, over `objects`; without them nothing
    /// survives a restart.
    pub fn new(
        base: Arc<dyn FrozenBase>,
        config: &AdapterConfig,
        objects: Option<Arc<dyn Objects>>,
    ) -> Self {
        let durable = objects.is_some();
        let events = objects.clone().map_or_else(EventLog::in_memory, EventLog::kept_in);
        let objects = objects.unwrap_or_else(|| Arc::new(MemoryObjects::default()));
        Self(Arc::new(Inner {
            base,
            limits: config.limits.clone(),
            vault: Vault::new(objects),
            durable,
            keep_versions: config.adapter_versions,
            warm: Arc::new(Warm::new(Budget {
                bytes: config.adapter_memory_bytes,
                versions: config.adapter_memory_count,
            })),
            reserved: OnceLock::new(),
            catalogue: RwLock::default(),
            changing: Mutex::default(),
            refused: Mutex::default(),
            places: Mutex::default(),
            has_looked: AtomicBool::new(false),
            departures: RwLock::default(),
            keepers: RwLock::default(),
            events,
        }))
    }

    /// The registry that the settings ask for, with everything its store holds published but what is called like the
    /// model, `name`. Blocks.
    ///
    /// # Errors
    /// When the store cannot be used. A broken adapter in it is no error: the report has it.
    pub fn open(
        config: &AdapterConfig,
        base: Arc<dyn FrozenBase>,
        name: &str,
    ) -> Result<(Self, LoadReport), AdapterError> {
        let objects = config.adapters.as_deref().map(store::open).transpose()?;
        let registry = Self::new(base, config, objects);
        registry.0.reserved.get_or_init(|| name.to_owned());
        let report = registry.refresh()?;
        Ok((registry, report))
    }

    /// Calls `departed` whenever a name ceases to mean a version. Running sequences may still lease it.
    pub fn on_departure(&self, departed: impl Fn(&Departure) + Send + Sync + 'static) {
        let mut departures = self.0.departures.write().unwrap_or_else(PoisonError::into_inner);
        departures.push(Box::new(departed));
    }

    /// Asks `keeper` too before a name is published or retired.
    pub fn consult(&self, keeper: Arc<dyn NameKeeper>) {
        self.0.keepers.write().unwrap_or_else(PoisonError::into_inner).push(keeper);
    }

    /// The current version of a name, or the one that is asked for, from host memory; else it is read from the store,
    /// once, off this thread.
    ///
    /// # Errors
    /// [`AdapterError::NotFound`] and [`AdapterError::VersionNotFound`], and when the store cannot give it.
    pub async fn lease(&self, wanted: &AdapterRef) -> Result<AdapterLease, AdapterError> {
        match self.lease_once(wanted).await {
            // Its files were written anew by others: what they are now is looked at.
            Err(AdapterError::Unreadable(error))
                if matches!(*error, AdapterError::Lost { .. }) && wanted.version.is_none() =>
            {
                let inner = Arc::clone(&self.0);
                let name = wanted.name.clone();
                blocking(move || inner.look_again(&name)).await?;
                self.lease_once(wanted).await
            }
            other => other,
        }
    }

    async fn lease_once(&self, wanted: &AdapterRef) -> Result<AdapterLease, AdapterError> {
        let (found, ledger) = self.0.read(|catalogue| {
            let ledger = catalogue.get(&wanted.name).map(|named| Arc::clone(&named.ledger));
            (catalogue.find(wanted), ledger)
        });
        let (record, id) = found?;
        let (inner, name) = (Arc::clone(&self.0), wanted.name.clone());
        let terms = Arc::clone(&record.terms);
        let version = self.0.warm.get_or_read(id, move || inner.fetch(&name, id)).await?;
        let lease = AdapterLease::on_terms(wanted.name.clone(), version, terms);
        Ok(lease.counted_in(ledger.unwrap_or_default()))
    }

    /// A place for one request among those of each of `names`, as their terms allow; all or none.
    ///
    /// # Errors
    /// [`AdapterError::NotFound`], [`AdapterError::Busy`] and [`AdapterError::RateLimited`].
    pub fn admit<'a>(
        &self,
        names: impl IntoIterator<Item = &'a AdapterName>,
    ) -> Result<Vec<Permit>, AdapterError> {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort();
        names.dedup();
        let wanted = self.0.read(|catalogue| {
            names.into_iter().map(|name| catalogue.wanted(name)).collect::<Result<Vec<_>, _>>()
        })?;
        Permit::for_each(&wanted, Instant::now())
    }

    /// Whether some adapter is for the key with this hash.
    pub fn knows_key(&self, hash: &[u8; 32]) -> bool {
        let digits = VersionId(*hash).to_string();
        self.0.read(|catalogue| catalogue.knows_key(&digits))
    }

    /// Reads and checks files, and publishes nothing. The work is done on the blocking pool.
    ///
    /// # Errors
    /// When the name or the files are refused.
    pub async fn examine(
        &self,
        name: AdapterName,
        files: AdapterFiles,
    ) -> Result<Candidate, AdapterError> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.examine(name, files)).await
    }

    /// Makes an examined candidate what its name means.
    ///
    /// # Errors
    /// When the rule does not hold, or the store fails.
    pub async fn commit(
        &self,
        candidate: Candidate,
        options: PublishOptions,
    ) -> Result<Publication, AdapterError> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.commit(&candidate, &options)).await
    }

    /// Makes `files` what `name` means. The work is done on the blocking pool, to its end even when the caller leaves.
    ///
    /// # Errors
    /// When the files are refused, the rule does not hold, or the store fails.
    pub async fn publish(
        &self,
        name: AdapterName,
        files: AdapterFiles,
        options: impl Into<PublishOptions>,
    ) -> Result<Publication, AdapterError> {
        let (inner, options) = (Arc::clone(&self.0), options.into());
        blocking(move || inner.publish(name, files, &options)).await
    }

    /// As [`AdapterRegistry::publish`], on this thread.
    ///
    /// # Errors
    /// As [`AdapterRegistry::publish`].
    pub fn publish_blocking(
        &self,
        name: &AdapterName,
        files: &AdapterFiles,
        options: impl Into<PublishOptions>,
    ) -> Result<Publication, AdapterError> {
        self.0.publish(name.clone(), files.clone(), &options.into())
    }

    /// Takes `name` out of service; with `expected`, only when it is at that version. Its versions go from the store.
    ///
    /// # Errors
    /// When there is no such adapter, it is at another version, or the store fails.
    pub async fn retire(
        &self,
        name: AdapterName,
        expected: Option<VersionId>,
        change: impl Into<Change>,
    ) -> Result<VersionId, AdapterError> {
        let (inner, Change { by, policy }) = (Arc::clone(&self.0), change.into());
        blocking(move || inner.retire(&name, expected, &by, policy)).await
    }

    /// Makes `name` mean one of its former versions again; `to` is the one before the current one where it is not
    /// given. Rolling back twice is to be where one was.
    ///
    /// # Errors
    /// When there is no such adapter or version, it is not at `expected`, or the store fails.
    pub async fn roll_back(
        &self,
        name: AdapterName,
        to: Option<VersionId>,
        expected: Option<VersionId>,
        change: impl Into<Change>,
    ) -> Result<Publication, AdapterError> {
        let (inner, Change { by, policy }) = (Arc::clone(&self.0), change.into());
        blocking(move || inner.roll_back(&name, to, expected, &by, policy)).await
    }

    /// Changes the terms on which `name` is served.
    ///
    /// # Errors
    /// When they cannot be kept, there is no such adapter, or the store fails.
    pub async fn set_terms(
        &self,
        name: AdapterName,
        terms: AdapterTerms,
        by: String,
    ) -> Result<(), AdapterError> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.set_terms(&name, &terms, &by)).await
    }

    /// The files of a version.
    ///
    /// # Errors
    /// When there is no such adapter or version, or the store cannot give it.
    pub async fn files(&self, wanted: AdapterRef) -> Result<AdapterFiles, AdapterError> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let (_, id) = inner.read(|catalogue| catalogue.find(&wanted))?;
            inner.files(&wanted.name, id)
        })
        .await
    }

    /// Takes over what others have written to the store since the last time; what is broken is reported, logged and
    /// left out. Blocks.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub fn refresh(&self) -> Result<LoadReport, AdapterError> {
        self.0.refresh()
    }

    /// Removes from the store what a crash or a retirement has left, and nobody names. Blocks.
    ///
    /// # Errors
    /// When the store fails.
    pub fn collect(&self) -> Result<usize, AdapterError> {
        self.0.collect()
    }

    /// Reads what names mean that want to stay in memory.
    pub async fn warm_pinned(&self) {
        let pinned: Vec<_> = self.list().into_iter().filter(|entry| entry.terms.pin).collect();
        for AdapterEntry { name, .. } in pinned {
            let wanted = AdapterRef { name, version: None };
            if let Err(error) = self.lease(&wanted).await {
                tracing::warn!(adapter = %wanted.name, %error, "could not read a pinned adapter");
            }
        }
    }

    /// Every published adapter, by name.
    pub fn list(&self) -> Vec<AdapterEntry> {
        self.page(None, usize::MAX, |_| true).0
    }

    /// The first `limit` adapters after `after` that are `wanted`, and whether there are more.
    pub fn page(
        &self,
        after: Option<&AdapterName>,
        limit: usize,
        wanted: impl Fn(&AdapterEntry) -> bool,
    ) -> (Vec<AdapterEntry>, bool) {
        let leases = |id| self.0.warm.leases(id);
        self.0.read(|catalogue| {
            let entries = catalogue.after(after);
            let mut entries = entries.filter_map(|named| named.entry(self.0.durable, leases));
            let page: Vec<_> = entries.by_ref().filter(&wanted).take(limit).collect();
            let more = page.len() == limit && entries.any(|entry| wanted(&entry));
            (page, more)
        })
    }

    /// How many adapters are published.
    pub fn len(&self) -> usize {
        self.0.read(Catalogue::len)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One published adapter.
    pub fn get(&self, name: &AdapterName) -> Option<AdapterEntry> {
        let leases = |id| self.0.warm.leases(id);
        self.0.read(|catalogue| catalogue.get(name)?.entry(self.0.durable, leases))
    }

    /// A name's versions, the current one first; nothing where there is no such name.
    pub fn history(&self, name: &AdapterName) -> Vec<VersionEntry> {
        let is_warm = |id| self.0.warm.leases(id).is_some();
        self.0
            .read(|catalogue| catalogue.get(name).map(|named| named.history(is_warm)))
            .unwrap_or_default()
    }

    /// Whether a request can name it.
    pub fn contains(&self, wanted: &AdapterRef) -> bool {
        self.0.read(|catalogue| catalogue.find(wanted).is_ok())
    }

    /// The published name with this number.
    pub fn numbered(&self, number: u64) -> Option<AdapterName> {
        self.0.read(|catalogue| catalogue.numbered(number).cloned())
    }

    /// What host memory holds.
    pub fn warm_usage(&self) -> WarmUsage {
        self.0.warm.usage()
    }

    /// Who did what. Others who change something write there too.
    pub fn events(&self) -> &EventLog {
        &self.0.events
    }

    /// What keeps the adapters.
    pub fn objects(&self) -> &Arc<dyn Objects> {
        self.0.vault.objects()
    }

    /// Whether what is published survives a restart.
    pub fn is_durable(&self) -> bool {
        self.0.durable
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
    pub(super) fn read<T>(&self, look: impl FnOnce(&Catalogue) -> T) -> T {
        look(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn write<T>(&self, change: impl FnOnce(&mut Catalogue) -> T) -> T {
        change(&mut self.catalogue.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for AdapterRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdapterRegistry").field("adapters", &self.len()).finish_non_exhaustive()
    }
}

/// Runs `work` where it may block. A panic in it is the store's failure, not the caller's.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AdapterError> + Send + 'static,
) -> Result<T, AdapterError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(io::Error::other(error).into()),
    }
}
