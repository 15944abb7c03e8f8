//! LoRAX's and TGI's dialect: `inputs` and `parameters`, details on request, no end mark in streams.
mod answer;
mod headers;
mod parameters;
mod reading;
mod routes;

#[cfg(test)]
pub(super) use parameters::parameter_fields;
pub(super) use reading::{classify, classify_batch, embed};
pub(super) use routes::{compat, generate, generate_stream, tokenize};
