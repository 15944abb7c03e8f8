//! BERT, and the sentence encoders distilled from it.
use super::{Fields, encoder};
use crate::{
    lora::ModuleNames,
    model::{ModelError, spec::EncoderSpec},
};

/// Sizes of a pooler that no PyTorch model has; the original release's files carry them.
const UNREAD: [&str; 6] = [
    "directionality",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
];

/// `transformers`' `BertConfig`.
pub(super) fn spec(fields: &mut Fields) -> Result<EncoderSpec, ModelError> {
    let plain = encoder::plain(fields, ModuleNames::Bert, &encoder::KEYS)?;
    for key in UNREAD {
        fields.take(key);
    }
    Ok(EncoderSpec { token_types: encoder::token_types(fields)?, ..plain })
}
