//! The dialect of text-embeddings-inference: bare lists, `truncate`, `raw_scores`; and adapters, which it has not.
mod classes;
mod embed;
mod fields;
mod headers;
mod rerank;
mod similarity;
mod tokens;

pub(super) use classes::predict;
#[cfg(test)]
pub(super) use embed::embed_fields;
pub(super) use embed::{embed, embed_all, embed_sparse};
pub(super) use rerank::rerank;
pub(super) use similarity::similarity;
pub(super) use tokens::{decode, tokenize};
