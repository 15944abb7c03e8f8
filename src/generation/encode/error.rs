//! What is wrong with a text that is to be read.
use crate::error::{Classified, ErrorKind};

/// See each variant.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InputError {
    /// Nothing to read.
    #[error("`{field}` is empty; give it something to read")]
    Empty {
        /// The request's field, with its index.
        field: String,
    },
    /// It does not fit. Clients match the sentence.
    #[error(
        "This model's maximum context length is {limit} tokens. However, {what} contains {tokens} \
         input tokens; shorten it, or ask for it to be truncated."
    )]
    TooLong {
        /// The request's field, with its index.
        field: String,
        /// What it is of the request.
        what: String,
        /// What it has.
        tokens: usize,
        /// What the model takes.
        limit: usize,
    },
    /// It cannot fit, whatever its tokens are; they are not counted. Clients match the sentence.
    #[error(
        "This model's maximum context length is {limit} tokens. However, {what} contains at least \
         {least} input tokens; shorten it, or ask for it to be truncated."
    )]
    FarTooLong {
        /// The request's field, with its index.
        field: String,
        /// What it is of the request.
        what: String,
        /// Tokens there would be if all were the tokenizer's longest.
        least: usize,
        /// What the model takes.
        limit: usize,
    },
    /// Another fault.
    #[error("{message}")]
    Invalid {
        /// The request's field, with its index.
        field: String,
        /// What is wrong and what to do.
        message: String,
    },
}

impl Classified for InputError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidRequest
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Empty { .. } => "empty_input",
            Self::TooLong { .. } | Self::FarTooLong { .. } => "context_length_exceeded",
            Self::Invalid { .. } => "invalid_value",
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::Empty { field }
            | Self::TooLong { field, .. }
            | Self::FarTooLong { field, .. }
            | Self::Invalid { field, .. } => Some(field),
        }
    }
}
