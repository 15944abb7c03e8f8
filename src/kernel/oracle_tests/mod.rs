//! Every implementation of the kernels against [`Reference`](super::Reference), at shapes nobody chose.
//!
//! A new implementation is one line in `candidates.rs`.
mod adapters;
mod arguments;
mod attention;
mod candidates;
mod deltas;
mod dense;
mod feed_forward;
mod inputs;
mod integers;
mod invariance;
mod lora;
mod merge;
