//! What crosses the border between the async world and the engine thread.
use super::{
    AdapterMix, EngineError, SamplingParams, TokenConstraint, loader::Loaded, sequence::Arrival,
};
use crate::{
    adapter::{AdapterName, VersionId},
    model::Output,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// A prompt to continue.
#[derive(Debug)]
pub struct Submission {
    /// Not empty, below the vocabulary's size, at most the model's context.
    pub prompt: Vec<u32>,
    /// Which versions to use, and how much of each; empty is the base model.
    pub adapters: AdapterMix,
    /// How to choose tokens and when to stop.
    pub sampling: SamplingParams,
    /// What is wanted instead of an answer, once the prompt is read; the sampling's `max_tokens` is 0 then.
    pub output: Option<Output>,
    /// Where a second text begins in the prompt, for models that tell the two apart.
    pub second_text: Option<usize>,
    /// What the answer must be, from its first token on; `None` leaves it to the model.
    pub constraint: Option<Box<dyn TokenConstraint>>,
    /// Whose cached beginnings it may use: those of submissions with the same salt.
    pub cache_salt: Option<Arc<str>>,
    /// Who goes first.
    pub priority: Priority,
}

/// Who goes first where not everybody can.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Priority {
    /// Somebody waits for the answer.
    #[default]
    Normal,
    /// It can wait: it starts while no normal request waits, and makes way for those that come.
    Low,
    /// Nobody waits for it: the same, behind low ones too.
    Shadow,
}

/// The chosen token's log-probability and the most likely alternatives.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Of the chosen token, natural logarithm, before temperature and penalties.
    pub chosen: f32,
    /// How many tokens are at least as likely as the chosen one, itself included: 1 is the most likely.
    pub rank: usize,
    /// The most likely tokens, best first.
    pub top: Vec<(u32, f32)>,
}

/// What the engine says about one submission, in order: `Started`, the prompt, tokens, and how it ended.
#[derive(Clone, Debug)]
pub enum Event {
    /// It is in its first step. Comes once, however often it is preempted.
    Started {
        /// Prompt tokens whose keys and values came out of the prefix cache.
        cached_tokens: usize,
        /// From submission to this step.
        queued: Duration,
    },
    /// What the model thought of the next tokens of the prompt, in order; the first token has nothing before it to
    /// judge it by. Comes in pieces before the first `Token`, where the sampling asks for it.
    Prompt {
        /// Of the tokens after those that were told of already.
        logprobs: Vec<TokenLogprobs>,
    },
    /// The output that was asked for; comes once, before `Finished`.
    Output {
        /// As long as [`Output`] says.
        values: Vec<f32>,
    },
    /// One more token.
    Token {
        /// The token.
        id: u32,
        /// Present when the sampling asks for it.
        logprobs: Option<TokenLogprobs>,
    },
    /// Done.
    Finished {
        /// Why.
        reason: FinishReason,
    },
    /// Failed.
    Failed(EngineError),
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FinishReason {
    /// An end-of-sequence token of the model, which is not sent as a `Token`, or nothing else could follow.
    EndOfSequence,
    /// One of the request's stop tokens; it is not sent as a `Token`.
    StopToken(u32),
    /// `max_tokens`.
    Length,
}

/// One submission's events. Dropping it cancels the submission and frees its blocks before the next step.
pub type EventStream = mpsc::UnboundedReceiver<Event>;

/// To the thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Start a sequence. Dropping its event stream cancels it.
    Submit(Arrival),
    /// Nobody can ask for this version any more.
    Forget(VersionId),
    /// Fail what still uses this version under this name, at once or then.
    End(AdapterName, VersionId, Option<Instant>),
    /// An adapter is there, or cannot come.
    Loaded(Loaded),
    /// End when everything that was accepted is done, though handles are left.
    Drain,
}

/// What the engine is doing, taken once a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineSnapshot {
    /// Sequences in the batch.
    pub running: usize,
    /// Sequences that wait.
    pub waiting: usize,
    /// Those of them whose adapters are not all in device memory.
    pub waiting_for_adapters: usize,
    /// KV blocks in use by sequences.
    pub kv_blocks_used: usize,
    /// All KV blocks.
    pub kv_blocks: usize,
    /// Tokens a block holds.
    pub block_size: usize,
    /// Bytes of the whole KV cache.
    pub kv_bytes: usize,
    /// Steps since the start.
    pub steps: u64,
    /// Those of up to `2^i` tokens, and of more than the bucket before; the last one has no end.
    pub step_sizes: [u64; 16],
    /// Tokens of all steps.
    pub step_tokens: u64,
    /// Sequences put back because blocks ran out.
    pub preemptions: u64,
    /// Tokens of prompts computed.
    pub prompt_tokens: u64,
    /// Tokens sampled.
    pub generated_tokens: u64,
    /// Tokens guessed ahead.
    pub draft_tokens: u64,
    /// Those of them that were right.
    pub accepted_draft_tokens: u64,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Prompt tokens found there.
    pub prefix_hits: u64,
    /// Steps that failed.
    pub failed_steps: u64,
    /// Answers that ended because the model's output was not a number.
    pub non_finite_outputs: u64,
    /// Names of the adapters in slots now.
    pub resident_adapters: Vec<String>,
    /// Names of the adapters of waiting sequences.
    pub waiting_adapters: Vec<String>,
    /// Their versions.
    pub resident_versions: Vec<VersionId>,
    /// Adapter slots there are.
    pub adapter_slots: usize,
    /// Those of them that hold an adapter, or are about to.
    pub adapter_slots_used: usize,
    /// Bytes that adapters in slots hold.
    pub adapter_bytes: usize,
    /// Adapters brought into a slot.
    pub adapter_loads: u64,
    /// Those of them that came before the batch had room for whoever needs them.
    pub adapter_prefetches: u64,
    /// Adapters that could not be brought into a slot.
    pub failed_adapter_loads: u64,
    /// Time that all loads took; decoding went on meanwhile.
    pub adapter_load_time: Duration,
    /// Adapters that made room in their slots for others.
    pub adapter_evictions: u64,
}
