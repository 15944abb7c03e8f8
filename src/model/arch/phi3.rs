//! Phi-3 and Phi-4, the sizes whose heads are rotated as a whole: one weight for queries, keys and values, and one
//! for gate and up.
use super::{Fields, common};
use crate::model::{
    ModelError,
    spec::{ArchSpec, AttentionSpec, Projections},
};

/// `transformers`' `Phi3Config`.
pub(super) fn spec(fields: &mut Fields) -> Result<ArchSpec, ModelError> {
    let plain = common::plain(fields)?;
    let tokens = common::window_tokens(fields)?;
    let window = common::window(fields, plain.dims.layers, tokens, |_| true)?;
    // Only long rope, which is refused, reads it.
    fields.take("original_max_position_embeddings");
    // Dropout of training.
    fields.take("embd_pdrop");
    Ok(ArchSpec {
        attention: AttentionSpec { window, ..plain.attention },
        projections: Projections::Fused,
        ..plain
    })
}
