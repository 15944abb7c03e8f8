//! `GET /admin/events`: who did what.
use super::{ApiError, AppState};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::Deserialize;
use serde_json::{Value, json};

/// Events of an answer, where the request does not say.
const USUAL: usize = 100;
/// Most events of an answer.
const MOST: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    limit: Option<usize>,
    name: Option<String>,
}

/// The newest first.
pub(super) async fn list(
    State(app): State<AppState>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(Wish { limit, name }) = wish.map_err(|_| {
        ApiError::invalid("query", "the query may have `limit`, a number, and `name`; no more")
    })?;
    let limit = limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        let message = format!("`limit` must be between 1 and {MOST}, not {limit}");
        return Err(ApiError::invalid("limit", message));
    }
    let log = app.registry.events().clone();
    let read = tokio::task::spawn_blocking(move || log.recent(limit, name.as_deref())).await;
    let events = read.map_err(|_| ApiError::internal("events_not_read"))?;
    Ok(Json(json!({"events": events})))
}
