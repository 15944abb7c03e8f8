//! Texts read instead of continued: embeddings, labels, entities and scores of pairs.
mod ability;
mod config;
mod encoder;
mod entities;
mod error;
mod plan;
mod request;
mod score;
mod tally;
mod text;
mod values;
mod window;

pub use ability::{Abilities, EmbeddingSetup};
pub use config::EncodeConfig;
pub use error::InputError;
pub use request::{
    EncodeInput, EncodeRequest, Encoded, EncodedText, EncodedValue, Entity, Keep, ScoreRequest,
    Scored, Truncation, Wanted,
};
