//! The model's tokens as llguidance sees them.
use crate::generation::tokenizer::Tokenizer;
use llguidance::toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use std::sync::Arc;

/// Longest token a grammar can produce, bytes; the tree of tokens takes no longer ones.
const MAX_TOKEN_BYTES: usize = 1000;

/// As much of a text that a grammar leaves no choice about is split into tokens, bytes. At each step only the next one
/// is asked for, which what comes so much later cannot change.
const MAX_FORCED_BYTES: usize = 4 * MAX_TOKEN_BYTES;

/// Every token's bytes in a tree. One more token than the model has stands for the end of an answer: which tokens end
/// it is the engine's to know.
pub(super) struct Vocabulary {
    trie: TokTrie,
    tokenizer: Arc<Tokenizer>,
    is_exact: bool,
}

impl Vocabulary {
    /// Of a model with tokens below `vocab`. Special tokens are never text: only a grammar that names them gets them.
    pub(super) fn new(tokenizer: Arc<Tokenizer>, vocab: usize) -> Self {
        let word = |id: u32| {
            let (pieces, marker) = (tokenizer.pieces(), TokTrie::SPECIAL_TOKEN_MARKER);
            let bytes = pieces.bytes(id);
            let is_usable = bytes.len() <= MAX_TOKEN_BYTES && bytes.first() != Some(&marker);
            match (is_usable, pieces.is_special(id)) {
                (false, _) => Vec::new(),
                (true, true) => [&[marker], bytes].concat(),
                (true, false) => bytes.to_vec(),
            }
        };
        let mut words: Vec<Vec<u8>> = (0..vocab as u32).map(word).collect();
        words.push(Vec::new());
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, vocab as u32), &words);
        let mut vocabulary = Self { trie, tokenizer, is_exact: false };
        let sample = "{\"a b\": [1, true]}\n";
        vocabulary.is_exact = vocabulary.exact(sample).is_some();
        vocabulary
    }

    /// The tokenizer's own tokens of `text`, if together they are that text and nothing but text.
    fn exact(&self, text: &str) -> Option<Vec<TokenId>> {
        let pieces = self.tokenizer.pieces();
        let ids = self.tokenizer.encode(text, false).ok()?;
        let is_text =
            |id: &u32| !pieces.is_special(*id) && (*id as usize) < self.trie.vocab_size() - 1;
        let is_same = || ids.iter().flat_map(|id| pieces.bytes(*id)).eq(text.as_bytes());
        (ids.iter().all(is_text) && is_same()).then_some(ids)
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// Of a long text the first tokens.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let bytes = &bytes[..bytes.len().min(MAX_FORCED_BYTES)];
        self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            self.exact(text).unwrap_or_else(|| self.trie.greedy_tokenize(text.as_bytes()))
        })
    }

    /// Where a text's tokens are not exactly its bytes, nothing is forced: every way to spell it is allowed.
    fn tokenize_is_canonical(&self) -> bool {
        self.is_exact
    }
}
