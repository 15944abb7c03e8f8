//! What every implementation checks before it touches memory.
mod deltas;
mod operations;

pub(super) use deltas::{Parts, adapt_embedding, head_norm, layer_norm, lora, rms_norm};
pub(super) use operations::{
    add_linear, add_rows, attention, gated, highest, indices, inner, linear, mean_rows,
    rope_write_kv, upload, weight,
};
