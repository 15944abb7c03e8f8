//! From a request to texts that are read.
use super::{EncodeRequest, Encoded, ScoreRequest, Scored};
use crate::generation::{GenerateError, Generator};

impl Generator {
    /// Reads texts: all of them, or none.
    ///
    /// # Errors
    /// When a field is wrong, a text does not fit, the adapter cannot be had, model and adapter have not what is wanted, or the
    /// engine is full or gone.
    pub async fn encode(&self, request: EncodeRequest) -> Result<Encoded, GenerateError> {
        std::future::ready(request).await;
        Err(GenerateError::Internal("texts are not read yet".into()))
    }

    /// Scores pairs of texts: by a head of one label that reads both side by side, or else by the cosine of their
    /// embeddings.
    ///
    /// # Errors
    /// As [`Generator::encode`].
    pub async fn score(&self, request: ScoreRequest) -> Result<Scored, GenerateError> {
        std::future::ready(request).await;
        Err(GenerateError::Internal("texts are not read yet".into()))
    }
}
