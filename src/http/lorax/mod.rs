//! LoRAX's and TGI's dialect: `inputs` and `parameters`, details on request, no end mark in streams.
mod answer;
mod headers;
mod parameters;
mod routes;

#[cfg(test)]
pub(super) use parameters::parameter_fields;
pub(super) use routes::{compat, generate, generate_stream, info, tokenize};
