//! Texts read instead of continued: embeddings, labels, entities and scores of pairs.
mod ability;
mod encoder;
mod request;

pub use ability::{Abilities, EmbeddingSetup};
pub use request::{
    EncodeInput, EncodeRequest, Encoded, EncodedText, EncodedValue, Entity, Keep, ScoreRequest,
    Scored, Truncation, Wanted,
};
