//! Who owns which block of the KV cache, and what is known about its content.
//!
//! Integers and hashes only; the memory is the kernels'.
mod blocks;
mod prefix;

pub(super) use blocks::{BlockAllocator, BlockId};
pub(super) use prefix::{PrefixChain, PrefixPart};
