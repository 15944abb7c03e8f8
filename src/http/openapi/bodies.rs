//! Bodies of requests as clients write them. Nothing reads these types: handlers read a body in parts, and a test holds
//! both to the same fields.
#![expect(dead_code, reason = "they are described, never made")]
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use utoipa::{OpenApi, ToSchema};

/// Every body.
#[derive(OpenApi)]
#[openapi(components(schemas(
    CompletionRequest,
    ChatCompletionRequest,
    GenerateRequest,
    TokenizeRequest,
    DetokenizeRequest,
    LoadLoraAdapter,
    UnloadLoraAdapter,
    TermsPatch,
    RollBack,
    LoraScale,
    AliasForm,
    SourceReference,
)))]
pub(super) struct Bodies;

/// What a stream says besides text.
#[derive(ToSchema)]
struct StreamOptions {
    /// A last chunk with the usage.
    include_usage: Option<bool>,
    /// With `include_usage`: running counts in every chunk.
    continuous_usage_stats: Option<bool>,
}

/// What completions and chat completions share.
#[derive(ToSchema)]
struct SharedFields {
    /// The base, an adapter, `name@version` or an alias; nothing is the base.
    model: Option<String>,
    /// Answers to each prompt.
    #[schema(minimum = 1, default = 1)]
    n: Option<usize>,
    /// Answer as server-sent events.
    #[schema(default = false)]
    stream: Option<bool>,
    /// Only with `stream`.
    stream_options: Option<StreamOptions>,
    /// Most new tokens: 16 for completions, else what the context leaves; 0 only with `echo`.
    #[schema(minimum = 0)]
    max_tokens: Option<usize>,
    /// 0 is greedy.
    #[schema(minimum = 0.0, maximum = 100.0)]
    temperature: Option<f32>,
    /// Above 0.
    #[schema(minimum = 0.0, maximum = 1.0)]
    top_p: Option<f32>,
    /// 0 and -1 keep all.
    #[schema(minimum = -1)]
    top_k: Option<i64>,
    /// A share of the likeliest token's probability.
    #[schema(minimum = 0.0, maximum = 1.0)]
    min_p: Option<f32>,
    /// Above 0.
    #[schema(minimum = 0.0, maximum = 1.0)]
    typical_p: Option<f32>,
    /// Above 0; 1 changes nothing.
    #[schema(minimum = 0.0, maximum = 100.0)]
    repetition_penalty: Option<f32>,
    /// Once for a token that the answer has.
    #[schema(minimum = -2.0, maximum = 2.0)]
    presence_penalty: Option<f32>,
    /// Each time that the answer has it.
    #[schema(minimum = -2.0, maximum = 2.0)]
    frequency_penalty: Option<f32>,
    /// The same seed, the same answer.
    seed: Option<i64>,
    /// A string or up to 16, each of 1 to 256 bytes.
    #[schema(value_type = Option<Value>)]
    stop: Option<Value>,
    /// Tokens that end the answer, up to 300.
    stop_token_ids: Option<Vec<u32>>,
    /// No end before that many tokens.
    #[schema(minimum = 0)]
    min_tokens: Option<usize>,
    /// Run on past the model's own end.
    ignore_eos: Option<bool>,
    /// Token ids, as decimals, and what is added to their logits.
    logit_bias: Option<BTreeMap<String, f32>>,
    /// Leave special tokens out of the text.
    #[schema(default = true)]
    skip_special_tokens: Option<bool>,
    /// Keep the stop string that ended the answer.
    include_stop_str_in_output: Option<bool>,
    /// Only the last so many tokens of the prompt; -1 as many as fit.
    #[schema(minimum = -1)]
    truncate_prompt_tokens: Option<i64>,
    /// Let the tokenizer begin the prompt as its rules say.
    #[schema(default = true)]
    add_special_tokens: Option<bool>,
    /// Only these may be drawn; at least one.
    allowed_token_ids: Option<Vec<u32>>,
    /// Words that must not come; up to 256.
    bad_words: Option<Vec<String>>,
    /// Share cached beginnings with the same salt alone; no `@`, `/`, `\` or NUL.
    #[schema(min_length = 1, max_length = 128)]
    cache_salt: Option<String>,
    /// Above 0 can wait; below 0 is refused.
    priority: Option<i64>,
    /// Log-probabilities of the prompt with so many alternatives; not with `stream`.
    #[schema(minimum = 0, maximum = 20)]
    prompt_logprobs: Option<usize>,
    /// Tell the ids of prompt and answer.
    return_token_ids: Option<bool>,
    /// Call tokens `token_id:ID` in `logprobs`.
    return_tokens_as_token_ids: Option<bool>,
    /// Several adapters: names, or objects of `name` and `weight`; then `model` is the base.
    #[schema(value_type = Option<Vec<Value>>)]
    adapters: Option<Vec<Value>>,
    /// llama.cpp's: objects of `id` or `name`, and `scale`.
    #[schema(value_type = Option<Vec<Value>>)]
    lora: Option<Vec<Value>>,
    /// `text`, `json_object` or `json_schema`.
    #[schema(value_type = Option<Object>)]
    response_format: Option<Value>,
    /// vLLM's: one of `json`, `regex`, `choice`, `grammar`, `json_object`.
    #[schema(value_type = Option<Object>)]
    structured_outputs: Option<Value>,
}

/// `POST /v1/completions`
#[derive(ToSchema)]
struct CompletionRequest {
    #[schema(inline)]
    #[serde(flatten)]
    shared: SharedFields,
    /// A text, token ids, or a list of either.
    #[schema(value_type = Value)]
    prompt: Value,
    /// Log-probabilities of the answer with so many alternatives.
    #[schema(minimum = 0, maximum = 20)]
    logprobs: Option<usize>,
    /// The prompt before the answer.
    echo: Option<bool>,
    /// Answers to make, of which the likeliest `n` are shown; not with `stream`.
    #[schema(minimum = 1)]
    best_of: Option<usize>,
}

/// `POST /v1/chat/completions`
#[derive(ToSchema)]
struct ChatCompletionRequest {
    #[schema(inline)]
    #[serde(flatten)]
    shared: SharedFields,
    /// Objects of `role` (system, developer, user, assistant, tool) and `content`; 1 to 4096.
    #[schema(value_type = Vec<Object>)]
    messages: Vec<Value>,
    /// Most new tokens; goes before `max_tokens`.
    #[schema(minimum = 1)]
    max_completion_tokens: Option<usize>,
    /// Log-probabilities of the answer.
    logprobs: Option<bool>,
    /// Alternatives to each token; needs `logprobs`.
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<usize>,
    /// Show the message that is continued before its continuation.
    echo: Option<bool>,
    /// Functions that may be called; 1 to 128.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<Value>>,
    /// `none`, `auto`, `required` or a function.
    #[schema(value_type = Option<Value>)]
    tool_choice: Option<Value>,
    /// Whether an answer may have several calls.
    parallel_tool_calls: Option<bool>,
    /// Objects for a template that takes them.
    #[schema(value_type = Option<Vec<Object>>)]
    documents: Option<Vec<Value>>,
    /// For the template.
    reasoning_effort: Option<String>,
    /// Open the assistant's turn.
    add_generation_prompt: Option<bool>,
    /// Continue the last message; excludes the former.
    continue_final_message: Option<bool>,
    /// More variables for the template.
    #[schema(value_type = Option<Object>)]
    chat_template_kwargs: Option<Map<String, Value>>,
}

/// LoRAX's and TGI's `parameters`.
#[derive(ToSchema)]
struct GenerateParameters {
    /// An adapter or an alias; nothing and `__base_model__` are the base.
    adapter_id: Option<String>,
    /// `local` or `hub`; changes nothing.
    adapter_source: Option<String>,
    /// Answers to make, the likeliest is told first; needs chance, no stream.
    #[schema(minimum = 1)]
    best_of: Option<usize>,
    /// The prompt's tokens in `details`; no stream.
    decoder_input_details: Option<bool>,
    /// Above 0.
    #[schema(minimum = 0.0, maximum = 1.0)]
    typical_p: Option<f32>,
    /// 0 is greedy.
    #[schema(minimum = 0.0, maximum = 100.0)]
    temperature: Option<f32>,
    /// 0 keeps all.
    #[schema(minimum = 0)]
    top_k: Option<usize>,
    /// Above 0.
    #[schema(minimum = 0.0, maximum = 1.0)]
    top_p: Option<f32>,
    /// Above 0; 1 changes nothing.
    #[schema(minimum = 0.0, maximum = 100.0)]
    repetition_penalty: Option<f32>,
    /// Each time that the answer has a token.
    #[schema(minimum = -2.0, maximum = 2.0)]
    frequency_penalty: Option<f32>,
    /// Once for a token that the answer has.
    #[schema(minimum = -2.0, maximum = 2.0)]
    presence_penalty: Option<f32>,
    /// Draw; else the likeliest token is taken.
    do_sample: Option<bool>,
    /// The same seed, the same answer.
    #[schema(minimum = 0)]
    seed: Option<u64>,
    /// Most new tokens.
    #[schema(minimum = 1, default = 100)]
    max_new_tokens: Option<usize>,
    /// Run on past the model's own end.
    ignore_eos_token: Option<bool>,
    /// The prompt before the answer.
    return_full_text: Option<bool>,
    /// Up to 4.
    stop: Option<Vec<String>>,
    /// Only the last so many tokens of the prompt.
    #[schema(minimum = 1)]
    truncate: Option<usize>,
    /// Tokens, counts and why it ended.
    details: Option<bool>,
    /// `inputs` is what a user says.
    apply_chat_template: Option<bool>,
    /// Alternatives to each token.
    #[schema(minimum = 0, maximum = 20)]
    return_k_alternatives: Option<usize>,
    /// The same.
    #[schema(minimum = 0, maximum = 20)]
    top_n_tokens: Option<usize>,
    /// `ids` and `weights`; `merge_strategy` is `linear`.
    #[schema(value_type = Option<Object>)]
    merged_adapters: Option<Value>,
    /// Names, or objects of `name` and `weight`.
    #[schema(value_type = Option<Vec<Value>>)]
    adapters: Option<Vec<Value>>,
    /// Objects of `id` or `name`, and `scale`.
    #[schema(value_type = Option<Vec<Value>>)]
    lora: Option<Vec<Value>>,
    /// `json_object` with its `schema`.
    #[schema(value_type = Option<Object>)]
    response_format: Option<Value>,
    /// TGI's: `json`, `regex` or `json_schema` with its `value`.
    #[schema(value_type = Option<Object>)]
    grammar: Option<Value>,
}

/// `POST /generate`, `/generate_stream`, `/`
#[derive(ToSchema)]
struct GenerateRequest {
    /// The prompt.
    inputs: String,
    /// How to continue it.
    parameters: Option<GenerateParameters>,
    /// `POST /` alone: answer as server-sent events.
    stream: Option<bool>,
}

/// `POST /tokenize`: one of `prompt`, `messages` and LoRAX's and TEI's `inputs`.
#[derive(ToSchema)]
struct TokenizeRequest {
    /// A text.
    prompt: Option<String>,
    /// A conversation, as for chat.
    #[schema(value_type = Option<Vec<Object>>)]
    messages: Option<Vec<Value>>,
    /// A text, answered as LoRAX does, or a list of texts, as TEI does.
    #[schema(value_type = Option<Value>)]
    inputs: Option<Value>,
    /// Let the tokenizer begin the text as its rules say.
    #[schema(default = true)]
    add_special_tokens: Option<bool>,
    /// The tokens' texts too.
    return_token_strs: Option<bool>,
}

/// `POST /detokenize`
#[derive(ToSchema)]
struct DetokenizeRequest {
    /// Token ids.
    tokens: Vec<u32>,
}

/// `POST /v1/load_lora_adapter`
#[derive(ToSchema)]
struct LoadLoraAdapter {
    /// What requests will call it.
    lora_name: String,
    /// A path below --lora-path-prefixes, a hub id, or a published adapter's name.
    lora_path: String,
    /// Replace what the name means.
    load_inplace: Option<bool>,
}

/// `POST /v1/unload_lora_adapter`
#[derive(ToSchema)]
struct UnloadLoraAdapter {
    /// What requests call it.
    lora_name: String,
}

/// `PATCH /admin/adapters/{name}`
#[derive(ToSchema)]
struct TermsPatch {
    /// `pin`, `share`, `max_requests`, `requests_per_minute`, `keys`, `keep_versions`; null is the usual.
    #[schema(value_type = Object)]
    terms: Map<String, Value>,
}

/// `POST /admin/adapters/{name}/rollback`
#[derive(ToSchema)]
struct RollBack {
    /// A version; nothing is the one before the current one.
    version: Option<String>,
}

/// One of `POST /lora-adapters`.
#[derive(ToSchema)]
struct LoraScale {
    /// As `GET /lora-adapters` says.
    id: u64,
    /// What requests get of it that name no adapter.
    scale: f64,
}

/// `PUT /admin/aliases/{alias}`
#[derive(ToSchema)]
struct AliasForm {
    /// 1 to 16.
    targets: Vec<AliasTarget>,
    /// `header` or `field`: equal values get the same target.
    #[schema(value_type = Option<Object>)]
    sticky: Option<Value>,
    /// A model that answers the same requests unseen.
    shadow: Option<String>,
    /// `max_error_rate`, `max_non_finite`, `min_requests`, `window_seconds`: takes a change back that goes wrong.
    #[schema(value_type = Option<Object>)]
    guard: Option<Value>,
}

/// What an alias stands for.
#[derive(ToSchema)]
struct AliasTarget {
    /// An adapter, `name@version`, or the base.
    model: String,
    /// A share; one target needs none.
    #[schema(minimum = 0.0)]
    weight: Option<f64>,
}

/// `PUT /admin/adapters/{name}` by reference.
#[derive(ToSchema)]
struct SourceReference {
    /// `hf://org/name@revision`, within --adapter-sources.
    source: String,
    /// Names of what its head scores.
    labels: Option<Vec<String>>,
}
