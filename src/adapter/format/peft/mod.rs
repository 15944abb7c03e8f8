//! PEFT's LoRA directories.
//!
//! The rules follow `peft.tuners.lora` (checked against PEFT 0.21): which modules a config selects, which rank and
//! alpha each gets, how tensors are called. Whatever would change the computation and is not served is refused.
mod assemble;
mod config;
mod fields;
mod keys;
mod parse;
mod pattern;
mod targets;

pub(super) use parse::parse;
