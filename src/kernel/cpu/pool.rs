//! A few threads that share the items of one job after another.
#![expect(
    unsafe_code,
    reason = "a job on the caller's stack, and pieces of one slice for its items"
)]
use std::any::Any;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{JoinHandle, yield_now};
use std::time::{Duration, Instant};

/// How long an idle worker watches for the next job before it sleeps: longer than the gap between two
/// steps of a busy server, far shorter than that between two requests of an idle one.
const WATCH: Duration = Duration::from_micros(300);

/// How much of that it keeps its core to itself: longer than the gap between two operations of a step.
/// From then on whoever has something to do goes first.
const SPIN: Duration = Duration::from_micros(10);

/// Threads of the kernels; the caller of [`Pool::run`] is one of them.
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    turn: Mutex<()>,
}

struct Shared {
    gate: Mutex<Gate>,
    /// Jobs so far; what idle workers watch.
    jobs: AtomicUsize,
    /// Workers inside the current job; goes up only under the gate's lock.
    inside: AtomicUsize,
    opened: Condvar,
    emptied: Condvar,
}

#[derive(Default)]
struct Gate {
    job: Option<&'static Job<'static>>,
    sleeping: usize,
    caller_waits: bool,
    closed: bool,
}

/// One call of [`Pool::run`].
struct Job<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    items: usize,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Pool {
    /// `threads` in all, at least one.
    ///
    /// # Errors
    /// When the system starts no more threads.
    pub(super) fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            gate: Mutex::default(),
            jobs: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            opened: Condvar::new(),
            emptied: Condvar::new(),
        });
        let mut pool = Self { shared, workers: Vec::new(), turn: Mutex::default() };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new().name(format!("kernel-{index}"));
            pool.workers.push(worker.spawn(move || shared.work())?);
        }
        Ok(pool)
    }

    /// How many threads share a job.
    pub(super) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` once for each of `0..items`, on all threads, and returns when every call has.
    ///
    /// While another thread (or an outer call) has the workers, the caller does everything itself.
    ///
    /// # Panics
    /// With the panic of an item, after all threads have left the job.
    pub(super) fn run(&self, items: usize, task: &(dyn Fn(usize) + Sync)) {
        let turn = match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if items < 2 || self.workers.is_empty() || turn.is_none() {
            return (0..items).for_each(task);
        }
        let job = Job { task, items, next: AtomicUsize::new(0), panic: Mutex::default() };
        let opened = Opened::new(&self.shared, &job);
        job.drain();
        drop(opened);
        drop(turn);
        if let Some(panic) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }

    /// Calls `task` with every chunk of `values` and its index; the last chunk may be shorter.
    pub(super) fn chunks<T: Send>(
        &self,
        values: &mut [T],
        chunk: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let (len, chunk) = (values.len(), chunk.max(1));
        let items = len.div_ceil(chunk);
        let pieces = Pieces::new(values);
        self.run(items, &|item| {
            let start = item * chunk;
            // SAFETY: every item has its own range, and no item runs twice.
            let piece = unsafe { pieces.piece(start..(start + chunk).min(len)) };
            task(item, piece);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut gate = lock(&self.shared.gate);
        gate.closed = true;
        self.shared.jobs.fetch_add(1, Ordering::Release);
        drop(gate);
        self.shared.opened.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches its items' panics, so there is nothing to report here.
            let _ended = worker.join();
        }
    }
}

/// The gate stands open for a job; dropping it lets nobody in and waits until all are out.
struct Opened<'a>(&'a Shared);

impl<'a> Opened<'a> {
    fn new(shared: &'a Shared, job: &Job<'_>) -> Self {
        // SAFETY: workers get the reference only through the gate and drop it before they leave; this
        // guard's drop empties the gate and waits for the last one, and the guard does not leave `run`,
        // which owns the job.
        let job = unsafe { std::mem::transmute::<&Job<'_>, &'static Job<'static>>(job) };
        let mut gate = lock(&shared.gate);
        gate.job = Some(job);
        shared.jobs.fetch_add(1, Ordering::Release);
        let anybody_sleeps = gate.sleeping > 0;
        // Or whom it wakes would wait for the gate at once.
        drop(gate);
        if anybody_sleeps {
            shared.opened.notify_all();
        }
        Self(shared)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        let shared = self.0;
        lock(&shared.gate).job = None;
        let empty = || shared.inside.load(Ordering::Acquire) == 0;
        if watch(empty) {
            return;
        }
        let mut gate = lock(&shared.gate);
        gate.caller_waits = true;
        while !empty() {
            gate = shared.emptied.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
        gate.caller_waits = false;
    }
}

impl Shared {
    /// A worker's life.
    fn work(&self) {
        let mut seen = 0;
        while let Some(job) = self.enter(&mut seen) {
            job.drain();
            self.leave();
        }
    }

    /// Waits for a job not seen yet; `None` when the pool closes.
    fn enter(&self, seen: &mut usize) -> Option<&'static Job<'static>> {
        loop {
            watch(|| self.jobs.load(Ordering::Acquire) != *seen);
            let mut gate = lock(&self.gate);
            while self.jobs.load(Ordering::Acquire) == *seen {
                gate.sleeping += 1;
                gate = self.opened.wait(gate).unwrap_or_else(PoisonError::into_inner);
                gate.sleeping -= 1;
            }
            *seen = self.jobs.load(Ordering::Acquire);
            if gate.closed {
                return None;
            }
            if let Some(job) = gate.job {
                self.inside.fetch_add(1, Ordering::AcqRel);
                return Some(job);
            }
        }
    }

    fn leave(&self) {
        if self.inside.fetch_sub(1, Ordering::AcqRel) == 1 && lock(&self.gate).caller_waits {
            self.emptied.notify_one();
        }
    }
}

impl Job<'_> {
    /// Takes items until none is left; the first panic ends the job for everyone.
    fn drain(&self) {
        let items = || {
            loop {
                let item = self.next.fetch_add(1, Ordering::Relaxed);
                if item >= self.items {
                    return;
                }
                (self.task)(item);
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(items)) {
            self.next.store(self.items, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }
}

/// Watches for a moment until `ready`; says whether it came to be.
fn watch(ready: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..8 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        let watched = start.elapsed();
        if watched > WATCH {
            return false;
        }
        if watched > SPIN {
            yield_now();
        }
    }
}

/// Every lock here guards plain values that are whole at each step, so a poisoned one is good as it is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A slice whose parts are written by different threads.
pub(super) struct Pieces<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out `&mut [T]` to other threads, which `T: Send` permits, and shares only what is `Sync`.
unsafe impl<T: Send> Sync for Pieces<'_, T> {}

impl<'a, T> Pieces<'a, T> {
    /// Of `values`, which stay borrowed.
    pub(super) fn new(values: &'a mut [T]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len(), borrow: PhantomData }
    }

    /// Where a part begins, for whoever takes only some of its elements.
    ///
    /// # Panics
    /// When `range` is outside the slice.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "for tiles, which x86 alone has")
    )]
    pub(super) fn start_of(&self, range: Range<usize>) -> *mut T {
        assert!(range.start <= range.end && range.end <= self.len, "a piece of {}", self.len);
        self.start.wrapping_add(range.start)
    }

    /// One part.
    ///
    /// # Safety
    /// No two parts that live at the same time overlap.
    ///
    /// # Panics
    /// When `range` is outside the slice.
    #[expect(clippy::mut_from_ref, reason = "the caller vouches that parts are disjoint")]
    pub(super) unsafe fn piece(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a piece of {}", self.len);
        // SAFETY: inside the slice, by the assertion.
        let start = unsafe { self.start.add(range.start) };
        // SAFETY: inside the slice, which is borrowed for 'a; disjoint from others by contract.
        unsafe { std::slice::from_raw_parts_mut(start, range.len()) }
    }

    /// One part that is finished.
    ///
    /// # Safety
    /// Nobody writes to it any more, and this thread has seen that.
    ///
    /// # Panics
    /// When `range` is outside the slice.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "for tiles, which x86 alone has")
    )]
    pub(super) unsafe fn finished(&self, range: Range<usize>) -> &[T]
    where
        T: Sync,
    {
        assert!(range.start <= range.end && range.end <= self.len, "a piece of {}", self.len);
        // SAFETY: inside the slice, by the assertion.
        let start = unsafe { self.start.add(range.start) };
        // SAFETY: inside the slice, which is borrowed for 'a; not written to, by contract.
        unsafe { std::slice::from_raw_parts(start, range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_runs_exactly_once_in_every_job() {
        let pool = Pool::new(3).unwrap();
        for items in [0, 1, 2, 7, 100] {
            let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..20 {
                pool.run(items, &|item| {
                    counts[item].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 20));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_still_works() {
        let pool = Pool::new(2).unwrap();
        for _ in 0..3 {
            let job = AssertUnwindSafe(|| pool.run(8, &|item| assert!(item != 5, "item five")));
            let panic = catch_unwind(job).unwrap_err();
            assert!(panic.downcast_ref::<&str>().is_some_and(|text| text.contains("five")));
        }
        let sum = AtomicUsize::new(0);
        pool.run(5, &|item| {
            sum.fetch_add(item, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 10);
    }

    #[test]
    fn a_job_inside_a_job_and_jobs_from_two_threads_end() {
        let pool = Pool::new(2).unwrap();
        let sum = AtomicUsize::new(0);
        let add = |item| {
            sum.fetch_add(item, Ordering::Relaxed);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| pool.run(4, &|_| pool.run(3, &add)));
            pool.run(4, &|_| pool.run(3, &add));
        });
        assert_eq!(sum.into_inner(), 2 * 4 * 3);
    }

    #[test]
    fn chunks_cover_the_slice() {
        let pool = Pool::new(2).unwrap();
        let mut values = vec![0; 103];
        pool.chunks(&mut values, 10, |index, chunk| chunk.fill(index));
        assert!(values.iter().enumerate().all(|(i, value)| *value == i / 10));
    }
}
