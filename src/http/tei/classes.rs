//! `POST /predict`
use super::{embed::characters, fields::Cut, headers::measured};
use crate::{
    generation::{EncodeRequest, Labels, Priority, Wanted},
    http::{
        ApiError, AppState,
        json::rendered,
        reading::{Ask, Call, Scores, counted, read, scores, sequences},
    },
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use std::time::Instant;

#[derive(Debug, Deserialize)]
struct PredictFields {
    raw_scores: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Prediction {
    score: f32,
    label: String,
}

/// One text's predictions bare, several in a list.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Predictions {
    One(Vec<Prediction>),
    Each(Vec<Vec<Prediction>>),
}

pub(in crate::http) async fn predict(
    State(app): State<AppState>,
    call: Call,
) -> Result<Response, ApiError> {
    const FIELD: &str = "inputs";
    let begun = Instant::now();
    let raw = call.body.read::<PredictFields>()?.raw_scores.unwrap_or(false);
    let truncation = call.body.read::<Cut>()?.truncation();
    let (inputs, is_batch) = sequences(call.body.get(FIELD), FIELD)?;
    let inputs = counted(inputs, FIELD, app.config.max_texts)?;
    let characters = characters(&inputs);
    let chosen = call.chosen(&app)?;
    let request = EncodeRequest {
        inputs,
        field: FIELD,
        add_special_tokens: true,
        adapters: chosen.adapters,
        wanted: Wanted::Labels { raw },
        truncation,
        priority: Priority::Normal,
    };
    let encoded = read(&app, request, chosen.split).await?;
    let cost = EncodeRequest::cost(&encoded);
    let headers = measured(app.generator.model(), cost, characters, begun);
    let (labels, said) = scores(encoded)?;
    let entries = said.len() * labels.names.len() * 2;
    let said = said.into_iter().map(of_text).collect::<Result<Vec<_>, _>>()?;
    let answer = rendered(entries, move || {
        let mut each: Vec<_> = said.into_iter().map(|said| ranked(said, &labels)).collect();
        match each.pop() {
            Some(one) if !is_batch => Predictions::One(one),
            last => {
                each.extend(last);
                Predictions::Each(each)
            }
        }
    });
    Ok((headers, answer.await?).into_response())
}

fn of_text(said: Scores) -> Result<Vec<f32>, ApiError> {
    match said {
        Scores::OfText(scores) => Ok(scores),
        Scores::Found(_) => {
            let message =
                "this model labels tokens, not texts: POST /classify answers with what it finds";
            Err(ApiError::no_text_labels(message))
        }
    }
}

/// The best first.
fn ranked(scores: Vec<f32>, labels: &Labels) -> Vec<Prediction> {
    let labelled = scores.into_iter().zip(labels.names.iter().cloned());
    let mut all: Vec<_> = labelled.map(|(score, label)| Prediction { score, label }).collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all
}
