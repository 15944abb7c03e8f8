//! The fields that every family spells alike.
use super::{Fields, rope};
use crate::{
    kernel::Activation,
    model::{
        ModelError,
        spec::{
            ArchSpec, AttentionBias, AttentionSpec, Bias, Dims, Head, HeadNorm, MlpShape, MlpSpec,
            Projections, Sides, Window,
        },
    },
};

/// Above these a file is damaged or hostile, not large.
pub(super) const MAX_LAYERS: usize = 1 << 12;
pub(super) const MAX_WIDTH: usize = 1 << 20;
pub(super) const MAX_VOCAB: usize = 1 << 24;
pub(super) const MAX_POSITIONS: usize = 1 << 24;

/// A model without biases, head norms and windows; families add their own to it.
pub(super) fn plain(fields: &mut Fields) -> Result<ArchSpec, ModelError> {
    let dims = dims(fields)?;
    let (attention, rope) = (attention(fields, dims.hidden)?, rope::read(fields)?);
    rope::check(&rope, attention.head_dim)?;
    Ok(ArchSpec {
        attention,
        mlp: mlp(fields)?,
        rope,
        norm_eps: need_positive(fields, "rms_norm_eps")? as f32,
        projections: Projections::Separate,
        head: if fields.flag("tie_word_embeddings")? { Head::Tied } else { Head::Own },
        labels: None,
        dims,
    })
}

/// `layer_types` where the file has it, `by_default` where not; `tokens` is the window of those that slide.
pub(super) fn window(
    fields: &mut Fields,
    layers: usize,
    tokens: Option<usize>,
    by_default: impl Fn(usize) -> bool,
) -> Result<Window, ModelError> {
    let slides = match fields.texts("layer_types")? {
        None => (0..layers).map(|layer| tokens.is_some() && by_default(layer)).collect(),
        Some(types) => sliding_layers(&types, layers)?,
    };
    match tokens {
        _ if !slides.contains(&true) => Ok(Window::None),
        None => Err(ModelError::config("sliding_window", "is missing, but `layer_types` slides")),
        Some(tokens) if slides.iter().all(|slides| *slides) => Ok(Window::Every(tokens)),
        Some(tokens) => Ok(Window::Layers { tokens, slides }),
    }
}

/// `sliding_window`, in tokens.
pub(super) fn window_tokens(fields: &mut Fields) -> Result<Option<usize>, ModelError> {
    fields.size("sliding_window", 1..=MAX_POSITIONS)
}

fn sliding_layers(types: &[String], layers: usize) -> Result<Vec<bool>, ModelError> {
    const KEY: &str = "layer_types";
    if types.len() != layers {
        let detail = format!("names {} layers, the model has {layers}", types.len());
        return Err(ModelError::config(KEY, detail));
    }
    types
        .iter()
        .map(|kind| match kind.as_str() {
            "full_attention" => Ok(false),
            "sliding_attention" => Ok(true),
            other => Err(ModelError::config(
                KEY,
                format!("has `{other}`; full_attention and sliding_attention are served"),
            )),
        })
        .collect()
}

fn dims(fields: &mut Fields) -> Result<Dims, ModelError> {
    Ok(Dims {
        vocab: need_size(fields, "vocab_size", MAX_VOCAB)?,
        hidden: need_size(fields, "hidden_size", MAX_WIDTH)?,
        layers: need_size(fields, "num_hidden_layers", MAX_LAYERS)?,
        max_positions: need_size(fields, "max_position_embeddings", MAX_POSITIONS)?,
    })
}

fn attention(fields: &mut Fields, hidden: usize) -> Result<AttentionSpec, ModelError> {
    let heads = need_size(fields, "num_attention_heads", MAX_WIDTH)?;
    let kv_heads = fields.size("num_key_value_heads", 1..=MAX_WIDTH)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let detail = format!("is {kv_heads}, which does not divide {heads} query heads");
        return Err(ModelError::config("num_key_value_heads", detail));
    }
    Ok(AttentionSpec {
        heads,
        kv_heads,
        head_dim: head_dim(fields, hidden, heads)?,
        bias: AttentionBias::None,
        head_norm: HeadNorm::None,
        sides: Sides::Before,
        window: Window::None,
    })
}

/// `head_dim`, or what a head has where the file does not say.
pub(super) fn head_dim(
    fields: &mut Fields,
    hidden: usize,
    heads: usize,
) -> Result<usize, ModelError> {
    let head_dim = match fields.size("head_dim", 1..=MAX_WIDTH)? {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let detail = format!("is {heads}, which does not divide hidden_size {hidden}");
            return Err(ModelError::config("num_attention_heads", detail));
        }
    };
    if !head_dim.is_multiple_of(2) || head_dim.saturating_mul(heads) > MAX_WIDTH {
        let detail = format!(
            "is {head_dim} for {heads} heads; it must be even, and at most {MAX_WIDTH} for all heads"
        );
        return Err(ModelError::config("head_dim", detail));
    }
    Ok(head_dim)
}

fn mlp(fields: &mut Fields) -> Result<MlpSpec, ModelError> {
    let named = fields.text("hidden_act")?;
    let activation = match fields.need("hidden_act", named)?.as_str() {
        "silu" | "swish" => Activation::Silu,
        "gelu_pytorch_tanh" => Activation::GeluTanh,
        other => {
            let detail = format!("is `{other}`; silu and gelu_pytorch_tanh are served");
            return Err(ModelError::config("hidden_act", detail));
        }
    };
    let intermediate = need_size(fields, "intermediate_size", MAX_WIDTH)?;
    Ok(MlpSpec { shape: MlpShape::Gated, intermediate, bias: Bias::None, activation })
}

/// A size that no default stands for.
pub(super) fn need_size(fields: &mut Fields, key: &str, max: usize) -> Result<usize, ModelError> {
    let size = fields.size(key, 1..=max)?;
    fields.need(key, size)
}

fn need_positive(fields: &mut Fields, key: &str) -> Result<f64, ModelError> {
    let number = fields.positive(key)?;
    fields.need(key, number)
}
