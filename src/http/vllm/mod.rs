//! vLLM's routes for adapters at run time, as its control planes call them.
//!
//! Knows vLLM's fields, texts and errors. What may be loaded, and from where, is the settings' choice.
mod load;
mod place;
mod unload;

pub(super) use load::load;
pub(super) use unload::unload;
