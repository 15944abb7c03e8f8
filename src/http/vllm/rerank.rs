//! `POST /rerank`: vLLM's, Jina's and Cohere's.
use crate::{
    generation::ScoreRequest,
    http::{
        ApiError, AppState,
        json::rendered,
        openai::refused::{self, NEVER, Neutral},
        reading::{Ask, Call, Head, ReadFields, counted, missing, read, texts},
        served,
    },
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What Cohere and Jina know and is not served.
const REFUSED: &[(&str, Neutral)] = &[
    ("max_chunks_per_doc", NEVER),
    ("max_tokens_per_doc", NEVER),
    ("rank_fields", |value| *value == json!(["text"])),
];

#[derive(Debug, Deserialize)]
struct RerankFields {
    query: Option<String>,
    top_n: Option<usize>,
    return_documents: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Reranked {
    id: String,
    model: String,
    usage: Value,
    results: Vec<Item>,
}

#[derive(Debug, Serialize)]
struct Item {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document>,
    relevance_score: f32,
}

#[derive(Debug, Serialize)]
struct Document {
    text: String,
}

/// On paths that are nobody else's.
pub(in crate::http) async fn rerank_route(
    State(app): State<AppState>,
    call: Call,
) -> Result<Response, ApiError> {
    rerank(&app, call).await
}

pub(in crate::http) async fn rerank(app: &AppState, call: Call) -> Result<Response, ApiError> {
    const FIELD: &str = "documents";
    refused::check(&call.body, REFUSED)?;
    let shared = ReadFields::read(&call.body)?;
    let fields: RerankFields = call.body.read()?;
    let documents = counted(texts(call.body.get(FIELD), FIELD)?, FIELD, app.config.max_texts)?;
    let (truncation, priority) = (shared.truncation()?, shared.priority()?);
    let chosen = call.chosen(app)?;
    let query = fields.query.ok_or_else(|| missing("query"))?;
    let pair = |text: &String| (query.clone(), text.clone());
    let request = ScoreRequest {
        pairs: documents.iter().map(pair).collect(),
        field: FIELD,
        raw: shared.use_activation() == Some(false),
        adapters: chosen.adapters,
        truncation,
        priority,
    };
    let scored = read(app, request, chosen.split).await?;
    let head = Head::new("rerank", chosen.model, ScoreRequest::cost(&scored));
    let served = served::header(&scored.served);
    let usage = json!({"prompt_tokens": scored.tokens, "total_tokens": scored.tokens});
    let most = fields.top_n.filter(|top| *top > 0).unwrap_or(documents.len());
    let shows = fields.return_documents.unwrap_or(true);
    let answer = rendered(documents.len() * 8, move || {
        let pairs = documents.into_iter().zip(scored.scores).enumerate();
        let mut results: Vec<_> = pairs
            .map(|(index, (text, relevance_score))| {
                let document = shows.then_some(Document { text });
                Item { index, document, relevance_score }
            })
            .collect();
        results.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score));
        results.truncate(most);
        Reranked { id: head.id, model: head.model, usage, results }
    });
    Ok((served, answer.await?).into_response())
}

#[cfg(test)]
pub(in crate::http) fn rerank_fields() -> Vec<&'static str> {
    use crate::http::json::known_fields;
    [known_fields::<ReadFields>(), known_fields::<RerankFields>()].concat()
}
