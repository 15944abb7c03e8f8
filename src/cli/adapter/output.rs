//! What a command found, for people and for programs.
use serde_json::Value;

/// Both forms of one result.
#[derive(Debug)]
pub(super) struct Output {
    /// For people.
    pub(super) text: String,
    /// The server's own, or of its words.
    pub(super) json: Value,
}

impl Output {
    pub(super) fn new(text: impl Into<String>, json: Value) -> Self {
        Self { text: text.into(), json }
    }
}
