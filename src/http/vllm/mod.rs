//! vLLM's own routes: adapters at run time, as its control planes call them, and texts that are read.
//!
//! Knows vLLM's fields, texts and errors. What may be loaded, and from where, is the settings' choice.
mod classify;
mod load;
mod place;
mod rerank;
mod score;
mod unload;

pub(super) use classify::classify;
pub(super) use load::load;
#[cfg(test)]
pub(super) use rerank::rerank_fields;
pub(super) use rerank::{rerank, rerank_route};
pub(super) use score::score;
pub(super) use unload::unload;
