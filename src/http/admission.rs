//! How many requests are worked on at once.
use super::ApiError;
use axum::{
    body::Body,
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
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
    let response = next.run(request).await;
    if !is_stream(&response) {
        return response;
    }
    // A stream's work begins with its head; its place goes with its body.
    let (head, body) = response.into_parts();
    let pieces = body.into_data_stream().map(move |piece| {
        let _held = &place;
        piece
    });
    Response::from_parts(head, Body::from_stream(pieces))
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

fn is_stream(response: &Response) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}
