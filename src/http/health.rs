//! Whether to send requests here, and which build this is.
use super::{ApiError, AppState};
use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

/// `GET /health`, `GET|POST /ping`: 200 and nothing, or 503.
pub(super) async fn health(State(app): State<AppState>) -> Result<StatusCode, ApiError> {
    if app.is_ready() {
        return Ok(StatusCode::OK);
    }
    Err(ApiError::unavailable("unhealthy"))
}

/// `GET /v1/health`: the same in llama.cpp's words.
pub(super) async fn status(state: State<AppState>) -> Result<Json<Value>, ApiError> {
    health(state).await?;
    Ok(Json(json!({"status": "ok"})))
}

/// `GET /version`
pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}
