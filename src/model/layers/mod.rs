//! The parts of a decoder, each with its weights and its forward pass.
//!
//! Knows the device's operations and tensor names. Knows no files.
mod attention;
mod block;
mod embedding;
mod linear;
mod mlp;
mod norm;
mod rope;

pub(super) use block::Block;
pub(super) use embedding::Embedding;
pub(super) use linear::LoraLinear;
pub(super) use norm::RmsNorm;
pub(super) use rope::rope_table;
