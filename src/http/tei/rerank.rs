//! `POST /rerank` with `texts`.
use super::{fields::Cut, headers::measured};
use crate::{
    generation::{Priority, ScoreRequest},
    http::{
        ApiError, AppState,
        json::rendered,
        reading::{Ask, Call, counted, missing, read, texts},
    },
};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::time::Instant;

#[derive(Debug, Deserialize)]
struct RerankFields {
    query: Option<String>,
    raw_scores: Option<bool>,
    return_text: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Rank {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    score: f32,
}

pub(in crate::http) async fn rerank(app: &AppState, call: Call) -> Result<Response, ApiError> {
    const FIELD: &str = "texts";
    let begun = Instant::now();
    let fields: RerankFields = call.body.read()?;
    let query = fields.query.ok_or_else(|| missing("query"))?;
    let truncation = call.body.read::<Cut>()?.truncation();
    let texts = counted(texts(call.body.get(FIELD), FIELD)?, FIELD, app.config.max_texts)?;
    let length = |text: &String| text.chars().count();
    let characters = texts.len() * length(&query) + texts.iter().map(length).sum::<usize>();
    let chosen = call.chosen(app)?;
    let request = ScoreRequest {
        pairs: texts.iter().map(|text| (query.clone(), text.clone())).collect(),
        field: FIELD,
        raw: fields.raw_scores.unwrap_or(false),
        adapters: chosen.adapters,
        truncation,
        priority: Priority::Normal,
    };
    let scored = read(app, request, chosen.split).await?;
    let cost = ScoreRequest::cost(&scored);
    let headers = measured(app.generator.model(), cost, characters, begun);
    let shows = fields.return_text.unwrap_or(false);
    let answer = rendered(texts.len() * 4, move || {
        let pairs = texts.into_iter().zip(scored.scores).enumerate();
        let mut ranks: Vec<_> = pairs
            .map(|(index, (text, score))| Rank { index, text: shows.then_some(text), score })
            .collect();
        ranks.sort_by(|a, b| b.score.total_cmp(&a.score));
        ranks
    });
    Ok((headers, answer.await?).into_response())
}
