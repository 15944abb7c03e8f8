//! The machine room: one thread that owns the model, the caches and every running sequence.
//!
//! Knows leases and slots, and is the only room that knows both. Does no I/O.
mod accounts;
mod config;
mod constraint;
mod core;
mod counts;
mod draft;
mod error;
mod handle;
mod inbox;
mod kv;
mod loader;
mod mix;
mod names;
mod offer;
mod protocol;
mod ranking;
mod residency;
#[cfg(test)]
mod residency_tests;
mod runner;
mod sampler;
mod samplers;
mod sampling;
mod schedule;
mod scheduler;
mod sequence;
mod softmax;
#[cfg(test)]
mod testing;
mod ticket;
mod waiting;

pub use crate::{
    lora::{HeadKind, Labels, Reading},
    model::{Output, Pooling},
};
pub use config::{ByteSize, EngineConfig};
pub use constraint::{TokenConstraint, TokenMask, Unenforceable};
pub use error::EngineError;
pub use handle::EngineHandle;
pub use mix::{AdapterMix, MixPart};
pub use protocol::{
    EngineSnapshot, Event, EventStream, FinishReason, Priority, Submission, TokenLogprobs,
};
pub use runner::ModelRunner;
pub use sampling::{InvalidSampling, SamplingOptions, SamplingParams};
