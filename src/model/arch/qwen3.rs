//! Qwen3, dense: an RMS norm on every query and key head.
use super::{Fields, common, qwen2};
use crate::model::{
    ModelError,
    spec::{ArchSpec, AttentionBias, AttentionSpec, HeadNorm},
};

/// `transformers`' `Qwen3Config`.
pub(super) fn spec(fields: &mut Fields) -> Result<ArchSpec, ModelError> {
    fields.must_have("num_key_value_heads")?;
    fields.must_have("head_dim")?;
    let plain = common::plain(fields)?;
    let bias = fields.flag("attention_bias")?;
    let attention = AttentionSpec {
        bias: if bias { AttentionBias::All } else { AttentionBias::None },
        head_norm: HeadNorm::Rms,
        window: qwen2::window(fields, plain.dims.layers)?,
        ..plain.attention
    };
    Ok(ArchSpec { attention, ..plain })
}
