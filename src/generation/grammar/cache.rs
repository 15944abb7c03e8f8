//! Compiled grammars, the latest used ones, within bounds.
use super::{GrammarError, compiler::Compiled, source::Key};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::OnceCell;

/// Most grammars kept.
const MAX_ENTRIES: usize = 128;
/// Most bytes they may take together.
const MAX_BYTES: usize = 64 << 20;
/// What an entry takes at least: a refusal is kept too, so that it need not be found out again.
const ENTRY_BYTES: usize = 1 << 10;

/// A grammar, or why there is none; empty while it is being compiled.
type Cell = OnceCell<Result<Arc<Compiled>, GrammarError>>;

/// By content. Whoever asks for one that is being compiled waits for it.
#[derive(Default)]
pub(super) struct Cache(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    by_key: HashMap<Key, Entry>,
    uses: u64,
}

struct Entry {
    cell: Arc<Cell>,
    last_use: u64,
    bytes: usize,
}

impl Cache {
    /// The place of `key`, and whether it had one already.
    pub(super) fn place(&self, key: Key) -> (Arc<Cell>, bool) {
        let mut entries = self.lock();
        entries.uses += 1;
        let last_use = entries.uses;
        let is_known = entries.by_key.contains_key(&key);
        let entry = entries.by_key.entry(key).or_insert_with(|| Entry {
            cell: Arc::default(),
            last_use,
            bytes: ENTRY_BYTES,
        });
        entry.last_use = last_use;
        let cell = entry.cell.clone();
        entries.make_room();
        (cell, is_known)
    }

    /// Books what came of `key`.
    pub(super) fn settle(&self, key: &Key, result: &Result<Arc<Compiled>, GrammarError>) {
        let mut entries = self.lock();
        match result {
            Err(error) if error.is_transient() => {
                entries.by_key.remove(key);
            }
            Err(_) => {}
            Ok(compiled) => {
                if let Some(entry) = entries.by_key.get_mut(key) {
                    entry.bytes = ENTRY_BYTES + compiled.bytes;
                }
                entries.make_room();
            }
        }
    }

    /// Whole values, changed in one go.
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Whoever still uses what goes keeps it.
    fn make_room(&mut self) {
        while self.by_key.len() > MAX_ENTRIES || self.bytes() > MAX_BYTES {
            let oldest = self.by_key.iter().min_by_key(|(_, entry)| entry.last_use);
            let Some(key) = oldest.map(|(key, _)| *key) else { return };
            self.by_key.remove(&key);
        }
    }

    fn bytes(&self) -> usize {
        self.by_key.values().map(|entry| entry.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llguidance::{Matcher, api::TopLevelGrammar};

    fn key(number: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        key
    }

    /// Of nothing, and so many bytes.
    fn compiled(bytes: usize) -> Arc<Compiled> {
        let none = TopLevelGrammar::from_tagged_str("nothing", "");
        let start = Matcher::new(none.map(|_| unreachable!("there is no such kind")));
        Arc::new(Compiled { start, end: 0, bytes })
    }

    fn known(cache: &Cache) -> Vec<usize> {
        let number = |key: &Key| usize::from(u16::from_le_bytes([key[0], key[1]]));
        let mut known: Vec<usize> = cache.lock().by_key.keys().map(number).collect();
        known.sort_unstable();
        known
    }

    #[test]
    fn the_latest_used_ones_stay_within_count_and_bytes() {
        let cache = Cache::default();
        for number in 0..MAX_ENTRIES {
            assert!(!cache.place(key(number)).1);
        }
        assert!(cache.place(key(0)).1);
        assert!(!cache.place(key(999)).1);
        let kept: Vec<usize> = std::iter::once(0).chain(2..MAX_ENTRIES).chain([999]).collect();
        assert_eq!(known(&cache), kept, "1 was used longest ago");

        for number in [5, 6, 7] {
            cache.place(key(number));
            cache.settle(&key(number), &Ok(compiled(MAX_BYTES / 2 - 2 * ENTRY_BYTES)));
        }
        assert_eq!(known(&cache), [6, 7], "two halves, and room for nothing else");
        assert!(cache.lock().bytes() <= MAX_BYTES);
        cache.settle(&key(7), &Ok(compiled(MAX_BYTES + 1)));
        assert_eq!(known(&cache), [0; 0], "what is larger than all is not kept");
    }

    #[test]
    fn a_refusal_stays_and_bad_luck_does_not() {
        let cache = Cache::default();
        for (number, error) in
            [GrammarError::Invalid(String::new()), GrammarError::Busy].into_iter().enumerate()
        {
            cache.place(key(number));
            cache.settle(&key(number), &Err(error));
        }
        assert_eq!(known(&cache), [0]);
    }
}
