//! Bodies of answers to texts that were read; see [`super::answers`].
#![expect(dead_code, reason = "they are described, never made")]
use serde_json::{Value, json};
use utoipa::{OpenApi, ToSchema};

/// Every body.
#[derive(OpenApi)]
#[openapi(components(schemas(
    EmbeddingResponse,
    ClassifyResponse,
    ScoreResponse,
    RerankResponse,
    Finding,
    Prediction,
    PlacedPiece,
    Rank,
    LoraxEmbedding,
)))]
pub(super) struct ReadingAnswers;

/// The schema of a route's success.
pub(super) fn answer(path: &str) -> Option<Value> {
    let reference = |schema: &str| json!({"$ref": format!("#/components/schemas/{schema}")});
    let list_of = |items: Value| json!({"type": "array", "items": items});
    let numbers = || list_of(json!({"type": "number"}));
    Some(match path {
        "/v1/embeddings" => reference("EmbeddingResponse"),
        "/classify" => {
            json!({"oneOf": [reference("ClassifyResponse"), list_of(reference("Finding"))]})
        }
        "/classify_batch" => list_of(list_of(reference("Finding"))),
        "/score" | "/v1/score" => reference("ScoreResponse"),
        "/rerank" => json!({"oneOf": [reference("RerankResponse"), list_of(reference("Rank"))]}),
        "/v1/rerank" | "/v2/rerank" => reference("RerankResponse"),
        "/embed" => json!({"oneOf": [list_of(numbers()), reference("LoraxEmbedding")]}),
        "/embed_all" => list_of(list_of(numbers())),
        "/predict" => {
            let one = || list_of(reference("Prediction"));
            json!({"oneOf": [one(), list_of(one())]})
        }
        "/similarity" => numbers(),
        "/decode" => list_of(json!({"type": "string"})),
        _ => return None,
    })
}

/// What reading took.
#[derive(ToSchema)]
struct ReadUsage {
    prompt_tokens: u64,
    total_tokens: u64,
    /// 0 where it is there.
    completion_tokens: Option<u64>,
    /// The versions that read; absent for the base alone.
    #[schema(value_type = Option<Vec<Object>>)]
    adapters: Option<Vec<Value>>,
}

/// `POST /v1/embeddings`
#[derive(ToSchema)]
struct EmbeddingResponse {
    id: String,
    /// `list`
    object: String,
    /// Seconds since 1970.
    created: u64,
    /// As the request calls it.
    model: String,
    data: Vec<EmbeddedText>,
    usage: ReadUsage,
}

#[derive(ToSchema)]
struct EmbeddedText {
    index: u64,
    /// `embedding`
    object: String,
    /// Numbers, or base64 of them.
    #[schema(value_type = Value)]
    embedding: Value,
}

/// `POST /classify` of `input`
#[derive(ToSchema)]
struct ClassifyResponse {
    id: String,
    /// `list`
    object: String,
    /// Seconds since 1970.
    created: u64,
    /// As the request calls it.
    model: String,
    data: Vec<ClassifiedText>,
    usage: ReadUsage,
}

#[derive(ToSchema)]
struct ClassifiedText {
    index: u64,
    /// The likeliest; null where tokens are labelled.
    #[schema(required)]
    label: Option<String>,
    /// Of each label.
    probs: Vec<f64>,
    num_classes: u64,
    /// Where tokens are labelled.
    entities: Option<Vec<Finding>>,
}

/// Neighbouring words with one label, or a whole text with its likeliest.
#[derive(ToSchema)]
struct Finding {
    entity_group: String,
    score: f64,
    word: String,
    /// Characters before it.
    start: u64,
    end: u64,
}

/// `POST /score`
#[derive(ToSchema)]
struct ScoreResponse {
    id: String,
    /// `list`
    object: String,
    /// Seconds since 1970.
    created: u64,
    /// As the request calls it.
    model: String,
    data: Vec<ScoredPair>,
    usage: ReadUsage,
}

#[derive(ToSchema)]
struct ScoredPair {
    index: u64,
    /// `score`
    object: String,
    score: f64,
}

/// `POST /rerank` of `documents`
#[derive(ToSchema)]
struct RerankResponse {
    id: String,
    /// As the request calls it.
    model: String,
    usage: ReadUsage,
    /// The best first.
    results: Vec<RankedDocument>,
}

#[derive(ToSchema)]
struct RankedDocument {
    /// Its place in the request.
    index: u64,
    document: Option<Document>,
    relevance_score: f64,
}

#[derive(ToSchema)]
struct Document {
    text: String,
}

/// A token of `POST /tokenize` of a list.
#[derive(ToSchema)]
struct PlacedPiece {
    id: u32,
    text: String,
    special: bool,
    /// Characters before it; null for a special token.
    #[schema(required)]
    start: Option<u64>,
    #[schema(required)]
    stop: Option<u64>,
}

/// One of `POST /predict`, the best first.
#[derive(ToSchema)]
struct Prediction {
    score: f64,
    label: String,
}

/// One of `POST /rerank` of `texts`, the best first.
#[derive(ToSchema)]
struct Rank {
    /// Its place in the request.
    index: u64,
    text: Option<String>,
    score: f64,
}

/// `POST /embed` with `parameters` or `stream`
#[derive(ToSchema)]
struct LoraxEmbedding {
    embeddings: Vec<f64>,
}
