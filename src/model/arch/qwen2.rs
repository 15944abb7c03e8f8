//! Qwen2 and Qwen2.5: biases on queries, keys and values.
use super::{Fields, common};
use crate::model::{
    ModelError,
    spec::{ArchSpec, AttentionBias, AttentionSpec, Window},
};

/// `transformers`' `Qwen2Config`.
pub(super) fn spec(fields: &mut Fields) -> Result<ArchSpec, ModelError> {
    fields.must_have("num_key_value_heads")?;
    let plain = common::plain(fields)?;
    let window = window(fields, plain.dims.layers)?;
    let attention = AttentionSpec { bias: AttentionBias::Qkv, window, ..plain.attention };
    Ok(ArchSpec { attention, ..plain })
}

/// The window counts only with `use_sliding_window`, and from layer `max_window_layers` on.
pub(super) fn window(fields: &mut Fields, layers: usize) -> Result<Window, ModelError> {
    let used = fields.flag("use_sliding_window")?;
    let tokens = common::window_tokens(fields)?;
    let first = fields.size("max_window_layers", 0..=usize::MAX)?;
    if !used {
        return common::window(fields, layers, None, |_| false);
    }
    let tokens = fields.need("sliding_window", tokens)?;
    if !fields.has("layer_types") {
        fields.need("max_window_layers", first)?;
    }
    common::window(fields, layers, Some(tokens), |layer| first.is_some_and(|first| layer >= first))
}
