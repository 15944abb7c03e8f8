//! `POST /tokenize` and `POST /detokenize`: vLLM's form; where the body has `inputs`, LoRAX's of a text and TEI's of a list.
use super::{ApiError, AppState, Dialect, colliding, json::JsonBody, lorax, openai, tei};
use crate::generation::Prompt;
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
struct TokenizeFields {
    prompt: Option<String>,
    add_special_tokens: Option<bool>,
    return_token_strs: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct DetokenizeFields {
    tokens: Vec<u32>,
}

pub(super) async fn tokenize(
    State(app): State<AppState>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let dialect = match colliding::dialect("/tokenize", &body) {
        Dialect::Lorax if body.get("inputs").is_some_and(Value::is_array) => Dialect::Tei,
        dialect => dialect,
    };
    let answer = match dialect {
        Dialect::Tei => tei::tokenize(&app, &body).await,
        Dialect::Lorax => lorax::tokenize(&app, &body).await.map(IntoResponse::into_response),
        Dialect::OpenAi | Dialect::Vllm => {
            prompt_tokens(&app, &body).await.map(IntoResponse::into_response)
        }
    };
    answer.map_err(|error| error.in_dialect(dialect))
}

async fn prompt_tokens(app: &AppState, body: &JsonBody) -> Result<Json<Value>, ApiError> {
    let fields: TokenizeFields = body.read()?;
    let prompt = match fields.prompt {
        Some(text) => {
            Prompt::Text { text, add_special_tokens: fields.add_special_tokens.unwrap_or(true) }
        }
        None if body.get("messages").is_some() => {
            openai::chat_prompt(body, &openai::Tools::read(body)?)?
        }
        None => {
            let message = "the body needs a `prompt`, `messages` or `inputs`";
            return Err(ApiError::malformed("prompt", message));
        }
    };
    let tokens = app.generator.tokenize_prompt(prompt).await?;
    let texts = fields.return_token_strs.unwrap_or(false);
    let texts = texts.then(|| tokens.iter().map(|token| token.text.as_str()).collect::<Vec<_>>());
    Ok(Json(json!({
        "count": tokens.len(),
        "max_model_len": app.generator.model().max_context,
        "tokens": tokens.iter().map(|token| token.id).collect::<Vec<_>>(),
        "token_strs": texts,
    })))
}

#[cfg(test)]
pub(super) fn tokenize_fields() -> Vec<&'static str> {
    super::json::known_fields::<TokenizeFields>()
}

pub(super) async fn detokenize(
    State(app): State<AppState>,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    let DetokenizeFields { tokens } = body.read()?;
    Ok(Json(json!({"prompt": app.generator.detokenize(tokens).await?})))
}
