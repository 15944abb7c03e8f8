//! The base model: what it computes, what it reads and what it refuses.
#![expect(clippy::unwrap_used, reason = "a helper that cannot read its fixture is a failed test")]
mod answers;
mod checkpoint;
mod copies;
mod encoder_checkpoints;
mod encoders;
mod family;
mod gguf_adapters;
mod golden_logits;
mod harness;
mod shared_fixtures;
