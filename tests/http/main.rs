//! The server as its clients see it: every dialect, every error, and whatever they send.
#[path = "../client/mod.rs"]
mod client;

mod access;
mod admin;
mod aliases;
mod control;
mod exposition;
mod fields;
mod grammar_bombs;
mod llama;
mod lorax;
mod malformed;
mod mixes;
mod openai;
mod openapi;
mod operations;
mod reading;
mod reading_refused;
mod reading_terms;
mod robustness;
#[path = "../forms/schemas.rs"]
mod schemas;
mod served;
mod structured;
mod tls;
mod tools;
mod traces;
mod transcripts;
mod transport;
mod uploads;
mod versions;
mod vllm;
