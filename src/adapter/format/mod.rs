//! Adapter files → [`LoraWeights`](crate::lora::LoraWeights), checked against the base; what is not served is
//! refused by name.
//!
//! Knows file formats and the frozen base. Knows no registry, no store and no HTTP.
mod files;
mod peft;
mod table;
mod tensors;

pub use files::{AdapterFiles, CONFIG_FILE, WEIGHTS_FILE};
pub use table::{ParsedAdapter, check, parse};
