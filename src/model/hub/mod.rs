//! Models from a Hugging Face hub, through its cache.
//!
//! Knows repositories and the environment's HF_* variables. Knows not what the files mean.
mod bar;
#[cfg(test)]
mod fake;
mod fetch;
mod id;

pub(super) use fetch::fetch;
pub use id::HubId;
