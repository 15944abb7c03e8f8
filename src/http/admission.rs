//! How many requests are worked on at once.
use super::{ApiError, connections::held};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The layer of a route that costs work: a place for as long as the answer is being made, or 429 at once.
pub(super) async fn admit(
    State(places): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(place) = places.try_acquire_owned() else {
        return ApiError::busy().into_response();
    };
    held(next.run(request).await, place)
}

/// The layer of an upload: it lies on disk until it is published, so it waits for its turn.
pub(super) async fn take_turns(
    State(turns): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(_turn) = turns.acquire_owned().await else {
        return ApiError::busy().into_response();
    };
    next.run(request).await
}
