//! Why the engine refused or dropped a request.
use super::AdapterMix;
use crate::error::{Classified, ErrorKind};

/// See each variant.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The queue is full.
    #[error("{waiting} requests are waiting already; try again later")]
    Overloaded {
        /// How many wait.
        waiting: usize,
    },
    /// The prompt is empty, longer than the model's context, or has tokens the model does not know.
    #[error("{0}")]
    InvalidPrompt(String),
    /// The prompt and the tokens asked for can never fit.
    #[error("the request needs {needed} tokens of KV cache, all of it holds {available}")]
    TooLong {
        /// Tokens of prompt and answer.
        needed: usize,
        /// Tokens the cache holds.
        available: usize,
    },
    /// A mix has more adapters than can ever be in use together.
    #[error(
        "the request mixes {adapters} adapters, at most {most} can be in use together; name fewer"
    )]
    TooManyAdapters {
        /// What the request has.
        adapters: usize,
        /// What there is room for.
        most: usize,
    },
    /// What is wanted is not what the model and the adapters have.
    #[error("{0}")]
    NotOffered(String),
    /// An adapter's weight is no number, or out of range.
    #[error("the weight of adapter `{name}` must be between -{most} and {most}", most = AdapterMix::MAX_WEIGHT)]
    InvalidWeight {
        /// The adapter's.
        name: String,
    },
    /// The thread has ended or is draining.
    #[error("the engine has stopped")]
    Stopped,
    /// The step this sequence was in failed.
    #[error("the forward pass failed")]
    Step,
    /// The adapter was replaced or retired, and its owner would not let running answers end on the old version.
    #[error("adapter `{name}` was replaced while this request used its old version; send it again")]
    AdapterReplaced {
        /// The name that the request used.
        name: String,
    },
    /// The device has no memory for the adapter, or its weights do not fit the base.
    #[error("adapter `{name}` could not be brought to the device; the server's log says why")]
    AdapterLoad {
        /// The name that the request used.
        name: String,
    },
    /// The form that the request wants of its answer cannot be followed any further.
    #[error(
        "the form that this request wants of its answer could not be enforced; simplify the schema or grammar"
    )]
    Constraint,
    /// The model's output for this sequence was not a number.
    #[error("{}", not_a_number(adapters))]
    NonFinite {
        /// The adapters of the request, none for the base model.
        adapters: Vec<String>,
    },
}

fn not_a_number(adapters: &[String]) -> String {
    match adapters {
        [] => "the base model's output is not a number; check the model's files".into(),
        [name] => format!(
            "the output with adapter `{name}` is not a number; check its weights and publish it again"
        ),
        names => format!(
            "the output with adapters `{}` is not a number; check their weights, and how much of each is asked for",
            names.join("`, `")
        ),
    }
}

impl Classified for EngineError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Overloaded { .. } => ErrorKind::Overloaded,
            Self::InvalidPrompt(_)
            | Self::TooLong { .. }
            | Self::TooManyAdapters { .. }
            | Self::NotOffered(_)
            | Self::InvalidWeight { .. }
            | Self::Constraint => ErrorKind::InvalidRequest,
            Self::Stopped | Self::AdapterReplaced { .. } => ErrorKind::Unavailable,
            Self::Step | Self::AdapterLoad { .. } | Self::NonFinite { .. } => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "queue_full",
            Self::InvalidPrompt(_) => "invalid_prompt",
            Self::TooLong { .. } => "kv_cache_exceeded",
            Self::TooManyAdapters { .. } => "mix_too_large",
            Self::NotOffered(_) => "output_not_offered",
            Self::InvalidWeight { .. } => "invalid_value",
            Self::Stopped => "engine_stopped",
            Self::Step => "step_failed",
            Self::AdapterReplaced { .. } => "adapter_replaced",
            Self::AdapterLoad { .. } => "adapter_load_failed",
            Self::Constraint => "constraint_failed",
            Self::NonFinite { .. } => "non_finite_output",
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::InvalidPrompt(_) => Some("prompt"),
            Self::TooLong { .. } => Some("max_tokens"),
            Self::TooManyAdapters { .. } | Self::InvalidWeight { .. } => Some("adapters"),
            Self::Overloaded { .. }
            | Self::NotOffered(_)
            | Self::Stopped
            | Self::Step
            | Self::AdapterReplaced { .. }
            | Self::AdapterLoad { .. }
            | Self::Constraint
            | Self::NonFinite { .. } => None,
        }
    }

    fn is_public(&self) -> bool {
        let says_what_to_do = matches!(self, Self::AdapterLoad { .. } | Self::NonFinite { .. });
        self.kind() != ErrorKind::Internal || says_what_to_do
    }
}
