//! The room `kernel` and its tests, for machines that only it can be compiled for: `.ci/aarch64` runs them under emulation.
#![allow(dead_code, reason = "the rest of the house uses it")]

#[path = "../../src/kernel/mod.rs"]
pub mod kernel;
