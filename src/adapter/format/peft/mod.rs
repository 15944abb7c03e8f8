//! PEFT's LoRA directories.
//!
//! The rules follow `peft.tuners.lora` (checked against PEFT 0.21): which modules a config selects, which rank and
//! alpha each gets, how tensors are called, what they do. Whatever would change the computation and is not served is
//! refused.
mod assemble;
mod config;
mod copies;
mod coverage;
mod dora;
mod embedding;
mod extras;
mod fields;
mod head;
mod keys;
mod linear;
mod module;
mod named;
mod parse;
mod parts;
mod paths;
mod pattern;
mod roles;
mod targets;
mod task;
mod tied;
mod tokens;

pub(super) use parse::{parse, scaling};
