//! `POST /embed`, `/embed_all` and `/embed_sparse`
use super::{fields::Cut, headers::measured};
use crate::{
    generation::{EncodeInput, EncodeRequest, Priority, Wanted},
    http::{
        ApiError, AppState,
        json::rendered,
        openai::refused::{self, NEVER},
        reading::{Ask, Call, counted, inputs, numbers, read, token_vectors, vectors},
    },
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::time::Instant;

const FIELD: &str = "inputs";

/// What only embeddings have.
#[derive(Debug, Deserialize)]
struct EmbedFields {
    normalize: Option<bool>,
    prompt_name: Option<String>,
    dimensions: Option<usize>,
}

pub(in crate::http) async fn embed(app: &AppState, call: Call) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let fields: EmbedFields = call.body.read()?;
    let wanted = Wanted::Embedding {
        normalize: Some(fields.normalize.unwrap_or(true)),
        dimensions: fields.dimensions,
        prompt: fields.prompt_name,
    };
    let (request, split) = request(app, &call, wanted)?;
    let characters = characters(&request.inputs);
    let encoded = read(app, request, split).await?;
    let cost = EncodeRequest::cost(&encoded);
    let headers = measured(app.generator.model(), cost, characters, begun);
    let vectors = vectors(encoded)?;
    Ok((headers, rendered(numbers(&vectors), move || vectors).await?).into_response())
}

pub(in crate::http) async fn embed_all(
    State(app): State<AppState>,
    call: Call,
) -> Result<Response, ApiError> {
    let begun = Instant::now();
    refused::check(&call.body, &[("prompt_name", NEVER)])?;
    let (request, split) = request(&app, &call, Wanted::TokenEmbeddings)?;
    let characters = characters(&request.inputs);
    let encoded = read(&app, request, split).await?;
    let cost = EncodeRequest::cost(&encoded);
    let headers = measured(app.generator.model(), cost, characters, begun);
    let vectors = token_vectors(encoded)?;
    let entries = vectors.iter().map(|vectors| numbers(vectors)).sum();
    Ok((headers, rendered(entries, move || vectors).await?).into_response())
}

/// There is no head here that says how much a text is about each word.
pub(in crate::http) async fn embed_sparse() -> ApiError {
    ApiError::unserved("sparse embeddings are not served; POST /embed gives dense ones")
}

fn request(
    app: &AppState,
    call: &Call,
    wanted: Wanted,
) -> Result<(EncodeRequest, crate::http::split::Split), ApiError> {
    let truncation = call.body.read::<Cut>()?.truncation();
    let inputs = counted(inputs(call.body.get(FIELD), FIELD)?, FIELD, app.config.max_texts)?;
    let chosen = call.chosen(app)?;
    let request = EncodeRequest {
        inputs,
        field: FIELD,
        add_special_tokens: true,
        adapters: chosen.adapters,
        wanted,
        truncation,
        priority: Priority::Normal,
    };
    Ok((request, chosen.split))
}

/// Characters of all texts; of token ids, their number.
pub(super) fn characters(inputs: &[EncodeInput]) -> usize {
    let of = |input: &EncodeInput| match input {
        EncodeInput::Text(text) => text.chars().count(),
        EncodeInput::Pair(first, second) => first.chars().count() + second.chars().count(),
        EncodeInput::Tokens(ids) => ids.len(),
    };
    inputs.iter().map(of).sum()
}

#[cfg(test)]
pub(in crate::http) fn embed_fields() -> Vec<&'static str> {
    use crate::http::json::known_fields;
    [known_fields::<Cut>(), known_fields::<EmbedFields>()].concat()
}
