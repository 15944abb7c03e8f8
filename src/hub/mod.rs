//! Repositories on a Hugging Face hub, and why one cannot be had.
//!
//! Knows ids, the environment's `HF_*` variables and the hub's refusals. Knows not what is in a repository.
mod access;
#[cfg(test)]
pub(crate) mod fake;
mod id;

pub(crate) use access::{OFFLINE, is_hidden, is_offline};
pub use id::HubId;
