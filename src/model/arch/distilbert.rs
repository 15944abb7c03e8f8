//! `DistilBERT`: BERT without texts to tell apart and without a pooler.
use super::{
    Fields,
    encoder::{self, Keys},
};
use crate::{
    kernel::Activation,
    lora::ModuleNames,
    model::{
        ModelError,
        spec::{ClassHeadSpec, EncoderSpec},
    },
};

const KEYS: Keys = Keys {
    hidden: "dim",
    layers: "n_layers",
    heads: "n_heads",
    intermediate: "hidden_dim",
    activation: "activation",
};

/// `transformers`' `DistilBertConfig`.
pub(super) fn spec(fields: &mut Fields) -> Result<EncoderSpec, ModelError> {
    // `DistilBertConfig.attribute_map` lets them be written so too.
    fields.rename("hidden_size", KEYS.hidden)?;
    fields.rename("num_hidden_layers", KEYS.layers)?;
    fields.rename("num_attention_heads", KEYS.heads)?;
    let plain = encoder::plain(fields, ModuleNames::DistilBert, &KEYS)?;
    // The table of positions is stored, whatever it was filled with first.
    fields.flag("sinusoidal_pos_embds")?;
    fields.flag("tie_weights_")?;
    let class_head = ClassHeadSpec { activation: Activation::Relu, ..plain.class_head };
    Ok(EncoderSpec { class_head, ..plain })
}
