//! Whether to send requests here, whether to start it anew, and how much it has to do.
use super::{ApiError, AppState};
use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

/// `GET /health`, `GET|POST /ping`: 200 and nothing, or 503.
pub(super) async fn health(State(app): State<AppState>) -> Result<StatusCode, ApiError> {
    if app.drain.has_begun() {
        return Err(ApiError::draining());
    }
    live(State(app)).await
}

/// `GET /livez`: whether the process is worth keeping, also while it loads or drains.
pub(super) async fn live(State(app): State<AppState>) -> Result<StatusCode, ApiError> {
    if !app.generator.is_alive() {
        return Err(ApiError::unavailable("the engine has ended; start the server anew"));
    }
    let (most, taken) = (app.config.step_timeout(), app.generator.step_time());
    if most.is_some_and(|most| taken > most) {
        let seconds = taken.as_secs();
        let message = format!("a step has taken {seconds} s so far; start the server anew");
        return Err(ApiError::unavailable(&message));
    }
    Ok(StatusCode::OK)
}

/// `GET /v1/health`: health in llama.cpp's words.
pub(super) async fn status(state: State<AppState>) -> Result<Json<Value>, ApiError> {
    health(state).await?;
    Ok(Json(json!({"status": "ok"})))
}

/// `GET /load`: answers that are being made or wait, as vLLM counts them.
pub(super) async fn load(State(app): State<AppState>) -> Json<Value> {
    let now = app.generator.snapshot();
    Json(json!({"server_load": now.running + now.waiting}))
}

/// `GET /is_sleeping`: it has no such mode.
pub(super) async fn sleeping() -> Json<Value> {
    Json(json!({"is_sleeping": false}))
}

/// `GET /version`
pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}
