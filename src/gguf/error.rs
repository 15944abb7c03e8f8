//! What is wrong with a file.

/// Shown to whoever gave the file, so each says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {detail}")]
pub struct GgufError {
    /// The file.
    pub place: String,
    /// What is wrong, and what to do.
    pub detail: String,
}
