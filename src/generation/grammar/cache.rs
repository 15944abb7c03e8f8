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
