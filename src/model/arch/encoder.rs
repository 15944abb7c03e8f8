//! The fields that encoders have in common, under each family's own keys.
use super::{
    Fields,
    common::{MAX_LAYERS, MAX_POSITIONS, MAX_VOCAB, MAX_WIDTH, head_dim, need_size},
};
use crate::{
    kernel::Activation,
    lora::ModuleNames,
    model::{
        ModelError, Pooling,
        spec::{
            AfterDense, AttentionBias, AttentionSpec, Bias, ClassHeadSpec, Dims, EncoderSpec,
            HeadNorm, MlpShape, MlpSpec, NormOrder, NormSpec, Positions, Projections, Sides,
            TokenHead, Window,
        },
    },
};

/// What a family calls its sizes.
pub(super) struct Keys {
    pub(super) hidden: &'static str,
    pub(super) layers: &'static str,
    pub(super) heads: &'static str,
    pub(super) intermediate: &'static str,
    pub(super) activation: &'static str,
}

/// BERT's and `RoBERTa`'s.
pub(super) const KEYS: Keys = Keys {
    hidden: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    intermediate: "intermediate_size",
    activation: "hidden_act",
};

/// What all of them take where the file does not say.
const DEFAULT_NORM_EPS: f64 = 1e-12;

/// BERT, with a table of `max_position_embeddings` positions and none of texts; families change what they do otherwise.
pub(super) fn plain(
    fields: &mut Fields,
    names: ModuleNames,
    keys: &Keys,
) -> Result<EncoderSpec, ModelError> {
    let dims = Dims {
        vocab: need_size(fields, "vocab_size", MAX_VOCAB)?,
        hidden: need_size(fields, keys.hidden, MAX_WIDTH)?,
        layers: need_size(fields, keys.layers, MAX_LAYERS)?,
        max_positions: need_size(fields, "max_position_embeddings", MAX_POSITIONS)?,
    };
    absolute_positions(fields)?;
    // What it ties is a head that guesses masked tokens.
    fields.flag("tie_word_embeddings")?;
    Ok(EncoderSpec {
        names,
        norms: NormSpec {
            eps: fields.positive("layer_norm_eps")?.unwrap_or(DEFAULT_NORM_EPS) as f32,
            bias: Bias::All,
            order: NormOrder::After,
        },
        attention: attention(fields, dims.hidden, keys.heads)?,
        mlp: MlpSpec {
            shape: MlpShape::Plain,
            intermediate: need_size(fields, keys.intermediate, MAX_WIDTH)?,
            bias: Bias::All,
            activation: activation(fields, keys.activation)?,
        },
        projections: Projections::Separate,
        positions: Positions::Table { first: 0, padding: None },
        token_types: 0,
        class_head: ClassHeadSpec {
            pooling: Pooling::First,
            bias: Bias::All,
            activation: Activation::Tanh,
            after: AfterDense::Nothing,
            tokens: TokenHead::Hidden,
        },
        labels: None,
        dims,
    })
}

/// `type_vocab_size`: how many texts the model can tell apart.
pub(super) fn token_types(fields: &mut Fields) -> Result<usize, ModelError> {
    const DEFAULT: usize = 2;
    Ok(fields.size("type_vocab_size", 1..=MAX_LAYERS)?.unwrap_or(DEFAULT))
}

/// Positions are added to the embedding; other kinds change every score.
fn absolute_positions(fields: &mut Fields) -> Result<(), ModelError> {
    const KEY: &str = "position_embedding_type";
    match fields.text(KEY)?.as_deref() {
        None | Some("absolute") => Ok(()),
        Some(other) => {
            Err(ModelError::config(KEY, format!("is `{other}`; only absolute is served")))
        }
    }
}

fn attention(fields: &mut Fields, hidden: usize, key: &str) -> Result<AttentionSpec, ModelError> {
    let heads = need_size(fields, key, MAX_WIDTH)?;
    if !hidden.is_multiple_of(heads) {
        let detail = format!("is {heads}, which does not divide the width {hidden}");
        return Err(ModelError::config(key, detail));
    }
    Ok(AttentionSpec {
        heads,
        kv_heads: heads,
        head_dim: head_dim(fields, hidden, heads)?,
        bias: AttentionBias::All,
        head_norm: HeadNorm::None,
        sides: Sides::Both,
        window: Window::None,
    })
}

/// A non-linearity by one of its names; GELU where the file does not say.
pub(super) fn activation(fields: &mut Fields, key: &str) -> Result<Activation, ModelError> {
    match fields.text(key)?.as_deref() {
        None | Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
        Some("gelu_new" | "gelu_fast" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some("relu") => Ok(Activation::Relu),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("tanh") => Ok(Activation::Tanh),
        Some(other) => {
            let detail = format!("is `{other}`; gelu, gelu_new, relu, silu and tanh are served");
            Err(ModelError::config(key, detail))
        }
    }
}
