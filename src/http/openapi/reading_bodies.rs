//! Bodies of requests for texts to be read; see [`super::bodies`].
#![expect(dead_code, reason = "they are described, never made")]
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};

/// Every body.
#[derive(OpenApi)]
#[openapi(components(schemas(
    EmbeddingRequest,
    ClassifyRequest,
    ClassifyBatchRequest,
    ScoreRequest,
    RerankRequest,
    EmbedRequest,
    PredictRequest,
    DecodeRequest,
    SimilarityRequest,
)))]
pub(super) struct ReadingBodies;

/// Who reads.
#[derive(ToSchema)]
struct Reader {
    /// The base, an adapter, `name@version` or an alias; nothing is the base.
    model: Option<String>,
    /// Another name of the field; so is the header `x-adapter-id`.
    adapter_id: Option<String>,
    /// Several adapters: names, or objects of `name` and `weight`; then `model` is the base.
    #[schema(value_type = Option<Vec<Value>>)]
    adapters: Option<Vec<Value>>,
    /// llama.cpp's: objects of `id` or `name`, and `scale`.
    #[schema(value_type = Option<Vec<Value>>)]
    lora: Option<Vec<Value>>,
}

/// What vLLM's routes share.
#[derive(ToSchema)]
struct ReadFields {
    #[schema(inline)]
    #[serde(flatten)]
    reader: Reader,
    /// Cut longer texts to so many tokens; -1 to what the model takes.
    #[schema(minimum = -1)]
    truncate_prompt_tokens: Option<i64>,
    /// The end that is cut: `right` or `left`.
    #[schema(default = "right")]
    truncation_side: Option<String>,
    /// Let the tokenizer add its special tokens.
    #[schema(default = true)]
    add_special_tokens: Option<bool>,
    /// Probabilities instead of scores; embeddings of length 1.
    use_activation: Option<bool>,
    /// Its older name.
    activation: Option<bool>,
    /// Above 0 can wait; below 0 is refused.
    priority: Option<i64>,
}

/// `POST /v1/embeddings`
#[derive(ToSchema)]
struct EmbeddingRequest {
    #[schema(inline)]
    #[serde(flatten)]
    shared: ReadFields,
    /// A text, token ids, or a list of either.
    #[schema(value_type = Value)]
    input: Value,
    /// `float` or `base64`: little-endian `f32`.
    #[schema(default = "float")]
    encoding_format: Option<String>,
    /// Only so many of the first numbers, where the model allows it.
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
    /// Embeddings of length 1; the model's makers say otherwise.
    normalize: Option<bool>,
    /// Which of the model's prompts goes before each text.
    prompt_name: Option<String>,
}

/// `POST /classify`: vLLM's `input` or LoRAX's `inputs`
#[derive(ToSchema)]
struct ClassifyRequest {
    #[schema(inline)]
    #[serde(flatten)]
    shared: ReadFields,
    /// A text, token ids, or a list of either.
    #[schema(value_type = Option<Value>)]
    input: Option<Value>,
    /// A text, answered as LoRAX does.
    inputs: Option<String>,
    /// `adapter_id`.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
}

/// `POST /classify_batch`
#[derive(ToSchema)]
struct ClassifyBatchRequest {
    #[schema(inline)]
    #[serde(flatten)]
    reader: Reader,
    /// At least one.
    inputs: Vec<String>,
    /// `adapter_id`.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
}

/// `POST /score`: `text_1` and `text_2`, or `queries` and `documents` or `items`, or `data_1` and `data_2`
#[derive(ToSchema)]
struct ScoreRequest {
    #[schema(inline)]
    #[serde(flatten)]
    shared: ReadFields,
    /// A text, or as many as `text_2` has.
    #[schema(value_type = Option<Value>)]
    text_1: Option<Value>,
    /// A text, or a list of them.
    #[schema(value_type = Option<Value>)]
    text_2: Option<Value>,
    /// `text_1`
    #[schema(value_type = Option<Value>)]
    queries: Option<Value>,
    /// `text_2`
    #[schema(value_type = Option<Value>)]
    documents: Option<Value>,
    /// `text_2`
    #[schema(value_type = Option<Value>)]
    items: Option<Value>,
    /// `text_1`
    #[schema(value_type = Option<Value>)]
    data_1: Option<Value>,
    /// `text_2`
    #[schema(value_type = Option<Value>)]
    data_2: Option<Value>,
}

/// `POST /rerank`: `documents`, or TEI's `texts`
#[derive(ToSchema)]
struct RerankRequest {
    #[schema(inline)]
    #[serde(flatten)]
    shared: ReadFields,
    /// What they are to go with.
    query: String,
    /// Texts, or objects with a `text`.
    #[schema(value_type = Option<Vec<Value>>)]
    documents: Option<Vec<Value>>,
    /// Only the best so many; 0 is all.
    #[schema(minimum = 0)]
    top_n: Option<usize>,
    /// The documents too.
    #[schema(default = true)]
    return_documents: Option<bool>,
    /// Texts, answered as TEI does.
    texts: Option<Vec<String>>,
    /// With `texts`: scores as the head gives them.
    raw_scores: Option<bool>,
    /// With `texts`: the texts too.
    return_text: Option<bool>,
    /// With `texts`: cut those that are too long.
    truncate: Option<bool>,
    /// The end that is cut: `Right` or `Left`.
    truncation_direction: Option<String>,
}

/// What TEI's routes share.
#[derive(ToSchema)]
struct Cut {
    #[schema(inline)]
    #[serde(flatten)]
    reader: Reader,
    /// Cut texts that are too long.
    truncate: Option<bool>,
    /// The end that is cut: `Right` or `Left`.
    #[schema(default = "Right")]
    truncation_direction: Option<String>,
}

/// `POST /embed`, `/embed_all`
#[derive(ToSchema)]
struct EmbedRequest {
    #[schema(inline)]
    #[serde(flatten)]
    cut: Cut,
    /// A text, token ids, or a list of either.
    #[schema(value_type = Value)]
    inputs: Value,
    /// Embeddings of length 1.
    #[schema(default = true)]
    normalize: Option<bool>,
    /// Which of the model's prompts goes before each text.
    prompt_name: Option<String>,
    /// Only so many of the first numbers, where the model allows it.
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
    /// LoRAX's: `adapter_id`; there, even as null, the answer is LoRAX's.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
    /// The same.
    stream: Option<bool>,
}

/// `POST /predict`
#[derive(ToSchema)]
struct PredictRequest {
    #[schema(inline)]
    #[serde(flatten)]
    cut: Cut,
    /// A text, a pair of texts, or a list of lists of one or two.
    #[schema(value_type = Value)]
    inputs: Value,
    /// Scores as the head gives them.
    #[schema(default = false)]
    raw_scores: Option<bool>,
}

/// `POST /decode`
#[derive(ToSchema)]
struct DecodeRequest {
    /// Token ids, or a list of lists of them.
    #[schema(value_type = Vec<Value>)]
    ids: Vec<Value>,
    /// Leave special tokens out.
    #[schema(default = true)]
    skip_special_tokens: Option<bool>,
}

/// `POST /similarity`
#[derive(ToSchema)]
struct SimilarityRequest {
    #[schema(inline)]
    #[serde(flatten)]
    reader: Reader,
    /// What is compared.
    inputs: Compared,
    /// `truncate`, `truncation_direction`, `prompt_name`, `adapter_id`.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
}

/// What is compared.
#[derive(ToSchema)]
struct Compared {
    /// With this one.
    source_sentence: String,
    /// At least one.
    sentences: Vec<String>,
}
