//! One step's work, flattened: no padding, no batch dimension.
use crate::lora::LoraRouting;

/// `T` tokens of `N` sequences, sequences with the same adapter side by side.
#[derive(Clone, Debug, Default)]
pub struct ForwardBatch {
    /// `[T]`
    pub token_ids: Vec<u32>,
    /// `[T]`: position of each token in its sequence.
    pub positions: Vec<u32>,
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
}
