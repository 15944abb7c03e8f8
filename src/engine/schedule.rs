//! What goes from the scheduler to the runner and back.
use super::{
    residency::Load,
    sampler::{Choice, NoChoice},
};
use crate::lora::AdapterSlot;

/// What one step may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Sequences in one step.
    pub(super) max_sequences: usize,
    /// Tokens in one step, of prompts and answers together.
    pub(super) max_batched_tokens: usize,
    /// Adapters in one step.
    pub(super) adapter_slots: usize,
    /// Bytes of all adapters in slots.
    pub(super) adapter_bytes: usize,
    /// Tokens a block holds.
    pub(super) block_size: usize,
    /// Blocks of the KV cache.
    pub(super) kv_blocks: usize,
    /// Tokens of the longest sequence.
    pub(super) max_positions: usize,
    /// Guessed tokens a sequence may have in one step.
    pub(super) draft_tokens: usize,
    /// Rows of prompts' logits in one step: they are as wide as the vocabulary.
    pub(super) prompt_rows: usize,
    /// Whether known beginnings are taken from the cache.
    pub(super) prefix_cache: bool,
    /// Whether all of a sequence's tokens are computed in one step: where a token depends on those after it too.
    pub(super) whole: bool,
}

/// The next token, or why there is none.
pub(super) type Chosen = Result<Choice, NoChoice>;

/// One step's plan.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Slots whose adapters are gone, to empty first.
    pub(super) clears: Vec<AdapterSlot>,
    /// Adapters to bring into theirs then, while the step runs.
    pub(super) loads: Vec<Load>,
    /// Indices of the sequences that compute their `granted` tokens.
    pub(super) work: Vec<usize>,
    /// What was chosen, in the same order as many as each wants.
    pub(super) choices: Vec<Chosen>,
    /// What was wanted besides, in the same order one of each that wants it.
    pub(super) outputs: Vec<Vec<f32>>,
}
