//! What a full block holds, as a hash over everything up to its end.
use crate::adapter::VersionId;
use sha2::{Digest, Sha256};

/// SHA-256 over the adapter version and every token up to the end of the block.
///
/// Keys and values depend on exactly that, so equal hashes may share a block, and a collision, which
/// would answer with somebody else's text, is out of reach.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(in crate::engine) struct BlockHash([u8; 32]);

impl BlockHash {
    fn root(adapter: Option<VersionId>) -> Self {
        let mut hasher = Sha256::new();
        match adapter {
            None => hasher.update([0]),
            Some(VersionId(id)) => {
                hasher.update([1]);
                hasher.update(id);
            }
        }
        Self(hasher.finalize().into())
    }

    fn next(self, block: &[u32]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        for token in block {
            hasher.update(token.to_le_bytes());
        }
        Self(hasher.finalize().into())
    }
}

/// One sequence's block hashes, the first block first.
#[derive(Debug)]
pub(in crate::engine) struct PrefixChain {
    adapter: Option<VersionId>,
    hashes: Vec<BlockHash>,
}

impl PrefixChain {
    /// Of a sequence under `adapter`; no block is hashed yet.
    pub(in crate::engine) fn new(adapter: Option<VersionId>) -> Self {
        Self { adapter, hashes: Vec::new() }
    }

    /// Makes room for the hashes of `tokens` tokens.
    pub(in crate::engine) fn reserve(&mut self, tokens: usize, block_size: usize) {
        let blocks = tokens / block_size;
        self.hashes.reserve(blocks.saturating_sub(self.hashes.len()));
    }

    /// Hashes the blocks of `tokens` that are full and not hashed yet.
    pub(in crate::engine) fn extend(&mut self, tokens: &[u32], block_size: usize) {
        for block in tokens.chunks_exact(block_size).skip(self.hashes.len()) {
            let before =
                self.hashes.last().copied().unwrap_or_else(|| BlockHash::root(self.adapter));
            self.hashes.push(before.next(block));
        }
    }

    /// The hashed blocks.
    pub(in crate::engine) fn hashes(&self) -> &[BlockHash] {
        &self.hashes
    }

    /// The salt.
    pub(in crate::engine) fn adapter(&self) -> Option<VersionId> {
        self.adapter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(adapter: Option<VersionId>, tokens: &[u32]) -> Vec<BlockHash> {
        let mut chain = PrefixChain::new(adapter);
        chain.extend(tokens, 2);
        chain.hashes().to_vec()
    }

    #[test]
    fn a_block_is_known_by_its_adapter_and_everything_before_it() {
        let version = |text: &[u8]| Some(VersionId::of(&[text]));
        let base = chain(None, &[1, 2, 3, 4, 5]);
        assert_eq!(base.len(), 2, "the third block is not full");
        assert_eq!(base[0], chain(None, &[1, 2, 9, 9])[0]);
        assert_ne!(base[1], chain(None, &[9, 9, 3, 4])[1]);
        assert_ne!(base, chain(version(b"a"), &[1, 2, 3, 4]));
        assert_ne!(chain(version(b"a"), &[1, 2]), chain(version(b"b"), &[1, 2]));
    }

    #[test]
    fn growing_hashes_as_the_whole_does() {
        let tokens: Vec<u32> = (0..9).collect();
        let mut grown = PrefixChain::new(None);
        for end in 0..=tokens.len() {
            grown.extend(&tokens[..end], 2);
        }
        assert_eq!(grown.hashes(), chain(None, &tokens));
    }
}
