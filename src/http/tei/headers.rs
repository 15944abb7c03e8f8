//! What an answer took, in the headers of text-embeddings-inference.
use crate::{
    generation::ModelCard,
    http::{reading::Cost, served},
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use std::time::{Duration, Instant};

/// Counts and whole milliseconds, and which versions answered. Tokenising is part of the time of inference here.
pub(super) fn measured(
    model: &ModelCard,
    cost: Cost<'_>,
    characters: usize,
    begun: Instant,
) -> HeaderMap {
    let total = begun.elapsed();
    let milliseconds = |time: Duration| time.as_millis().to_string();
    let values = [
        ("x-compute-type", model.device.clone()),
        ("x-compute-time", milliseconds(total)),
        ("x-compute-characters", characters.to_string()),
        ("x-compute-tokens", cost.tokens.to_string()),
        ("x-total-time", milliseconds(total)),
        ("x-tokenization-time", "0".to_owned()),
        ("x-queue-time", milliseconds(cost.queued)),
        ("x-inference-time", milliseconds(total.saturating_sub(cost.queued))),
    ];
    let mut headers = served::header(cost.served);
    for (name, value) in values {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}
