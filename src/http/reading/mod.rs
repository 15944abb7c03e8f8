//! Texts that are read instead of continued: what the dialects of embedding, classifying and scoring share.
mod ask;
mod base64;
mod call;
mod entities;
mod fields;
mod head;
mod inputs;
mod named;
mod read;
mod shadow;

pub(super) use ask::{Ask, Cost, read};
pub(super) use base64::base64;
pub(super) use call::Call;
pub(super) use entities::{EntityShown, best, shown_entities, whole_text};
pub(super) use fields::ReadFields;
pub(super) use head::Head;
pub(super) use inputs::{counted, inputs, missing, sequences, texts};
pub(super) use read::{Scores, numbers, scores, token_vectors, vectors};
