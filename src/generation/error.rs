//! Why nothing was generated, or not all of it.
use super::{GrammarError, InputError};
use crate::{
    adapter::AdapterError,
    engine::{EngineError, InvalidSampling},
    error::{Classified, ErrorKind},
};

/// See each variant.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The adapter's fault.
    #[error("{error}")]
    Adapter {
        /// What is wrong.
        #[source]
        error: AdapterError,
        /// The request's field that names the adapter.
        field: String,
    },
    /// The engine's fault.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The form that answers are to have.
    #[error("{error}")]
    Grammar {
        /// What is wrong.
        #[source]
        error: GrammarError,
        /// The request's field that asks for the form.
        field: String,
    },
    /// A sampling field out of its range.
    #[error(transparent)]
    Sampling(#[from] InvalidSampling),
    /// Prompt and answer do not fit. Clients match the sentence.
    #[error(
        "This model's maximum context length is {context} tokens. However, your prompt contains \
         {prompt} input tokens and you asked for {asked} output tokens; shorten the prompt or lower \
         max_tokens."
    )]
    ContextLength {
        /// What the model takes.
        context: usize,
        /// What the prompt has.
        prompt: usize,
        /// What the request wants on top.
        asked: usize,
    },
    /// A text that cannot fit, whatever its tokens are; they are not counted.
    #[error(
        "This model's maximum context length is {context} tokens. However, your prompt contains \
         at least {least} input tokens; shorten the prompt."
    )]
    TextTooLong {
        /// What the model takes.
        context: usize,
        /// Tokens there would be if all were the tokenizer's longest.
        least: usize,
    },
    /// A text that is to be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// What the model and its adapters are not made for.
    #[error("{message}")]
    Unfit {
        /// A name for it: `model_does_not_generate`, `no_classification_head` and the like.
        code: &'static str,
        /// The request's field that names the model or the adapter.
        field: String,
        /// What it is and what to ask for instead.
        message: String,
    },
    /// Another field of the request.
    #[error("{message}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
    /// The chat template refused the messages or ran out of fuel.
    #[error("the chat template cannot render these messages: {0}")]
    Template(String),
    /// Tools for a base that cannot be given any; why, and what to do.
    #[error("{0}")]
    ToolsNotSupported(&'static str),
    /// Our own failure.
    #[error("internal error")]
    Internal(String),
}

impl Classified for GenerateError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Adapter { error, .. } => error.kind(),
            Self::Engine(error) => error.kind(),
            Self::Sampling(error) => error.kind(),
            Self::Grammar { error, .. } => error.kind(),
            Self::ContextLength { .. }
            | Self::TextTooLong { .. }
            | Self::Input(_)
            | Self::Unfit { .. }
            | Self::Invalid { .. }
            | Self::ToolsNotSupported(_)
            | Self::Template(_) => ErrorKind::InvalidRequest,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Adapter { error, .. } => error.code(),
            Self::Engine(error) => error.code(),
            Self::Sampling(error) => error.code(),
            Self::Grammar { error, .. } => error.code(),
            Self::ContextLength { .. } | Self::TextTooLong { .. } => "context_length_exceeded",
            Self::Input(error) => error.code(),
            Self::Unfit { code, .. } => code,
            Self::Invalid { .. } => "invalid_value",
            Self::Template(_) => "chat_template_failed",
            Self::ToolsNotSupported(_) => "tools_not_supported",
            Self::Internal(_) => "internal_error",
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::Adapter { field, .. }
            | Self::Grammar { field, .. }
            | Self::Unfit { field, .. } => Some(field),
            Self::Input(error) => error.param(),
            Self::Engine(error) => error.param(),
            Self::Sampling(error) => error.param(),
            Self::ContextLength { .. } | Self::TextTooLong { .. } => Some("input_tokens"),
            Self::Invalid { field, .. } => Some(field),
            Self::Template(_) => Some("messages"),
            Self::ToolsNotSupported(_) => Some("tools"),
            Self::Internal(_) => None,
        }
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Adapter { error, .. } => error.retry_after(),
            _ => None,
        }
    }

    fn is_public(&self) -> bool {
        match self {
            Self::Engine(error) => error.is_public(),
            _ => self.kind() != ErrorKind::Internal,
        }
    }
}
