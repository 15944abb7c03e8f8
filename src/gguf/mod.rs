//! llama.cpp's file format: a header of named values, tensors in many types, and the words it has for them.
//!
//! Knows the container, the types' numbers, and what llama.cpp calls the parts of a model. Knows no configuration, no
//! forward pass and no adapter: the rooms that read files say what must be in them.
mod blocks;
mod cursor;
mod error;
mod file;
mod names;
mod value;
mod writer;

pub use blocks::{Storage, halves_to_pairs, pairs_to_halves};
pub use error::GgufError;
pub use file::{GgufFile, TensorEntry};
pub use names::{to_gguf, to_transformers};
pub use value::{Array, Kind, Value};
pub use writer::GgufWriter;

/// How every GGUF file begins.
pub const MAGIC: &[u8; 4] = b"GGUF";
