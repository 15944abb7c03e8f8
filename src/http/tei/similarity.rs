//! `POST /similarity`
use super::{embed::characters, fields::Cut, headers::measured};
use crate::{
    generation::{EncodeInput, EncodeRequest, Priority, Wanted},
    http::{
        ApiError, AppState,
        json::rendered,
        reading::{Ask, Call, counted, read, vectors},
    },
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::time::Instant;

const FIELD: &str = "inputs.sentences";

#[derive(Debug, Deserialize)]
struct SimilarityFields {
    inputs: Compared,
    parameters: Option<Parameters>,
}

#[derive(Debug, Deserialize)]
struct Compared {
    source_sentence: String,
    sentences: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    prompt_name: Option<String>,
}

/// The cosine of each sentence's embedding with that of the first.
pub(in crate::http) async fn similarity(
    State(app): State<AppState>,
    call: Call,
) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let fields: SimilarityFields = call.body.read()?;
    let cut: Cut = call.body.read_in("parameters")?;
    let Compared { source_sentence, sentences } = fields.inputs;
    if source_sentence.is_empty() {
        return Err(ApiError::empty("inputs.source_sentence"));
    }
    if sentences.is_empty() {
        return Err(ApiError::empty(FIELD));
    }
    if let Some(at) = sentences.iter().position(String::is_empty) {
        return Err(ApiError::empty(&format!("{FIELD}[{at}]")));
    }
    let inputs = std::iter::once(source_sentence).chain(sentences).map(EncodeInput::Text);
    // The sentence that they are compared with is one of them.
    let inputs = counted(inputs.collect(), FIELD, app.config.max_texts)?;
    let characters = characters(&inputs);
    let chosen = call.chosen(&app)?;
    let prompt = fields.parameters.unwrap_or_default().prompt_name;
    let request = EncodeRequest {
        inputs,
        field: FIELD,
        add_special_tokens: true,
        adapters: chosen.adapters,
        wanted: Wanted::Embedding { normalize: Some(true), dimensions: None, prompt },
        truncation: cut.truncation(),
        priority: Priority::Normal,
    };
    let encoded = read(&app, request, chosen.split).await?;
    let cost = EncodeRequest::cost(&encoded);
    let headers = measured(app.generator.model(), cost, characters, begun);
    let vectors = vectors(encoded)?;
    let answer = rendered(vectors.iter().map(Vec::len).sum(), move || {
        let (source, others) = vectors.split_first().unzip();
        let cosine = |other: &Vec<f32>| {
            let pairs = source.into_iter().flatten().zip(other);
            pairs.map(|(a, b)| a * b).sum::<f32>()
        };
        others.into_iter().flatten().map(cosine).collect::<Vec<_>>()
    });
    Ok((headers, answer.await?).into_response())
}
