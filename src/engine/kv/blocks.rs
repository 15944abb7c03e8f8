//! A free list with reference counts and an index of what free and used blocks still hold.
use super::prefix::{BlockHash, BlockVersions, PrefixChain};
use crate::adapter::VersionId;
use std::collections::{BTreeMap, HashMap};

/// Index of a block.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(in crate::engine) struct BlockId(pub(in crate::engine) u32);

/// Hands out blocks. Every block is free, or held by one or more sequences; never both.
///
/// A free block keeps its content until it is handed out again, so a later sequence with the same
/// beginning takes it as it is. Only full blocks are shared, and nobody writes to a full block.
#[derive(Debug)]
pub(in crate::engine) struct BlockAllocator {
    blocks: Vec<Block>,
    /// Free, content unknown.
    empty: Vec<BlockId>,
    /// Free, content in the index; the key is when it was freed.
    cached: BTreeMap<u64, BlockId>,
    index: HashMap<BlockHash, BlockId>,
    clock: u64,
}

#[derive(Clone, Debug, Default)]
struct Block {
    users: u32,
    content: Option<Content>,
    freed_at: u64,
}

#[derive(Clone, Debug)]
struct Content {
    hash: BlockHash,
    versions: BlockVersions,
}

impl BlockAllocator {
    /// `blocks` free blocks.
    pub(in crate::engine) fn new(blocks: usize) -> Self {
        Self {
            blocks: vec![Block::default(); blocks],
            empty: (0..blocks as u32).rev().map(BlockId).collect(),
            cached: BTreeMap::new(),
            // Twice as many as there can be: making room for the next never moves them to a larger one.
            index: HashMap::with_capacity(2 * blocks),
            clock: 0,
        }
    }

    /// Blocks that can be handed out now.
    pub(in crate::engine) fn available(&self) -> usize {
        self.empty.len() + self.cached.len()
    }

    /// Blocks that sequences hold.
    pub(in crate::engine) fn used(&self) -> usize {
        self.blocks.len() - self.available()
    }

    /// All `n` at the end of `table`, or none. Whether they are there.
    #[must_use]
    pub(in crate::engine) fn allocate(&mut self, n: usize, table: &mut Vec<BlockId>) -> bool {
        if self.available() < n {
            return false;
        }
        table.extend((0..n).map_while(|_| self.take()));
        true
    }

    fn take(&mut self) -> Option<BlockId> {
        let id = match self.empty.pop() {
            Some(id) => id,
            None => self.cached.pop_first()?.1,
        };
        self.unindex(id);
        self.block(id).users = 1;
        Some(id)
    }

    /// The blocks that hold the longest known beginning of `chain`, at most `limit` of them.
    pub(in crate::engine) fn lookup(&self, chain: &PrefixChain, limit: usize) -> Vec<BlockId> {
        chain.hashes().iter().take(limit).map_while(|hash| self.index.get(hash).copied()).collect()
    }

    /// How many of `blocks` are free, so that sharing them makes fewer available.
    pub(in crate::engine) fn free_among(&self, blocks: &[BlockId]) -> usize {
        blocks.iter().filter(|id| self.blocks[id.0 as usize].users == 0).count()
    }

    /// Makes the caller one more holder of each of `blocks`, which [`BlockAllocator::lookup`] found.
    pub(in crate::engine) fn share(&mut self, blocks: &[BlockId]) {
        for id in blocks {
            let block = &mut self.blocks[id.0 as usize];
            if block.users == 0 {
                self.cached.remove(&block.freed_at);
            }
            block.users += 1;
        }
    }

    /// Block `at` of `chain` lies complete in `id`. The first block with a content is the one to share.
    pub(in crate::engine) fn register(&mut self, id: BlockId, chain: &PrefixChain, at: usize) {
        let Some((hash, versions)) = chain.block(at) else { return };
        if self.index.contains_key(&hash) {
            return;
        }
        self.unindex(id);
        self.block(id).content = Some(Content { hash, versions });
        self.index.insert(hash, id);
    }

    /// Gives a sequence's blocks back, in the order of its table.
    pub(in crate::engine) fn release(&mut self, table: &[BlockId]) {
        // From the end: a beginning is of use to more sequences, so it should be the last to go.
        for &id in table.iter().rev() {
            self.clock += 1;
            let freed_at = self.clock;
            let block = self.block(id);
            block.users -= 1;
            if block.users > 0 {
                continue;
            }
            block.freed_at = freed_at;
            if block.content.is_some() {
                self.cached.insert(freed_at, id);
            } else {
                self.empty.push(id);
            }
        }
    }

    /// Forgets the content of every block computed under `version`, alone or in a mix.
    pub(in crate::engine) fn forget(&mut self, version: VersionId) {
        for id in (0..self.blocks.len() as u32).map(BlockId) {
            let block = &self.blocks[id.0 as usize];
            let under = |content: &Content| content.versions.contains(version);
            if !block.content.as_ref().is_some_and(under) {
                continue;
            }
            if block.users == 0 {
                self.cached.remove(&block.freed_at);
                self.empty.push(id);
            }
            self.unindex(id);
        }
    }

    fn unindex(&mut self, id: BlockId) {
        if let Some(content) = self.block(id).content.take() {
            self.index.remove(&content.hash);
        }
    }

    fn block(&mut self, id: BlockId) -> &mut Block {
        &mut self.blocks[id.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::{super::PrefixPart, *};
    use proptest::prelude::*;

    const BLOCK_SIZE: usize = 2;

    /// All of the version from the first position on.
    fn whole(version: VersionId) -> PrefixPart {
        PrefixPart { version, weight: 1.0, from: 0 }
    }

    fn chain(parts: impl IntoIterator<Item = PrefixPart>, tokens: &[u32]) -> PrefixChain {
        let mut chain = PrefixChain::new(parts);
        chain.extend(tokens, BLOCK_SIZE);
        chain
    }

    /// Computes `tokens` as a sequence does: shares what is known, allocates and registers the rest.
    fn hold(blocks: &mut BlockAllocator, chain: &PrefixChain) -> Option<Vec<BlockId>> {
        let mut table = blocks.lookup(chain, usize::MAX);
        let missing = chain.hashes().len() - table.len();
        if blocks.available() - blocks.free_among(&table) < missing {
            return None;
        }
        blocks.share(&table);
        assert!(blocks.allocate(missing, &mut table), "as many as are available");
        for (at, id) in table.iter().enumerate() {
            blocks.register(*id, chain, at);
        }
        Some(table)
    }

    #[test]
    fn a_released_beginning_is_found_again_and_the_end_goes_first() {
        let mut blocks = BlockAllocator::new(3);
        let known = chain([], &[1, 2, 3, 4, 5, 6]);
        let table = hold(&mut blocks, &known).expect("room");
        blocks.release(&table);
        assert_eq!((blocks.available(), blocks.used()), (3, 0));
        assert_eq!(blocks.lookup(&known, usize::MAX), table);

        let mut taken = Vec::new();
        assert!(blocks.allocate(1, &mut taken));
        assert_eq!(taken, table[2..], "the last block of the chain is evicted first");
        assert_eq!(blocks.lookup(&known, usize::MAX), table[..2]);
    }

    #[test]
    fn a_forgotten_version_leaves_free_blocks_without_content() {
        let mut blocks = BlockAllocator::new(4);
        let version = VersionId::of(&[b"a"]);
        let (old, base) = (chain([whole(version)], &[1, 2]), chain([], &[1, 2]));
        let held = hold(&mut blocks, &old).expect("room");
        let kept = hold(&mut blocks, &base).expect("room");
        assert_ne!(held, kept);
        blocks.release(&kept);
        blocks.forget(version);
        assert!(blocks.lookup(&old, usize::MAX).is_empty());
        assert_eq!(blocks.lookup(&base, usize::MAX), kept);
        blocks.release(&held);
        assert_eq!(blocks.available(), 4);
    }

    #[test]
    fn a_forgotten_version_takes_the_mixes_it_is_in_with_it_and_not_what_came_before() {
        let mut blocks = BlockAllocator::new(8);
        let (a, b) = (VersionId::of(&[b"a"]), VersionId::of(&[b"b"]));
        let late = PrefixPart { version: a, weight: 0.5, from: 3 };
        let mixed = chain([whole(b), late], &[1, 2, 3, 4, 5, 6]);
        let table = hold(&mut blocks, &mixed).expect("room");
        blocks.release(&table);
        blocks.forget(a);
        assert_eq!(blocks.lookup(&mixed, usize::MAX), table[..1], "only `b` had begun there");
        blocks.forget(b);
        assert!(blocks.lookup(&mixed, usize::MAX).is_empty());
        assert_eq!(blocks.available(), 8);
    }

    proptest! {
        #[test]
        fn no_block_is_owned_twice_and_all_come_back(
            steps in prop::collection::vec((0_u8..4, prop::collection::vec(0_u32..2, 0..12)), 1..60),
        ) {
            const BLOCKS: usize = 12;
            let version = VersionId::of(&[b"v"]);
            let mut blocks = BlockAllocator::new(BLOCKS);
            let mut held: Vec<(Vec<BlockId>, PrefixChain)> = Vec::new();
            for (action, tokens) in steps {
                let adapter = (tokens.len() % 2 == 0).then_some(whole(version));
                match action {
                    0 | 1 => {
                        let chain = chain(adapter, &tokens);
                        held.extend(hold(&mut blocks, &chain).map(|table| (table, chain)));
                    }
                    2 if !held.is_empty() => {
                        let (table, _) = held.swap_remove(tokens.len() % held.len());
                        blocks.release(&table);
                    }
                    _ => blocks.forget(version),
                }
                let mut owners: HashMap<BlockId, BlockHash> = HashMap::new();
                for (table, chain) in &held {
                    for (id, hash) in table.iter().zip(chain.hashes()) {
                        let first = owners.insert(*id, *hash);
                        prop_assert!(first.is_none_or(|other| other == *hash), "two contents");
                    }
                }
                prop_assert_eq!(blocks.used(), owners.len());
            }
            for (table, _) in held {
                blocks.release(&table);
            }
            prop_assert_eq!(blocks.available(), BLOCKS);
            prop_assert!(blocks.allocate(BLOCKS, &mut Vec::new()));
        }
    }
}
