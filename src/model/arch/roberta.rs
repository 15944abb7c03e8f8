//! `RoBERTa` and `XLM-RoBERTa`: BERT with positions that begin after the padding token's number, and a head of two layers.
use super::{Fields, encoder};
use crate::{
    lora::ModuleNames,
    model::{
        ModelError,
        spec::{Dims, EncoderSpec, Positions},
    },
};

/// `RobertaConfig`'s and `XLMRobertaConfig`'s padding token where the file does not say.
const DEFAULT_PADDING: usize = 1;

/// `transformers`' `RobertaConfig` and `XLMRobertaConfig`.
pub(super) fn spec(fields: &mut Fields) -> Result<EncoderSpec, ModelError> {
    let plain = encoder::plain(fields, ModuleNames::Roberta, &encoder::KEYS)?;
    let padding = fields.size("pad_token_id", 0..=plain.dims.vocab - 1)?.unwrap_or(DEFAULT_PADDING);
    // `create_position_ids_from_input_ids`: the first token stands at `padding_idx + 1`, padding itself at `padding_idx`.
    let first = padding + 1;
    let Some(max_positions) = plain.dims.max_positions.checked_sub(first).filter(|left| *left > 0)
    else {
        let detail = format!("is {first} at most; positions begin after `pad_token_id`");
        return Err(ModelError::config("max_position_embeddings", detail));
    };
    Ok(EncoderSpec {
        token_types: encoder::token_types(fields)?,
        positions: Positions::Table { first, padding: Some(padding as u32) },
        dims: Dims { max_positions, ..plain.dims },
        ..plain
    })
}
