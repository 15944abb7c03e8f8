//! `POST /embed`, `/classify` and `/classify_batch` as LoRAX answers them.
use super::headers::{self, Times};
use crate::{
    generation::{
        EncodeInput, EncodeRequest, Encoded, Labels, Priority, Truncation, Usage, Wanted,
    },
    http::{
        ApiError, AppState,
        json::rendered,
        reading::{
            Ask, Call, Cost, EntityShown, Scores, best, counted, numbers, read, scores, texts,
            vectors, whole_text,
        },
        served,
    },
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::time::Instant;

const FIELD: &str = "inputs";

/// One text, one vector.
pub(in crate::http) async fn embed(app: &AppState, call: Call) -> Result<Response, ApiError> {
    let text = one(&call)?;
    let wanted = Wanted::Embedding { normalize: None, dimensions: None, prompt: None };
    let (headers, encoded) = asked(app, &call, vec![text], wanted).await?;
    let vectors = vectors(encoded)?;
    let answer = rendered(
        numbers(&vectors),
        move || json!({"embeddings": vectors.into_iter().next().unwrap_or_default()}),
    );
    Ok((headers, answer.await?).into_response())
}

/// One text, what was found in it.
pub(in crate::http) async fn classify(app: &AppState, call: Call) -> Result<Response, ApiError> {
    let text = one(&call)?;
    let (headers, mut found) = found(app, &call, vec![text]).await?;
    let found = found.pop().unwrap_or_default();
    Ok((headers, rendered(found.len() * 5, move || found).await?).into_response())
}

/// Several texts, what was found in each.
pub(in crate::http) async fn classify_batch(
    State(app): State<AppState>,
    call: Call,
) -> Result<Response, ApiError> {
    let texts = match call.body.get(FIELD) {
        Some(Value::String(_)) => {
            let message = "`inputs` must be a list of strings; POST /classify takes a single one";
            return Err(ApiError::malformed(FIELD, message));
        }
        value => counted(texts(value, FIELD)?, FIELD, app.config.max_texts)?,
    };
    if let Some(at) = texts.iter().position(String::is_empty) {
        return Err(ApiError::empty(&format!("{FIELD}[{at}]")));
    }
    let (headers, found) = found(&app, &call, texts).await?;
    let entries = found.iter().map(|found| found.len() * 5).sum();
    Ok((headers, rendered(entries, move || found).await?).into_response())
}

fn one(call: &Call) -> Result<String, ApiError> {
    match call.body.get(FIELD) {
        None => Err(ApiError::malformed(FIELD, "`inputs` is missing")),
        Some(Value::String(text)) if text.is_empty() => Err(ApiError::empty(FIELD)),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => {
            let message = "`inputs` must be a string; POST /classify_batch takes a list of them";
            Err(ApiError::malformed(FIELD, message))
        }
    }
}

async fn found(
    app: &AppState,
    call: &Call,
    texts: Vec<String>,
) -> Result<(HeaderMap, Vec<Vec<EntityShown>>), ApiError> {
    let wanted = Wanted::Labels { raw: false };
    let (headers, encoded) = asked(app, call, texts.clone(), wanted).await?;
    let (labels, said) = scores(encoded)?;
    let found = said.into_iter().zip(texts).map(|(said, text)| match said {
        Scores::Found(found) => found,
        Scores::OfText(scores) => likeliest(&scores, &labels, text).into_iter().collect(),
    });
    Ok((headers, found.collect()))
}

/// A head of whole texts finds the text itself.
fn likeliest(scores: &[f32], labels: &Labels, text: String) -> Option<EntityShown> {
    let at = best(scores)?;
    Some(whole_text(labels.names.get(at)?.clone(), *scores.get(at)?, text))
}

async fn asked(
    app: &AppState,
    call: &Call,
    texts: Vec<String>,
    wanted: Wanted,
) -> Result<(HeaderMap, Encoded), ApiError> {
    let begun = Instant::now();
    let characters = texts.iter().map(|text| text.chars().count()).sum();
    let chosen = call.chosen(app)?;
    let parameters = call.body.get("parameters").and_then(Value::as_object);
    let source = parameters.and_then(|fields| fields.get("adapter_source")?.as_str());
    let model = app.generator.model();
    let mut known = headers::known(model, &chosen.adapters, source, characters);
    let request = EncodeRequest {
        inputs: texts.into_iter().map(EncodeInput::Text).collect(),
        field: FIELD,
        add_special_tokens: true,
        adapters: chosen.adapters,
        wanted,
        truncation: Truncation::default(),
        priority: Priority::Normal,
    };
    let validation = begun.elapsed();
    let encoded = read(app, request, chosen.split).await?;
    let Cost { tokens, queued, .. } = EncodeRequest::cost(&encoded);
    let usage = Usage { prompt_tokens: tokens, queued, ..Usage::default() };
    known.extend(served::header(&encoded.served));
    let times = Times { total: begun.elapsed(), validation };
    for (name, value) in headers::measured(usage, times) {
        if let Ok(value) = HeaderValue::try_from(value) {
            known.insert(HeaderName::from_static(name), value);
        }
    }
    Ok((known, encoded))
}
