//! The parts of decoders and encoders, each with its weights and its forward pass.
//!
//! Knows the device's operations and tensor names. Knows no files.
mod attention;
mod block;
mod class_head;
mod embedding;
mod encoder_block;
mod linear;
mod mlp;
mod norm;
mod places;
mod rope;

pub(super) use block::Block;
pub(super) use class_head::{ClassHeads, dense_tensor};
pub(super) use embedding::Embedding;
pub(super) use encoder_block::EncoderBlock;
pub(super) use linear::LoraLinear;
pub(super) use norm::{LayerNorm, RmsNorm};
pub(super) use places::PlacedEmbedding;
pub(super) use rope::rope_table;
