//! Plain words and numbers that other rooms report in.
use super::StepTokens;
use std::time::Duration;

/// How an answer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The model or a stop condition ended it.
    Stop,
    /// The token limit ended it.
    Length,
    /// The client left.
    Abort,
    /// It failed.
    Error,
}

impl Outcome {
    pub(super) const ALL: [Self; 4] = [Self::Stop, Self::Length, Self::Abort, Self::Error];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
            Self::Error => "error",
        }
    }
}

/// When an answer passed its milestones, counted from its submission.
#[derive(Clone, Copy, Debug, Default)]
pub struct Milestones {
    /// Its first step.
    pub started: Option<Duration>,
    /// Its first token.
    pub first_token: Option<Duration>,
    /// Its last token.
    pub last_token: Option<Duration>,
}

/// The engine's own numbers, taken when somebody asks.
#[derive(Clone, Debug, Default)]
pub struct EngineFigures {
    /// Sequences in the batch.
    pub running: usize,
    /// Sequences that wait.
    pub waiting: usize,
    /// Those of them that wait for an adapter to come to the device.
    pub waiting_for_adapters: usize,
    /// KV blocks in use.
    pub kv_blocks_used: usize,
    /// All KV blocks.
    pub kv_blocks: usize,
    /// Tokens a block holds.
    pub block_size: usize,
    /// Bytes of the KV cache.
    pub kv_bytes: usize,
    /// Steps since the start.
    pub steps: u64,
    /// The same by their tokens.
    pub step_tokens: StepTokens,
    /// Of these, failed.
    pub failed_steps: u64,
    /// Answers that ended because the model's output was not a number.
    pub non_finite_outputs: u64,
    /// Sequences put back.
    pub preemptions: u64,
    /// Prompt tokens computed.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Tokens guessed ahead.
    pub draft_tokens: u64,
    /// Those of them that were right.
    pub accepted_draft_tokens: u64,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Prompt tokens found there.
    pub prefix_hits: u64,
    /// Adapters in device memory.
    pub resident_adapters: Vec<String>,
    /// Adapters that waiting sequences want.
    pub waiting_adapters: Vec<String>,
    /// Adapter slots there are.
    pub adapter_slots: usize,
    /// Those of them in use.
    pub adapter_slots_used: usize,
    /// Bytes that adapters in slots hold.
    pub adapter_bytes: usize,
    /// Adapters brought into a slot.
    pub adapter_loads: u64,
    /// Of these, before somebody could have used them.
    pub adapter_prefetches: u64,
    /// Adapters that could not be brought into a slot.
    pub failed_adapter_loads: u64,
    /// Time that loads took, seconds.
    pub adapter_load_seconds: f64,
    /// Adapters that made room in their slots for others.
    pub adapter_evictions: u64,
    /// Adapters that requests can name.
    pub adapters: usize,
    /// Versions in host memory.
    pub warm_adapters: usize,
    /// Their bytes.
    pub warm_bytes: u64,
    /// Versions read from the store on demand.
    pub adapter_reads: u64,
    /// Versions that left host memory for others.
    pub warm_evictions: u64,
}
