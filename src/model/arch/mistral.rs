//! Mistral 7B and its successors that kept the architecture.
use super::{Fields, common};
use crate::model::{
    ModelError,
    spec::{ArchSpec, AttentionSpec},
};

/// `MistralConfig`'s window where the file does not mention it; `null` means none.
const DEFAULT_WINDOW: usize = 4096;

/// `transformers`' `MistralConfig`.
pub(super) fn spec(fields: &mut Fields) -> Result<ArchSpec, ModelError> {
    fields.must_have("num_key_value_heads")?;
    let plain = common::plain(fields)?;
    let tokens = if fields.mentions("sliding_window") {
        common::window_tokens(fields)?
    } else {
        Some(DEFAULT_WINDOW)
    };
    let window = common::window(fields, plain.dims.layers, tokens, |_| true)?;
    Ok(ArchSpec { attention: AttentionSpec { window, ..plain.attention }, ..plain })
}
