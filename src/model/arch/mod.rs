//! `config.json` → [`ArchSpec`]. A new architecture is a file here and a line in [`ARCHITECTURES`].
//!
//! Knows the spellings of both generations of `transformers`. Knows no tensors.
mod common;
mod fields;
mod llama;
mod mistral;
mod phi3;
mod qwen2;
mod qwen3;
mod read;
mod rope;

pub(crate) use read::read_spec;

use super::{ModelError, spec::ArchSpec};
use fields::Fields;

/// Reads the fields a family knows; what it leaves is refused by name.
type ReadFields = fn(&mut Fields) -> Result<ArchSpec, ModelError>;

/// `config.json`'s `architectures` → how to read the rest of it.
const ARCHITECTURES: &[(&str, ReadFields)] = &[
    ("LlamaForCausalLM", llama::spec),
    ("MistralForCausalLM", mistral::spec),
    ("Phi3ForCausalLM", phi3::spec),
    ("Qwen2ForCausalLM", qwen2::spec),
    ("Qwen3ForCausalLM", qwen3::spec),
];
