//! The machine room: one thread that owns the model, the caches and every running sequence.
//!
//! Knows leases and slots, and is the only room that knows both. Does no I/O.
mod error;
mod protocol;
mod sampling;

pub use error::EngineError;
pub use protocol::{EngineSnapshot, Event, EventStream, FinishReason, Submission, TokenLogprobs};
pub use sampling::{InvalidSampling, SamplingOptions, SamplingParams};
