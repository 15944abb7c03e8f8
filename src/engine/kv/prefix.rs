//! What a full block holds, as a hash over everything up to its end.
use crate::adapter::VersionId;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// SHA-256 over every token up to the end of the block and every adapter that has begun by then: version, weight
/// and where it began.
///
/// Keys and values depend on exactly that, so equal hashes may share a block, and a collision, which would answer
/// with somebody else's text, is out of reach: every list goes in with its length. What an adapter that begins later
/// does not change is the base's own block, for everybody.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(in crate::engine) struct BlockHash([u8; 32]);

impl BlockHash {
    /// Before the first block.
    const ROOT: Self = Self([0; 32]);

    /// Before the first block of those who share a secret: nobody else finds what comes after.
    fn salted(salt: &str) -> Self {
        let hasher = Sha256::new_with_prefix("lorad cache salt\0");
        Self(hasher.chain_update(salt).finalize().into())
    }

    /// The block after this one, in which `begun` begin. `start` is the position of its first token.
    fn next(self, start: usize, block: &[u32], begun: &[PrefixPart]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update((begun.len() as u64).to_le_bytes());
        for part in begun {
            hasher.update(part.version.0);
            hasher.update(part.weight.to_bits().to_le_bytes());
            hasher.update((part.from.saturating_sub(start) as u64).to_le_bytes());
        }
        hasher.update((block.len() as u64).to_le_bytes());
        for token in block {
            hasher.update(token.to_le_bytes());
        }
        Self(hasher.finalize().into())
    }
}

/// An adapter as far as keys and values depend on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct PrefixPart {
    pub(in crate::engine) version: VersionId,
    pub(in crate::engine) weight: f32,
    /// The first position it changes.
    pub(in crate::engine) from: usize,
}

/// Under which versions a block was computed; empty is the base model.
#[derive(Clone, Debug)]
pub(in crate::engine) struct BlockVersions {
    /// Of the whole sequence, the first to begin first.
    all: Arc<[VersionId]>,
    begun: usize,
}

impl BlockVersions {
    /// Whether `version` is one of them.
    pub(in crate::engine) fn contains(&self, version: VersionId) -> bool {
        self.all[..self.begun].contains(&version)
    }
}

/// One sequence's block hashes, the first block first.
#[derive(Debug)]
pub(in crate::engine) struct PrefixChain {
    /// The first to begin first, by version id where several begin together.
    parts: Vec<PrefixPart>,
    versions: Arc<[VersionId]>,
    root: BlockHash,
    hashes: Vec<BlockHash>,
    /// How many parts have begun by the end of each block.
    begun: Vec<usize>,
}

impl PrefixChain {
    /// Of a sequence under these adapters; no block is hashed yet.
    pub(in crate::engine) fn new(parts: impl IntoIterator<Item = PrefixPart>) -> Self {
        let mut parts: Vec<_> = parts.into_iter().collect();
        parts.sort_by_key(|part| (part.from, part.version));
        let versions = parts.iter().map(|part| part.version).collect();
        Self { parts, versions, root: BlockHash::ROOT, hashes: Vec::new(), begun: Vec::new() }
    }

    /// The same, shared with chains of this salt alone.
    pub(in crate::engine) fn salted(self, salt: &str) -> Self {
        Self { root: BlockHash::salted(salt), ..self }
    }

    /// Makes room for the hashes of `tokens` tokens.
    pub(in crate::engine) fn reserve(&mut self, tokens: usize, block_size: usize) {
        let blocks = tokens / block_size;
        self.hashes.reserve(blocks.saturating_sub(self.hashes.len()));
        self.begun.reserve(blocks.saturating_sub(self.begun.len()));
    }

    /// Hashes the blocks of `tokens` that are full and not hashed yet.
    pub(in crate::engine) fn extend(&mut self, tokens: &[u32], block_size: usize) {
        for (at, block) in tokens.chunks_exact(block_size).enumerate().skip(self.hashes.len()) {
            let start = at * block_size;
            let before = self.begun.last().copied().unwrap_or(0);
            let begun = self.parts.partition_point(|part| part.from < start + block_size);
            let last = self.hashes.last().copied().unwrap_or(self.root);
            self.hashes.push(last.next(start, block, &self.parts[before..begun]));
            self.begun.push(begun);
        }
    }

    /// The hashed blocks.
    pub(in crate::engine) fn hashes(&self) -> &[BlockHash] {
        &self.hashes
    }

    /// Block `at` and what it is computed under, once it is hashed.
    pub(in crate::engine) fn block(&self, at: usize) -> Option<(BlockHash, BlockVersions)> {
        let begun = *self.begun.get(at)?;
        Some((*self.hashes.get(at)?, BlockVersions { all: self.versions.clone(), begun }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, weight: f32, from: usize) -> PrefixPart {
        PrefixPart { version: VersionId::of(&[name.as_bytes()]), weight, from }
    }

    fn chain(parts: &[PrefixPart], tokens: &[u32]) -> Vec<BlockHash> {
        let mut chain = PrefixChain::new(parts.iter().copied());
        chain.extend(tokens, 2);
        chain.hashes().to_vec()
    }

    #[test]
    fn a_block_is_known_by_its_adapters_and_everything_before_it() {
        let base = chain(&[], &[1, 2, 3, 4, 5]);
        assert_eq!(base.len(), 2, "the third block is not full");
        assert_eq!(base[0], chain(&[], &[1, 2, 9, 9])[0]);
        assert_ne!(base[1], chain(&[], &[9, 9, 3, 4])[1]);
        let (a, b) = (part("a", 0.7, 0), part("b", 0.3, 0));
        let other = |name, weight| chain(&[part(name, weight, 0)], &[1, 2])[0];
        let mixed = chain(&[a, b], &[1, 2])[0];
        let hashes = [base[0], other("a", 0.7), other("a", 0.3), other("b", 0.7), mixed];
        for (at, hash) in hashes.iter().enumerate() {
            assert!(!hashes[at + 1..].contains(hash), "{at}");
        }
        assert_eq!(chain(&[b, a], &[1, 2])[0], mixed);
    }

    #[test]
    fn what_comes_before_an_adapter_begins_is_the_base_s() {
        let tokens = [1, 2, 3, 4, 5, 6];
        let base = chain(&[], &tokens);
        let late = chain(&[part("a", 1.0, 3)], &tokens);
        assert_eq!(late[0], base[0]);
        assert_ne!(late[1], base[1]);
        assert_ne!(late[2], base[2]);
        assert_ne!(late[1], chain(&[part("a", 1.0, 2)], &tokens)[1], "it began elsewhere");
        let with_plain = chain(&[part("a", 1.0, 3), part("b", 1.0, 0)], &tokens);
        assert_eq!(with_plain[0], chain(&[part("b", 1.0, 0)], &tokens)[0]);

        let mut chain = PrefixChain::new([part("a", 1.0, 3), part("b", 1.0, 0)]);
        chain.extend(&tokens, 2);
        let version = |name: &str| VersionId::of(&[name.as_bytes()]);
        let under = |at, name| chain.block(at).expect("hashed").1.contains(version(name));
        assert!(under(0, "b") && under(1, "b"));
        assert!(!under(0, "a") && under(1, "a") && under(2, "a"));
        assert!(chain.block(3).is_none());
    }

    #[test]
    fn only_the_same_salt_finds_a_block_again() {
        let salted = |salt: &str| {
            let mut chain = PrefixChain::new([part("a", 1.0, 0)]).salted(salt);
            chain.extend(&[1, 2, 3, 4], 2);
            chain.hashes().to_vec()
        };
        let plain = chain(&[part("a", 1.0, 0)], &[1, 2, 3, 4]);
        assert_eq!(salted("one"), salted("one"));
        for (one, other) in [(salted("one"), salted("two")), (salted(""), plain)] {
            assert!(one.iter().all(|hash| !other.contains(hash)));
        }
    }

    #[test]
    fn growing_hashes_as_the_whole_does() {
        let tokens: Vec<u32> = (0..9).collect();
        let parts = [part("a", 1.0, 5), part("b", 1.0, 4), part("c", 1.0, 0)];
        let mut grown = PrefixChain::new(parts);
        for end in 0..=tokens.len() {
            grown.extend(&tokens[..end], 2);
        }
        assert_eq!(grown.hashes(), chain(&parts, &tokens));
    }
}
