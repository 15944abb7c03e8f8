//! A single GGUF file as a checkpoint: weights, configuration, tokenizer and chat template out of one file.
//!
//! What llama.cpp calls things is translated into `transformers`' words here, so that `arch/` and the tokenizer library
//! stay the only readers. Knows what a model's file must say; the container is [`crate::gguf`]'s.
mod checkpoint;
mod config;
#[cfg(test)]
mod golden_tests;
mod pre;
mod spm;
#[cfg(test)]
mod testing;
mod text;
mod tokenizer;

pub(crate) use checkpoint::GgufCheckpoint;
