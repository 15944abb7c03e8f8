//! What a base can be asked for.
use crate::engine::{Labels, Pooling};
use std::collections::BTreeMap;

/// What the base alone can do; adapters may bring labels to any base that takes them.
#[derive(Clone, Debug)]
pub struct Abilities {
    /// Whether it continues texts.
    pub generates: bool,
    /// How it embeds texts; `None` where it does not.
    pub embedding: Option<EmbeddingSetup>,
    /// The labels of its own head.
    pub labels: Option<Labels>,
}

/// How the model's makers turn hidden states into embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingSetup {
    /// How the tokens' hidden states become one.
    pub pooling: Pooling,
    /// Whether embeddings have length 1 unless a request says otherwise.
    pub normalize: bool,
    /// Numbers in an embedding.
    pub dimensions: usize,
    /// Whether a shorter beginning of an embedding is one too (Matryoshka).
    pub shortens: bool,
    /// Tokens of the longest text, where that is less than the model's context.
    pub max_tokens: Option<usize>,
    /// Texts to put before an input, by the name that a request calls them by.
    pub prompts: BTreeMap<String, String>,
    /// Which of them a request gets that names none.
    pub default_prompt: Option<String>,
}

impl Default for Abilities {
    /// A generator's.
    fn default() -> Self {
        Self { generates: true, embedding: None, labels: None }
    }
}
