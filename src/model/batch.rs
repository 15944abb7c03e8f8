//! One step's work, flattened: no padding, no batch dimension.
use crate::lora::LoraRouting;
use std::{ops::Range, str::FromStr};

/// What may be wanted of a sequence besides logits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Output {
    /// One hidden state for all rows: `[hidden]`.
    Embedding(Pooling),
    /// Each row's hidden state: `[rows * hidden]`.
    Hidden,
    /// The scores of the labels of the adapter's head, or the base's: `[labels]`, before any softmax.
    Scores,
    /// The same for each row: `[rows * labels]`.
    TokenScores,
}

/// How the hidden states of a text become one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pooling {
    /// The first token's.
    First,
    /// The last token's.
    Last,
    /// Their mean.
    Mean,
}

impl FromStr for Pooling {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            // The latter names are text-embeddings-inference's.
            "first" | "cls" => Ok(Self::First),
            "last" | "last-token" => Ok(Self::Last),
            "mean" => Ok(Self::Mean),
            other => Err(format!("`{other}` is not a pooling; use first, last or mean")),
        }
    }
}

/// What is wanted of one sequence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WantedOutput {
    /// Rows of the batch: all of the sequence's where its model is not causal, its last one where it is.
    pub rows: Range<u32>,
    /// What.
    pub output: Output,
}

impl Output {
    /// How many rows the output's own rows are: one, or each.
    pub fn width(self, rows: usize) -> usize {
        match self {
            Self::Embedding(_) | Self::Scores => 1,
            Self::Hidden | Self::TokenScores => rows,
        }
    }
}

/// `T` tokens of `N` sequences, sequences with the same adapter side by side.
#[derive(Clone, Debug, Default)]
pub struct ForwardBatch {
    /// `[T]`
    pub token_ids: Vec<u32>,
    /// `[T]`: position of each token in its sequence.
    pub positions: Vec<u32>,
    /// `[T]`: which of its sequence's texts each token belongs to, 0 or 1; empty where all belong to the first.
    pub token_types: Vec<u32>,
    /// `[T]`: KV row (`block * block_size + offset`) each token's key and value go to.
    pub slot_mapping: Vec<u32>,
    /// All sequences' blocks, one after the other.
    pub block_tables: Vec<u32>,
    /// `[N + 1]`: where each sequence's blocks start in `block_tables`.
    pub block_starts: Vec<u32>,
    /// `[N + 1]`: where each sequence's rows start.
    pub query_starts: Vec<u32>,
    /// `[N]`: tokens in the cache once this step's are written.
    pub context_lens: Vec<u32>,
    /// `[R]`: the rows whose logits are wanted, ascending.
    pub logit_rows: Vec<u32>,
    /// Which of the `T` rows use which adapter slot.
    pub lora: LoraRouting,
    /// The same for the `R` rows whose logits are wanted.
    pub logit_lora: LoraRouting,
    /// What is wanted besides, in the order of the sequences.
    pub outputs: Vec<WantedOutput>,
    /// Which adapter slots use the rows that become outputs: [`Output::width`] of each, one after the other.
    pub output_lora: LoraRouting,
}
