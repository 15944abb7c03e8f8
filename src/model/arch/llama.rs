//! Llama 2, 3, 3.1, 3.2, and the many checkpoints that call themselves `LlamaForCausalLM`.
use super::{Fields, common};
use crate::model::{
    ModelError,
    spec::{ArchSpec, AttentionBias, AttentionSpec, Bias, MlpSpec},
};

/// `transformers`' `LlamaConfig`.
pub(super) fn spec(fields: &mut Fields) -> Result<ArchSpec, ModelError> {
    let plain = common::plain(fields)?;
    let window = common::window(fields, plain.dims.layers, None, |_| false)?;
    let attention_bias = fields.flag("attention_bias")?;
    let mlp_bias = fields.flag("mlp_bias")?;
    Ok(ArchSpec {
        attention: AttentionSpec {
            bias: if attention_bias { AttentionBias::All } else { AttentionBias::None },
            window,
            ..plain.attention
        },
        mlp: MlpSpec { bias: Bias::from_flag(mlp_bias), ..plain.mlp },
        ..plain
    })
}
