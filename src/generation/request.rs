//! What every dialect is translated to, and what comes back.
use super::{Constraint, Priority, SamplingOptions};
use crate::adapter::{AdapterName, AdapterRef, VersionId};
use std::{ops::Range, sync::Arc, time::Duration};

/// What to continue.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// Text; special tokens of the tokenizer are added when `add_special_tokens`.
    Text {
        /// The text.
        text: String,
        /// Whether the tokenizer adds its begin-of-sequence token.
        add_special_tokens: bool,
    },
    /// Token ids, as they are.
    Tokens(Vec<u32>),
    /// A conversation for the model's chat template.
    Chat {
        /// OpenAI message objects, in order; the dialect has checked their shape.
        messages: Vec<serde_json::Value>,
        /// OpenAI tool objects for the template; empty for none.
        tools: Vec<serde_json::Value>,
        /// Texts to answer from, for a template that takes them; empty for none.
        documents: Vec<serde_json::Value>,
        /// Whether the template opens the assistant's turn.
        add_generation_prompt: bool,
        /// Continue the last message instead of opening a new one.
        continue_final_message: bool,
        /// More variables for the template.
        variables: serde_json::Map<String, serde_json::Value>,
    },
}

/// An adapter that a request names.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedAdapter {
    /// Which.
    pub adapter: AdapterRef,
    /// How much of it: 1 is all.
    pub weight: f32,
    /// The request's field that names it, for errors.
    pub field: String,
}

/// An adapter that answers a request, at the version that it was leased at.
#[derive(Clone, Debug, PartialEq)]
pub struct ServedAdapter {
    /// Which.
    pub name: AdapterName,
    /// Its content.
    pub version: VersionId,
    /// How much of it: 1 is all.
    pub weight: f32,
}

/// One prompt and how to continue it.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// What to continue.
    pub prompt: Prompt,
    /// What changes the base model, mixed; none is the base itself.
    pub adapters: Vec<WeightedAdapter>,
    /// Checked against the vocabulary by the generator; `max_tokens` comes from [`GenerateRequest::max_tokens`].
    pub sampling: SamplingOptions,
    /// Words that the answer must not contain; they become [`SamplingOptions::bad_words`].
    pub bad_words: Vec<String>,
    /// At most this many new tokens; refused where the context leaves fewer. 0 only where the prompt is shown.
    pub max_tokens: Option<usize>,
    /// The dialect's own limit where `max_tokens` is `None`: the context may leave fewer. `None` is
    /// all that it leaves.
    pub default_max_tokens: Option<usize>,
    /// Strings that end the answer, each not empty.
    pub stop: Vec<String>,
    /// Whether the stop string stays in the text.
    pub include_stop: bool,
    /// Whether special tokens are left out of the text.
    pub skip_special_tokens: bool,
    /// Independent answers to the prompt, at least 1.
    pub n: usize,
    /// Cut the prompt to its last tokens, if it is longer: this many, or fewer where the context must
    /// also hold the answer.
    pub truncate_prompt_tokens: Option<usize>,
    /// Whether the prompt's tokens are told too, before the answers.
    pub shows_prompt: bool,
    /// Whose cached beginnings it may use: those of requests with the same salt.
    pub cache_salt: Option<String>,
    /// What every answer must look like; `None` leaves it to the model.
    pub constraint: Option<Constraint>,
    /// Who goes first. A shadow is nobody's: the metrics of requests leave it out.
    pub priority: Priority,
}

/// One generated token as a client sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its own text (lossy where it is part of a character).
    pub text: String,
    /// Its bytes, where the tokenizer can tell them.
    pub bytes: Vec<u8>,
    /// What it adds to the answer's text, before any stop string is cut off: a character over several
    /// tokens stands with its last one. Empty for tokens that are not part of an answer.
    pub shown: String,
    /// Whether it is a special token.
    pub special: bool,
    /// Natural logarithm of its probability; present when the request asks for it.
    pub logprob: Option<f32>,
    /// How many tokens are at least as likely here, itself included; there where `logprob` is, but for `top`.
    pub rank: Option<usize>,
    /// The most likely tokens here, best first, with id, text, bytes and log-probability.
    pub top: Vec<Token>,
}

/// Why an answer ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FinishedBecause {
    /// The model said so, or a stop string or token.
    Stop(StopReason),
    /// `max_tokens` or the context.
    Length,
}

/// What stopped it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StopReason {
    /// The model's end-of-sequence token.
    EndOfSequence,
    /// One of the request's stop tokens.
    Token(u32),
    /// One of the request's stop strings.
    Text(String),
}

/// Tokens counted, and the wait for them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: usize,
    /// Generated, stop tokens not counted.
    pub completion_tokens: usize,
    /// Prompt tokens found in the prefix cache.
    pub cached_tokens: usize,
    /// From submission to the first step.
    pub queued: Duration,
}

/// What happens to one answer, in order. A stream of several answers interleaves them.
#[derive(Clone, Debug)]
pub enum GenerateEvent {
    /// More of the prompt, where the request wants it shown; all of it comes before the first of its answers' other
    /// events.
    Prompt {
        /// The answers to this prompt.
        answers: Range<usize>,
        /// More of its text, without special tokens that the text does not spell.
        text: String,
        /// More of its tokens; the first one has no log-probability.
        tokens: Vec<Token>,
    },
    /// More text; may be empty while a character or a stop string is incomplete.
    Delta {
        /// Which of the `n` answers.
        index: usize,
        /// Text that is certain now.
        text: String,
        /// The tokens of this event, in order.
        tokens: Vec<Token>,
    },
    /// An answer ended; the last event of its index.
    Finished {
        /// Which of the `n` answers.
        index: usize,
        /// Why.
        because: FinishedBecause,
        /// Of this answer; prompt tokens are the same in all.
        usage: Usage,
    },
}

/// A prompt as the model sees it.
#[derive(Clone, Debug, Default)]
pub struct PromptTokens {
    /// Its text.
    pub text: String,
    /// Its tokens; the first one has no log-probability.
    pub tokens: Vec<Token>,
}

/// One whole answer.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Which of the `n` answers.
    pub index: usize,
    /// All of its text.
    pub text: String,
    /// All of its tokens.
    pub tokens: Vec<Token>,
    /// What it answers, where the request wants it shown.
    pub prompt: Option<Arc<PromptTokens>>,
    /// Why it ended.
    pub because: FinishedBecause,
    /// Of this answer.
    pub usage: Usage,
}
