//! Models from a Hugging Face hub, through its cache.
//!
//! Knows repositories and the environment's HF_* variables. Knows not what the files mean.
mod bar;
mod fetch;

pub(super) use fetch::fetch;
