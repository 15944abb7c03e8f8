//! What an answer shows besides its text.
use super::{fields::SharedFields, logprobs::Spelling};

/// As a request wants it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    /// Log-probabilities of the answer's tokens, with so many alternatives.
    pub(super) logprobs: Option<usize>,
    /// How they call tokens.
    pub(super) spelling: Spelling,
    /// The same of the prompt's tokens.
    pub(super) prompt_logprobs: Option<usize>,
    /// The prompt before the answer.
    pub(super) echo: bool,
    /// The ids of the prompt's and of the answer's tokens.
    pub(super) token_ids: bool,
}

impl Shown {
    /// What both routes' fields say.
    pub(super) fn of(shared: &SharedFields) -> Self {
        let by_id = shared.return_tokens_as_token_ids.unwrap_or(false);
        Self {
            spelling: if by_id { Spelling::Id } else { Spelling::Text },
            prompt_logprobs: shared.prompt_logprobs,
            token_ids: shared.return_token_ids.unwrap_or(false),
            ..Self::default()
        }
    }
}
