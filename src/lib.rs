//! One frozen base model, many LoRA adapters, one batch: a multi-adapter inference server.
//!
//! # Rooms
//!
//! ```text
//! http ── generation ── engine ─┬─ model ──┬─ lora ── kernel     (error, telemetry: below all; config: above all)
//!                               └─ adapter ┘
//! ```
//!
//! Imports point down; `tests/house.rs` fails the build when one does not.
pub mod adapter;
pub mod engine;
pub mod error;
pub mod generation;
pub mod http;
pub mod kernel;
pub mod lora;
pub mod model;
pub mod telemetry;
