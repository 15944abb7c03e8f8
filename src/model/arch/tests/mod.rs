//! What configurations mean, and what is refused of them.
mod decoders;
mod encoders;
