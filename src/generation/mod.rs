//! Text in, text out: the one service behind every API dialect.
//!
//! Knows tokens, templates and leases. Knows no HTTP and no tensors.
mod error;
mod request;

pub use crate::engine::{EngineSnapshot, InvalidSampling, SamplingOptions, SamplingParams};
pub use error::GenerateError;
pub use request::{
    Completion, FinishedBecause, GenerateEvent, GenerateRequest, Prompt, StopReason, Token, Usage,
};
