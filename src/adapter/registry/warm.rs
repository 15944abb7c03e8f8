//! The host tier: parsed versions, as many as a budget of bytes holds, and one reader for each that is missing.
use super::entry::WarmUsage;
use crate::adapter::{AdapterError, AdapterVersion, VersionId};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Reads at one time. Each holds an adapter's files beside its weights.
const READERS: usize = 2;
/// For so long a failed read's error answers for the next one: a broken file is not read for every request.
const FAILURE: Duration = Duration::from_secs(1);

/// Versions in host memory. The least recently leased one goes first; one that is leased or pinned never goes.
#[derive(Debug)]
pub(super) struct Warm {
    shelf: Mutex<Shelf>,
    budget: Budget,
    readers: Arc<Semaphore>,
}

/// What the shelf may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) bytes: u64,
    /// 0 for any.
    pub(super) versions: usize,
}

#[derive(Debug, Default)]
struct Shelf {
    versions: HashMap<VersionId, Kept>,
    /// Versions that no name means any more: they live as long as their leases.
    departed: HashMap<VersionId, Weak<AdapterVersion>>,
    reading: HashMap<VersionId, Weak<tokio::sync::Mutex<()>>>,
    failures: HashMap<VersionId, (Instant, Arc<AdapterError>)>,
    pinned: HashSet<VersionId>,
    clock: u64,
    usage: WarmUsage,
}

#[derive(Debug)]
struct Kept {
    version: Arc<AdapterVersion>,
    bytes: u64,
    used_at: u64,
}

impl Warm {
    pub(super) fn new(budget: Budget) -> Self {
        Self { shelf: Mutex::default(), budget, readers: Arc::new(Semaphore::new(READERS)) }
    }

    /// A version that is in memory, which counts as its use.
    pub(super) fn get(&self, id: VersionId) -> Option<Arc<AdapterVersion>> {
        self.lock().get(id)
    }

    /// How many leases a version has; `None` when it is not in memory.
    pub(super) fn leases(&self, id: VersionId) -> Option<usize> {
        let shelf = self.lock();
        if let Some(kept) = shelf.versions.get(&id) {
            // The shelf's own is not a lease.
            return Some(Arc::strong_count(&kept.version) - 1);
        }
        shelf.departed.get(&id).map(Weak::strong_count).filter(|leases| *leases > 0)
    }

    /// Puts a version on the shelf, and lets others go for it.
    pub(super) fn keep(&self, version: Arc<AdapterVersion>) {
        let mut shelf = self.lock();
        shelf.departed.remove(&version.id);
        shelf.keep(version);
        shelf.make_room(self.budget);
    }

    /// No name means the version any more: it goes with its last lease.
    pub(super) fn depart(&self, id: VersionId) {
        let mut shelf = self.lock();
        shelf.departed.retain(|_, version| version.strong_count() > 0);
        if let Some(kept) = shelf.versions.remove(&id) {
            shelf.usage.bytes -= kept.bytes;
            shelf.departed.insert(id, Arc::downgrade(&kept.version));
        }
    }

    /// These are not let go.
    pub(super) fn pin(&self, pinned: HashSet<VersionId>) {
        let mut shelf = self.lock();
        shelf.pinned = pinned;
        shelf.make_room(self.budget);
    }

    /// What is in memory.
    pub(super) fn usage(&self) -> WarmUsage {
        let shelf = self.lock();
        WarmUsage { versions: shelf.versions.len(), ..shelf.usage }
    }

    /// The version from memory, or else what `read` makes of it on the blocking pool: once, however many ask at one
    /// time, and to its end, whoever leaves.
    pub(super) async fn get_or_read(
        self: &Arc<Self>,
        id: VersionId,
        read: impl FnOnce() -> Result<Arc<AdapterVersion>, AdapterError> + Send + 'static,
    ) -> Result<Arc<AdapterVersion>, AdapterError> {
        if let Some(version) = self.get(id) {
            return Ok(version);
        }
        let turn = self.turn(id).lock_owned().await;
        if let Some(found) = self.settled(id) {
            return found;
        }
        let reader = Arc::clone(&self.readers).acquire_owned().await;
        let warm = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            // Whoever waits for this version waits for the end of this.
            let (_turn, _reader) = (turn, reader);
            let done = read().map_err(Arc::new);
            warm.settle(id, &done);
            done
        });
        match done.await {
            Ok(done) => done.map_err(AdapterError::Unreadable),
            Err(error) => Err(std::io::Error::other(error).into()),
        }
    }

    /// What somebody else's read came to, a moment ago.
    fn settled(&self, id: VersionId) -> Option<Result<Arc<AdapterVersion>, AdapterError>> {
        let mut shelf = self.lock();
        if let Some(version) = shelf.get(id) {
            return Some(Ok(version));
        }
        let (at, error) = shelf.failures.get(&id)?;
        (at.elapsed() < FAILURE).then(|| Err(AdapterError::Unreadable(Arc::clone(error))))
    }

    fn settle(&self, id: VersionId, done: &Result<Arc<AdapterVersion>, Arc<AdapterError>>) {
        let mut shelf = self.lock();
        shelf.failures.retain(|_, (at, _)| at.elapsed() < FAILURE);
        match done {
            Ok(version) => {
                shelf.usage.reads += 1;
                shelf.keep(Arc::clone(version));
                shelf.make_room(self.budget);
            }
            Err(error) => {
                shelf.failures.insert(id, (Instant::now(), Arc::clone(error)));
            }
        }
    }

    /// Its holder is the one that reads `id`.
    fn turn(&self, id: VersionId) -> Arc<tokio::sync::Mutex<()>> {
        self.lock().turn(id)
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn get(&mut self, id: VersionId) -> Option<Arc<AdapterVersion>> {
        self.clock += 1;
        if let Some(kept) = self.versions.get_mut(&id) {
            kept.used_at = self.clock;
            return Some(Arc::clone(&kept.version));
        }
        self.departed.get(&id)?.upgrade()
    }

    fn keep(&mut self, version: Arc<AdapterVersion>) {
        self.clock += 1;
        let (id, bytes) = (version.id, version.weights.bytes() as u64);
        let kept = Kept { version, bytes, used_at: self.clock };
        self.usage.bytes += bytes;
        if let Some(former) = self.versions.insert(id, kept) {
            self.usage.bytes -= former.bytes;
        }
    }

    fn turn(&mut self, id: VersionId) -> Arc<tokio::sync::Mutex<()>> {
        self.reading.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = self.reading.get(&id).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        self.reading.insert(id, Arc::downgrade(&turn));
        turn
    }

    fn make_room(&mut self, budget: Budget) {
        let most = if budget.versions == 0 { usize::MAX } else { budget.versions };
        while self.usage.bytes > budget.bytes || self.versions.len() > most {
            let unused = self.versions.iter().filter(|(id, kept)| {
                Arc::strong_count(&kept.version) == 1 && !self.pinned.contains(id)
            });
            let Some(id) = unused.min_by_key(|(_, kept)| kept.used_at).map(|(id, _)| *id) else {
                return;
            };
            if let Some(kept) = self.versions.remove(&id) {
                self.usage.bytes -= kept.bytes;
                self.usage.evictions += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::{LoraWeights, LowRank, Projection, Site};
    use candle_core::{DType, Device, Tensor};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// 64 bytes of content `number`.
    fn version(number: u8) -> Arc<AdapterVersion> {
        let zeros = || Tensor::zeros((1, 8), DType::F32, &Device::Cpu).expect("zeros");
        let pair = LowRank::new(zeros(), zeros()).expect("a pair");
        let weights = LoraWeights::from_iter([(Site::block(0, Projection::O), pair)]);
        Arc::new(AdapterVersion { id: VersionId([number; 32]), weights })
    }

    fn bytes(bytes: u64) -> Budget {
        Budget { bytes, versions: 0 }
    }

    fn is_warm(warm: &Warm) -> Vec<bool> {
        (0..3).map(|n| warm.leases(VersionId([n; 32])).is_some()).collect()
    }

    #[test]
    fn the_least_recently_leased_goes_first_and_a_leased_one_never() {
        let warm = Warm::new(bytes(128));
        warm.keep(version(0));
        warm.keep(version(1));
        assert_eq!(warm.usage(), WarmUsage { versions: 2, bytes: 128, ..WarmUsage::default() });
        warm.get(VersionId([0; 32])).expect("in memory");
        warm.keep(version(2));
        assert_eq!(is_warm(&warm), [true, false, true]);
        let lease = warm.get(VersionId([0; 32])).expect("in memory");
        warm.get(VersionId([2; 32])).expect("in memory");
        warm.keep(version(1));
        assert_eq!(is_warm(&warm), [true, true, false], "the first one is leased");
        drop(lease);
        warm.pin(HashSet::from([VersionId([0; 32])]));
        warm.keep(version(2));
        assert_eq!(is_warm(&warm), [true, false, true], "the first one is pinned");
        assert_eq!(warm.usage().evictions, 3);
    }

    #[test]
    fn a_count_bounds_them_as_their_bytes_do() {
        let warm = Warm::new(Budget { bytes: 1 << 20, versions: 2 });
        for number in 0..3 {
            warm.keep(version(number));
        }
        assert_eq!(is_warm(&warm), [false, true, true]);
    }

    #[test]
    fn a_departed_version_lives_as_long_as_its_leases() {
        let warm = Warm::new(bytes(1 << 20));
        warm.keep(version(0));
        let lease = warm.get(VersionId([0; 32])).expect("in memory");
        warm.depart(lease.id);
        assert_eq!((warm.usage().bytes, warm.leases(lease.id)), (0, Some(1)));
        assert!(warm.get(lease.id).is_some());
        let id = lease.id;
        drop(lease);
        assert!(warm.get(id).is_none());
    }

    #[tokio::test]
    async fn one_reads_and_all_have_it() {
        let warm = Arc::new(Warm::new(bytes(1 << 20)));
        let reads = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let reads = Arc::clone(&reads);
            warm.get_or_read(VersionId([7; 32]), move || {
                reads.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
                Ok(version(7))
            })
        };
        let all = futures_util::future::join_all((0..50).map(|_| ask())).await;
        assert!(all.into_iter().all(|found| found.is_ok()));
        assert_eq!((reads.load(Ordering::SeqCst), warm.usage().reads), (1, 1));
    }

    #[tokio::test]
    async fn a_failure_answers_for_all_who_waited() {
        let warm = Arc::new(Warm::new(bytes(1 << 20)));
        let reads = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let reads = Arc::clone(&reads);
            warm.get_or_read(VersionId([7; 32]), move || {
                reads.fetch_add(1, Ordering::SeqCst);
                Err(AdapterError::invalid("broken"))
            })
        };
        let all = futures_util::future::join_all((0..5).map(|_| ask())).await;
        for found in all {
            assert_eq!(found.expect_err("broken").to_string(), "broken");
        }
        assert_eq!(reads.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn whoever_leaves_leaves_the_read_to_the_others() {
        let warm = Arc::new(Warm::new(bytes(1 << 20)));
        let slow = warm.get_or_read(VersionId([7; 32]), || {
            std::thread::sleep(Duration::from_millis(50));
            Ok(version(7))
        });
        tokio::time::timeout(Duration::from_millis(5), slow).await.expect_err("left");
        let found = warm.get_or_read(VersionId([7; 32]), || Err(AdapterError::invalid("twice")));
        assert!(found.await.is_ok());
    }
}
