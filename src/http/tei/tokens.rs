//! `POST /tokenize` of a list, and `POST /decode`
use crate::http::{
    ApiError, AppState,
    json::{JsonBody, rendered},
    openai::refused::{self, NEVER},
    reading::{counted, texts},
};
use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize)]
struct TokenizeFields {
    add_special_tokens: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Piece {
    id: u32,
    text: String,
    special: bool,
    start: Option<usize>,
    stop: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct DecodeFields {
    skip_special_tokens: Option<bool>,
}

/// Each text's tokens with their places in it.
pub(in crate::http) async fn tokenize(
    app: &AppState,
    body: &JsonBody,
) -> Result<Response, ApiError> {
    const FIELD: &str = "inputs";
    refused::check(body, &[("prompt_name", NEVER)])?;
    let special = body.read::<TokenizeFields>()?.add_special_tokens.unwrap_or(true);
    let texts = counted(texts(body.get(FIELD), FIELD)?, FIELD, app.config.max_texts)?;
    let mut all = Vec::with_capacity(texts.len());
    for text in texts {
        let placed = app.generator.places(text, special).await?;
        let pieces = placed.into_iter().map(|token| Piece {
            id: token.id,
            text: token.text,
            special: token.characters.is_none(),
            start: token.characters.as_ref().map(|characters| characters.start),
            stop: token.characters.map(|characters| characters.end),
        });
        all.push(pieces.collect::<Vec<_>>());
    }
    rendered(all.iter().map(|pieces| pieces.len() * 5).sum(), move || all).await
}

/// The text of each list of ids.
pub(in crate::http) async fn decode(
    State(app): State<AppState>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    const FIELD: &str = "ids";
    let skips = body.read::<DecodeFields>()?.skip_special_tokens.unwrap_or(true);
    let lists = counted(id_lists(&body)?, FIELD, app.config.max_texts)?;
    let mut texts = Vec::with_capacity(lists.len());
    for ids in lists {
        let text = app.generator.text_of(ids, skips).await;
        texts.push(text.map_err(|error| ApiError::from(error).with_param(FIELD))?);
    }
    rendered(texts.len(), move || texts).await
}

/// A list of ids, or a list of such lists.
fn id_lists(body: &JsonBody) -> Result<Vec<Vec<u32>>, ApiError> {
    #[derive(Deserialize)]
    struct One {
        ids: Vec<u32>,
    }
    #[derive(Deserialize)]
    struct Each {
        ids: Vec<Vec<u32>>,
    }
    match body.get("ids").and_then(|ids| ids.get(0)) {
        Some(first) if first.is_array() => Ok(body.read::<Each>()?.ids),
        None if body.get("ids").is_some_and(serde_json::Value::is_array) => {
            Err(ApiError::empty("ids"))
        }
        _ => Ok(vec![body.read::<One>()?.ids]),
    }
}
