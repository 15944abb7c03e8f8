//! `ModernBERT`: rotary positions, norms before the halves, a gate, and layers that see only their neighbours.
use super::{
    Fields, common,
    encoder::{self, Keys},
    rope,
};
use crate::{
    lora::ModuleNames,
    model::{
        ModelError, Pooling,
        spec::{
            AfterDense, AttentionBias, AttentionSpec, Bias, ClassHeadSpec, EncoderSpec, MlpShape,
            MlpSpec, NormOrder, NormSpec, Positions, Projections, RopeSpec, TokenHead, Window,
        },
    },
};

const KEYS: Keys = Keys { activation: "hidden_activation", ..encoder::KEYS };

/// `ModernBertConfig`'s, where the file does not say.
const DEFAULT_NORM_EPS: f64 = 1e-5;
const DEFAULT_LOCAL_ATTENTION: usize = 128;
const DEFAULT_GLOBAL_EVERY: usize = 3;
const DEFAULT_GLOBAL_THETA: f64 = 160_000.0;
const DEFAULT_LOCAL_THETA: f64 = 10_000.0;

/// `transformers`' `ModernBertConfig`.
pub(super) fn spec(fields: &mut Fields) -> Result<EncoderSpec, ModelError> {
    let plain = encoder::plain(fields, ModuleNames::ModernBert, &KEYS)?;
    let attention_bias = fields.flag("attention_bias")?;
    let norm_bias = Bias::from_flag(fields.flag("norm_bias")?);
    // Of a head that guesses masked tokens.
    fields.take("decoder_bias");
    let (whole, windowed) = ropes(fields)?;
    rope::check(&whole, plain.attention.head_dim)?;
    rope::check(&windowed, plain.attention.head_dim)?;
    Ok(EncoderSpec {
        norms: NormSpec {
            eps: fields.positive("norm_eps")?.unwrap_or(DEFAULT_NORM_EPS) as f32,
            bias: norm_bias,
            order: NormOrder::Before,
        },
        attention: AttentionSpec {
            bias: if attention_bias { AttentionBias::All } else { AttentionBias::None },
            window: window(fields, plain.dims.layers)?,
            ..plain.attention
        },
        mlp: MlpSpec {
            shape: MlpShape::Gated,
            bias: Bias::from_flag(fields.flag("mlp_bias")?),
            ..plain.mlp
        },
        projections: Projections::Fused,
        positions: Positions::Rotary { whole, windowed },
        class_head: class_head(fields)?,
        ..plain
    })
}

/// A layer with a window sees `local_attention / 2` tokens to each side.
fn window(fields: &mut Fields, layers: usize) -> Result<Window, ModelError> {
    let local = fields.size("local_attention", 1..=common::MAX_POSITIONS)?;
    let every = fields.size("global_attn_every_n_layers", 1..=common::MAX_LAYERS)?;
    let far = local.unwrap_or(DEFAULT_LOCAL_ATTENTION) / 2;
    let every = every.unwrap_or(DEFAULT_GLOBAL_EVERY);
    common::window(fields, layers, Some(far), |layer| !layer.is_multiple_of(every))
}

/// `rope_parameters` for each kind of layer (version 5), or `global_rope_theta` and `local_rope_theta` (version 4), where
/// `null` for the latter means the former.
fn ropes(fields: &mut Fields) -> Result<(RopeSpec, RopeSpec), ModelError> {
    let has_local = fields.mentions("local_rope_theta");
    let global = fields.positive("global_rope_theta")?;
    let mut local = fields.positive("local_rope_theta")?;
    if has_local && local.is_none() {
        local = global.or(Some(DEFAULT_GLOBAL_THETA));
    }
    let mut both = fields.object("rope_parameters")?;
    let mut of = |kind: &str, theta: Option<f64>, default: f64| {
        let inner = both.as_mut().map(|both| both.object(kind)).transpose()?.flatten();
        match inner {
            Some(inner) => rope::parameters(inner, theta, default),
            None => Ok(rope::plain(theta.unwrap_or(default))),
        }
    };
    let whole = of("full_attention", global, DEFAULT_GLOBAL_THETA)?;
    let windowed = of("sliding_attention", local, DEFAULT_LOCAL_THETA)?;
    if let Some(both) = both {
        both.finish()?;
    }
    Ok((whole, windowed))
}

/// `ModernBertPredictionHead`; a head that labels tokens has it too.
fn class_head(fields: &mut Fields) -> Result<ClassHeadSpec, ModelError> {
    const POOLING: &str = "classifier_pooling";
    let pooling = match fields.text(POOLING)?.as_deref() {
        None | Some("cls") => Pooling::First,
        Some("mean") => Pooling::Mean,
        Some(other) => {
            return Err(ModelError::config(POOLING, format!("is `{other}`; it is cls or mean")));
        }
    };
    Ok(ClassHeadSpec {
        pooling,
        bias: Bias::from_flag(fields.flag("classifier_bias")?),
        activation: encoder::activation(fields, "classifier_activation")?,
        after: AfterDense::Norm,
        tokens: TokenHead::Dense,
    })
}
