//! Items in one contiguous span a thread: each streams through its own memory, and who is done first helps.
use super::pool::Pool;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most spans; further threads help from the start.
const MOST: usize = 16;

/// How far a span's owner and its helpers are; a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct Cursor(AtomicUsize);

/// Calls `task` once for each of `0..items`, neighbours on the same thread as long as all are equally fast.
///
/// Each thread makes itself a state for all its items.
pub(super) fn spans<S>(
    pool: &Pool,
    items: usize,
    state: impl Fn() -> S + Sync,
    task: impl Fn(&mut S, usize) + Sync,
) {
    spans_to_the_end(pool, items, (state, |_| ()), task);
}

/// As [`spans`], and each thread has an `end` for its state.
pub(super) fn spans_to_the_end<S>(
    pool: &Pool,
    items: usize,
    (state, end): (impl Fn() -> S + Sync, impl Fn(S) + Sync),
    task: impl Fn(&mut S, usize) + Sync,
) {
    let threads = pool.threads();
    let count = threads.clamp(1, MOST);
    let cursors: [Cursor; MOST] = Default::default();
    let start = |span: usize| span * items / count;
    pool.run(threads, &|thread| {
        let mut state = state();
        for span in (0..count).map(|offset| (thread + offset) % count) {
            let len = start(span + 1) - start(span);
            loop {
                let item = cursors[span].0.fetch_add(1, Ordering::Relaxed);
                if item >= len {
                    break;
                }
                task(&mut state, start(span) + item);
            }
        }
        end(state);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_runs_once_whatever_the_threads() {
        for threads in [1, 2, 3, 20] {
            let pool = Pool::new(threads).unwrap();
            for items in [0, 1, 2, 7, 50] {
                let runs: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                let run = |(): &mut (), item: usize| {
                    runs[item].fetch_add(1, Ordering::Relaxed);
                };
                spans(&pool, items, || (), run);
                assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
            }
        }
    }
}
