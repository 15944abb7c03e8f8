//! A single GGUF file as a checkpoint: weights, configuration, tokenizer and chat template out of one file.
//!
//! What llama.cpp calls things is translated into `transformers`' words here, so that `arch/` and the tokenizer library
//! stay the only readers. Knows the format and its names; knows no forward pass.
mod blocks;
mod checkpoint;
mod config;
mod cursor;
mod file;
#[cfg(test)]
mod golden_tests;
mod names;
mod pre;
mod spm;
#[cfg(test)]
mod testing;
mod text;
mod tokenizer;
mod value;

pub(crate) use checkpoint::GgufCheckpoint;

/// How every GGUF file begins.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
