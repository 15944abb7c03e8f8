//! Answers of the generator as the kind of value that a route asked for.
use super::{EntityShown, shown_entities};
use crate::{
    generation::{Encoded, EncodedText, EncodedValue, Labels},
    http::ApiError,
};

/// What a head says of a text.
pub(in crate::http) enum Scores {
    /// One score a label.
    OfText(Vec<f32>),
    /// What it found in it.
    Found(Vec<EntityShown>),
}

/// Each text's vector.
///
/// # Errors
/// 500 where the generator answers something else.
pub(in crate::http) fn vectors(encoded: Encoded) -> Result<Vec<Vec<f32>>, ApiError> {
    values(encoded, |value| match value {
        EncodedValue::Vector(vector) => Some(vector),
        _ => None,
    })
}

/// Each text's vectors, one a token.
///
/// # Errors
/// 500 where the generator answers something else.
pub(in crate::http) fn token_vectors(encoded: Encoded) -> Result<Vec<Vec<Vec<f32>>>, ApiError> {
    values(encoded, |value| match value {
        EncodedValue::Vectors(vectors) => Some(vectors),
        _ => None,
    })
}

/// The labels, and what the head says of each text.
///
/// # Errors
/// 500 where the generator answers something else.
pub(in crate::http) fn scores(mut encoded: Encoded) -> Result<(Labels, Vec<Scores>), ApiError> {
    let labels = encoded.labels.take().ok_or_else(|| ApiError::internal("no_labels"))?;
    let said = values(encoded, |value| match value {
        EncodedValue::Scores(scores) if scores.len() == labels.names.len() => {
            Some(Scores::OfText(scores))
        }
        EncodedValue::Entities(entities) => Some(Scores::Found(shown_entities(entities))),
        _ => None,
    })?;
    Ok((labels, said))
}

fn values<T>(
    encoded: Encoded,
    value: impl Fn(EncodedValue) -> Option<T>,
) -> Result<Vec<T>, ApiError> {
    let value = |text: EncodedText| value(text.value);
    let values: Option<Vec<T>> = encoded.texts.into_iter().map(value).collect();
    values.ok_or_else(|| ApiError::internal("unexpected_output"))
}

/// How many numbers there are to write.
pub(in crate::http) fn numbers(vectors: &[Vec<f32>]) -> usize {
    vectors.iter().map(Vec::len).sum()
}
