//! Text in, text out: the one service behind every API dialect.
//!
//! Knows tokens, templates and leases. Knows no HTTP and no tensors.
mod account;
mod answer;
mod backend;
mod bad_words;
mod chat_template;
mod constraint;
mod density;
mod echo;
mod encode;
mod error;
mod generator;
mod grammar;
mod jinja;
mod meter;
mod pieces;
mod probe;
mod request;
mod spans;
mod stop_strings;
mod stream;
#[cfg(test)]
mod testing;
mod text_stream;
mod tokenizer;
mod tool_calls;

pub use crate::engine::{
    AdapterMix, EngineSnapshot, HeadKind, InvalidSampling, Labels, Pooling, Priority, Reading,
    SamplingOptions, SamplingParams,
};
pub use backend::Backend;
pub use constraint::{AnswerForm, Constraint};
pub use encode::{
    Abilities, EmbeddingSetup, EncodeConfig, EncodeInput, EncodeRequest, Encoded, EncodedText,
    EncodedValue, Entity, InputError, Keep, ScoreRequest, Scored, Truncation, Wanted,
};
pub use error::GenerateError;
pub use generator::{Generator, ModelCard, TextSetup};
pub use grammar::{GrammarError, MAX_FORM_BYTES, MAX_SCHEMA_DEPTH, is_flat, json_bytes};
pub use probe::Probe;
pub use request::{
    Completion, FinishedBecause, GenerateEvent, GenerateRequest, Prompt, PromptTokens,
    ServedAdapter, StopReason, Token, Usage, WeightedAdapter,
};
pub use spans::PlacedToken;
pub use stream::Generation;
/// Longer texts are rendered and tokenised on a blocking thread: about half a millisecond's work.
const INLINE_BYTES: usize = 2048;

pub use tool_calls::{
    CallEvent, CallParser, CallsWanted, ToolCallConfig, ToolCallFormat, ToolCallSetting, ToolCalls,
    ToolFunction,
};
