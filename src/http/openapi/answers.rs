//! Bodies of answers as clients read them. Nothing makes these types: handlers write JSON, and tests hold what a
//! server answers to what stands here.
#![expect(dead_code, reason = "they are described, never made")]
use super::reading_answers;
use crate::http::Route;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use utoipa::{OpenApi, ToSchema};

/// Every body.
#[derive(OpenApi)]
#[openapi(components(schemas(
    CompletionResponse,
    ChatCompletionResponse,
    ModelList,
    Model,
    DeletedModel,
    GenerateResponse,
    ServerInfo,
    TokenizeResponse,
    Piece,
    DetokenizeResponse,
    LoraAdapter,
    Success,
    ServerLoad,
    Sleeping,
    Version,
    Status,
    AdapterPage,
    Adapter,
    Report,
    Changed,
    Events,
    Alias,
    Aliases,
)))]
pub(super) struct Answers;

/// The schema of a route's success, where that is JSON.
pub(super) fn answer(route: &Route) -> Value {
    let reference = |schema: &str| json!({"$ref": format!("#/components/schemas/{schema}")});
    let list_of = |schema: &str| json!({"type": "array", "items": reference(schema)});
    match (route.method, route.path) {
        (_, "/v1/completions") => reference("CompletionResponse"),
        (_, "/v1/chat/completions") => reference("ChatCompletionResponse"),
        ("GET", "/v1/models") => reference("ModelList"),
        ("GET", "/v1/models/{*id}") => reference("Model"),
        ("DELETE", "/v1/models/{*id}") => reference("DeletedModel"),
        (_, "/generate") => reference("GenerateResponse"),
        (_, "/") => list_of("GenerateResponse"),
        (_, "/info") => reference("ServerInfo"),
        (_, "/tokenize") => {
            let each = json!({"type": "array", "items": list_of("PlacedPiece")});
            json!({"anyOf": [reference("TokenizeResponse"), list_of("Piece"), each]})
        }
        (_, "/detokenize") => reference("DetokenizeResponse"),
        ("GET", "/lora-adapters") => list_of("LoraAdapter"),
        ("POST", "/lora-adapters") => reference("Success"),
        (_, "/load") => reference("ServerLoad"),
        (_, "/is_sleeping") => reference("Sleeping"),
        (_, "/version") => reference("Version"),
        (_, "/v1/health") => reference("Status"),
        ("GET", "/admin/adapters") => reference("AdapterPage"),
        ("GET" | "PATCH", "/admin/adapters/{name}") => reference("Adapter"),
        ("PUT", "/admin/adapters/{name}") => reference("Report"),
        ("DELETE", "/admin/adapters/{name}" | "/admin/aliases/{alias}")
        | ("POST", "/admin/adapters/{name}/rollback") => reference("Changed"),
        (_, "/admin/events") => reference("Events"),
        ("GET", "/admin/aliases") => reference("Aliases"),
        (_, path) if path.starts_with("/admin/aliases/") => reference("Alias"),
        (_, path) => reading_answers::answer(path).unwrap_or_else(|| json!({})),
    }
}

/// What an answer took.
#[derive(ToSchema)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
    /// The versions that answered; absent for the base alone.
    adapters: Option<Vec<Served>>,
}

#[derive(ToSchema)]
struct PromptDetails {
    /// Found in the prefix cache.
    cached_tokens: u64,
}

#[derive(ToSchema)]
struct CompletionDetails {
    /// 0: nothing is left out of an answer.
    reasoning_tokens: u64,
}

/// A version that answered.
#[derive(ToSchema)]
struct Served {
    name: String,
    /// A hash of its content.
    version: String,
    /// How much of it: 1 is all.
    weight: f64,
}

/// `POST /v1/completions`
#[derive(ToSchema)]
struct CompletionResponse {
    id: String,
    /// `text_completion`
    object: String,
    /// Seconds since 1970.
    created: u64,
    /// As the request calls it.
    model: String,
    choices: Vec<CompletionChoice>,
    usage: Usage,
    /// The same as long as base model and program are.
    system_fingerprint: String,
}

#[derive(ToSchema)]
struct CompletionChoice {
    /// The prompt's place times `n`, and the answer's.
    index: u64,
    text: String,
    #[schema(required)]
    logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`
    finish_reason: String,
    /// The stop string or token that ended it.
    #[schema(required, value_type = Value)]
    stop_reason: Value,
    /// One entry a token: null for the first, else by token id.
    #[schema(value_type = Option<Vec<Value>>)]
    prompt_logprobs: Option<Vec<Value>>,
    prompt_token_ids: Option<Vec<u32>>,
    token_ids: Option<Vec<u32>>,
}

#[derive(ToSchema)]
struct CompletionLogprobs {
    text_offset: Vec<u64>,
    token_logprobs: Vec<Option<f64>>,
    tokens: Vec<String>,
    top_logprobs: Vec<Option<BTreeMap<String, f64>>>,
}

/// `POST /v1/chat/completions`
#[derive(ToSchema)]
struct ChatCompletionResponse {
    id: String,
    /// `chat.completion`
    object: String,
    /// Seconds since 1970.
    created: u64,
    /// As the request calls it.
    model: String,
    choices: Vec<ChatChoice>,
    usage: Usage,
    /// The same as long as base model and program are.
    system_fingerprint: String,
    /// One entry a token: null for the first, else by token id.
    #[schema(value_type = Option<Vec<Value>>)]
    prompt_logprobs: Option<Vec<Value>>,
    prompt_token_ids: Option<Vec<u32>>,
}

#[derive(ToSchema)]
struct ChatChoice {
    index: u64,
    message: AssistantMessage,
    #[schema(required)]
    logprobs: Option<ChatLogprobs>,
    /// `stop`, `length` or `tool_calls`
    finish_reason: String,
    /// The stop string or token that ended it.
    #[schema(required, value_type = Value)]
    stop_reason: Value,
    token_ids: Option<Vec<u32>>,
}

#[derive(ToSchema)]
struct AssistantMessage {
    /// `assistant`
    role: String,
    #[schema(required)]
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(ToSchema)]
struct ToolCall {
    id: String,
    /// `function`
    r#type: String,
    function: CalledFunction,
}

#[derive(ToSchema)]
struct CalledFunction {
    name: String,
    /// JSON, as the model wrote it.
    arguments: String,
}

#[derive(ToSchema)]
struct ChatLogprobs {
    content: Vec<ChatToken>,
}

#[derive(ToSchema)]
struct ChatToken {
    token: String,
    logprob: f64,
    bytes: Vec<u8>,
    top_logprobs: Vec<Alternative>,
}

#[derive(ToSchema)]
struct Alternative {
    token: String,
    logprob: f64,
    bytes: Vec<u8>,
}

/// `GET /v1/models`
#[derive(ToSchema)]
struct ModelList {
    /// `list`
    object: String,
    data: Vec<Model>,
}

/// The base, an adapter or an alias.
#[derive(ToSchema)]
struct Model {
    id: String,
    /// `model`
    object: String,
    /// Seconds since 1970.
    created: u64,
    owned_by: String,
    /// Where it comes from.
    root: String,
    /// The base of an adapter or alias; null for the base.
    #[schema(required)]
    parent: Option<String>,
    #[schema(required)]
    max_model_len: Option<u64>,
    /// What the base or an adapter can be asked for: `generate`, `embed`, `classify`, `token_classify`, `score`.
    tasks: Option<Vec<String>>,
    /// Of the head that classifies.
    labels: Option<Vec<String>>,
}

/// `DELETE /v1/models/{id}`
#[derive(ToSchema)]
struct DeletedModel {
    id: String,
    /// `model`
    object: String,
    deleted: bool,
}

/// `POST /generate`, and in a list `POST /`
#[derive(ToSchema)]
struct GenerateResponse {
    generated_text: String,
    /// Only where the request asks for it.
    #[schema(value_type = Option<Object>)]
    details: Option<Map<String, Value>>,
}

/// `GET /info`: more than these, under LoRAX's and TGI's names.
#[derive(ToSchema)]
struct ServerInfo {
    model_id: String,
    model_dtype: String,
    model_device_type: String,
    max_concurrent_requests: u64,
    max_input_length: u64,
    max_input_tokens: u64,
    max_total_tokens: u64,
    version: String,
}

/// `POST /tokenize` of `prompt` or `messages`
#[derive(ToSchema)]
struct TokenizeResponse {
    count: u64,
    max_model_len: u64,
    tokens: Vec<u32>,
    #[schema(required)]
    token_strs: Option<Vec<String>>,
}

/// A token of `POST /tokenize` of `inputs`.
#[derive(ToSchema)]
struct Piece {
    id: u32,
    text: String,
    start: u64,
    stop: u64,
}

/// `POST /detokenize`
#[derive(ToSchema)]
struct DetokenizeResponse {
    prompt: String,
}

/// An adapter as llama.cpp lists it.
#[derive(ToSchema)]
struct LoraAdapter {
    id: u64,
    path: String,
    /// What requests get of it that name no adapter.
    scale: f64,
}

/// `POST /lora-adapters`
#[derive(ToSchema)]
struct Success {
    success: bool,
}

/// `GET /load`
#[derive(ToSchema)]
struct ServerLoad {
    server_load: u64,
}

/// `GET /is_sleeping`
#[derive(ToSchema)]
struct Sleeping {
    is_sleeping: bool,
}

/// `GET /version`
#[derive(ToSchema)]
struct Version {
    version: String,
}

/// `GET /v1/health`
#[derive(ToSchema)]
struct Status {
    /// `ok`
    status: String,
}

/// `GET /admin/adapters`
#[derive(ToSchema)]
struct AdapterPage {
    adapters: Vec<Adapter>,
    /// The `after` of the next page.
    #[schema(required)]
    next: Option<String>,
    total: u64,
}

/// An adapter as it stands.
#[derive(ToSchema)]
struct Adapter {
    name: String,
    /// llama.cpp's id of it.
    number: u64,
    version: String,
    /// Seconds since 1970.
    published_at: u64,
    published_by: String,
    #[schema(value_type = Object)]
    source: Map<String, Value>,
    /// Served from where others have put it.
    drop_in: bool,
    /// Kept over a restart.
    durable: bool,
    /// `device`, `host` or `store`
    tier: String,
    resident: bool,
    /// Requests that hold the current version.
    leases: u64,
    kept_versions: u64,
    kind: String,
    /// `task_type` of its config.
    #[schema(required)]
    task: Option<String>,
    /// Names of what it scores, in the order of the scores.
    labels: Vec<String>,
    /// Rows and columns of its own classification head.
    #[schema(required)]
    head: Option<Vec<u64>>,
    rank: u64,
    alpha: f64,
    /// In memory.
    bytes: u64,
    file_bytes: u64,
    sites: u64,
    layers: u64,
    parameters: u64,
    #[schema(value_type = Object)]
    terms: Map<String, Value>,
    #[schema(value_type = Object)]
    usage: Map<String, Value>,
    /// Of one adapter alone: what is kept, the current one first.
    #[schema(value_type = Option<Vec<Object>>)]
    versions: Option<Vec<Value>>,
}

/// `PUT /admin/adapters/{name}`
#[derive(ToSchema)]
struct Report {
    name: String,
    version: String,
    /// `created`, `replaced`, `unchanged`, or `valid` of a dry run
    outcome: String,
    #[schema(required)]
    previous: Option<String>,
    durable: bool,
    kind: String,
    /// `task_type` of its config.
    #[schema(required)]
    task: Option<String>,
    /// Names of what it scores, in the order of the scores.
    labels: Vec<String>,
    /// Rows and columns of its own classification head.
    #[schema(required)]
    head: Option<Vec<u64>>,
    rank: u64,
    alpha: f64,
    bytes: u64,
    file_bytes: u64,
    parameters: u64,
    sites: u64,
    layers: u64,
    /// Frobenius norm of all that it changes.
    delta_norm: f64,
    #[schema(value_type = Vec<Object>)]
    projections: Vec<Value>,
    warnings: Vec<String>,
}

/// What became of a name.
#[derive(ToSchema)]
struct Changed {
    name: String,
    outcome: String,
}

/// `GET /admin/events`
#[derive(ToSchema)]
struct Events {
    events: Vec<Event>,
}

#[derive(ToSchema)]
struct Event {
    /// Seconds since 1970.
    at: f64,
    actor: String,
    action: String,
    name: String,
}

/// A name that stands for others.
#[derive(ToSchema)]
struct Alias {
    name: String,
    revision: String,
    #[schema(value_type = Vec<Object>)]
    targets: Vec<Value>,
    #[schema(required)]
    shadow: Option<String>,
    durable: bool,
}

/// `GET /admin/aliases`
#[derive(ToSchema)]
struct Aliases {
    aliases: Vec<Alias>,
}
