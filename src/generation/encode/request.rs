//! What the dialects of reading are translated to, and what comes back.
use crate::{
    engine::{Labels, Priority},
    generation::{ServedAdapter, WeightedAdapter},
};
use std::time::Duration;

/// What to read.
#[derive(Clone, Debug, PartialEq)]
pub enum EncodeInput {
    /// A text.
    Text(String),
    /// Two texts side by side, as the tokenizer joins them.
    Pair(String, String),
    /// Token ids, as they are.
    Tokens(Vec<u32>),
}

/// What is wanted of each input.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// One vector.
    Embedding {
        /// Whether it has length 1; `None` is the model's way.
        normalize: Option<bool>,
        /// So many of its first numbers.
        dimensions: Option<usize>,
        /// The name of the text to put before the input; `None` is the model's default.
        prompt: Option<String>,
    },
    /// A vector for each token.
    TokenEmbeddings,
    /// What the head says of it: scores of a whole text's labels, or entities where it labels tokens.
    Labels {
        /// Scores as the head gives them, instead of probabilities.
        raw: bool,
    },
}

/// What becomes of an input that is too long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Truncation {
    /// Whether it is cut; `None` is the server's setting, `Some(false)` refuses it.
    pub cut: Option<bool>,
    /// Cut it to so many tokens, if it has more: a demand of its own, whatever `cut` says.
    pub limit: Option<usize>,
    /// Which end stays.
    pub keep: Keep,
}

/// Which end of a text stays.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Keep {
    /// Its first tokens.
    #[default]
    First,
    /// Its last tokens.
    Last,
}

/// Texts to read.
#[derive(Clone, Debug)]
pub struct EncodeRequest {
    /// At least one.
    pub inputs: Vec<EncodeInput>,
    /// The request's field that has them, for errors: `input`, `inputs`.
    pub field: &'static str,
    /// Whether the tokenizer adds its special tokens.
    pub add_special_tokens: bool,
    /// What changes the base model, mixed; none is the base itself.
    pub adapters: Vec<WeightedAdapter>,
    /// What is wanted of each.
    pub wanted: Wanted,
    /// What becomes of long ones.
    pub truncation: Truncation,
    /// Who goes first.
    pub priority: Priority,
}

/// Pairs of texts to be scored: how well the second one goes with the first.
#[derive(Clone, Debug)]
pub struct ScoreRequest {
    /// At least one.
    pub pairs: Vec<(String, String)>,
    /// The request's field that has the second texts, for errors.
    pub field: &'static str,
    /// Scores as a cross-encoder's head gives them, instead of probabilities.
    pub raw: bool,
    /// As [`EncodeRequest::adapters`].
    pub adapters: Vec<WeightedAdapter>,
    /// What becomes of long ones.
    pub truncation: Truncation,
    /// Who goes first.
    pub priority: Priority,
}

/// A request's texts, read.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// In the order of the inputs.
    pub texts: Vec<EncodedText>,
    /// The labels that scores are of, where they were wanted.
    pub labels: Option<Labels>,
    /// Who read them.
    pub served: Vec<ServedAdapter>,
    /// The longest wait of any of them for its first step.
    pub queued: Duration,
}

/// One text, read.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedText {
    /// Tokens it had, special ones included, those cut off not.
    pub tokens: usize,
    /// What was wanted of it.
    pub value: EncodedValue,
}

/// What was wanted of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum EncodedValue {
    /// Its embedding.
    Vector(Vec<f32>),
    /// Each token's.
    Vectors(Vec<Vec<f32>>),
    /// Of each label, in the labels' order.
    Scores(Vec<f32>),
    /// What was found in it, in its order.
    Entities(Vec<Entity>),
}

/// Neighbouring words with one label.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// The label, without the `B-` or `I-` of its tokens.
    pub label: String,
    /// The mean probability of its words.
    pub score: f32,
    /// As the text has it.
    pub text: String,
    /// Its first character in the text.
    pub start: usize,
    /// The character after its last.
    pub end: usize,
}

/// A request's pairs, scored.
#[derive(Clone, Debug)]
pub struct Scored {
    /// In the order of the pairs; higher is better.
    pub scores: Vec<f32>,
    /// Tokens of all texts that were read.
    pub tokens: usize,
    /// Who read them.
    pub served: Vec<ServedAdapter>,
    /// The longest wait of any of them for its first step.
    pub queued: Duration,
}

impl Encoded {
    /// Tokens of all texts.
    pub fn tokens(&self) -> usize {
        self.texts.iter().map(|text| text.tokens).sum()
    }
}
