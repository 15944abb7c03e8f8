//! Adapter files → [`LoraWeights`](crate::lora::LoraWeights), checked against the base; what is not served is
//! refused by name.
//!
//! Knows file formats and the frozen base. Knows no registry, no store and no HTTP.
mod files;
pub(in crate::adapter) mod gguf;
mod labels;
mod peft;
mod table;
mod tensors;

pub use files::{AdapterFiles, CONFIG_FILE, GGUF_ENDING, GGUF_FILE, WEIGHTS_FILE};
pub(in crate::adapter) use files::{
    MAX_CONFIG_BYTES, gguf_count, gguf_in, missing_weights, no_adapter, pickle_among,
};
pub use labels::split_labels;
pub(in crate::adapter) use labels::{MODEL_CONFIG_FILE, wants_model_config};
pub(in crate::adapter) use table::export;
pub use table::{ParsedAdapter, check, parse};
