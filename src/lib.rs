//! One frozen base model, many LoRA adapters, one batch: a multi-adapter inference server.
//!
//! A LoRA adapter is a pair of thin matrices a layer: `W' = W + s·B·A` (Hu et al. 2021). lorad keeps `W` once
//! and applies each request's own `s·B·A` to that request's rows of a batch which all requests share.
//!
//! # Rooms
//!
//! ```text
//! http ── generation ── engine ─┬─ model ──┬─ lora ── kernel     (error, telemetry: below all; config: above all)
//!                               └─ adapter ┴─ gguf, hub
//! bench ── model, lora, kernel
//! ```
//!
//! Imports point down; `tests/house.rs` fails the build when one does not.
//!
//! | room | what it does | what it does not know |
//! |---|---|---|
//! | [`kernel`] | a step's operations, once per device | names, requests, models |
//! | [`lora`] | low-rank deltas: shape, memory, routing of rows | adapter names, files |
//! | [`gguf`] | llama.cpp's files: values, tensors, its names | configurations, forward passes, adapters |
//! | [`hub`] | Hugging Face repositories: ids, refusals | what is in them |
//! | [`model`] | checkpoint in; logits, hidden states and scores out | adapter names, sequences, scheduling |
//! | [`adapter`] | files → checked weights; names, versions, leases | device memory, slots, sequences |
//! | [`engine`] | one thread: schedule → run → sample | HTTP, text, files |
//! | [`generation`] | text in; text, embeddings or labels out | HTTP, tensors |
//! | [`http`] | dialects to one request type and back | tokens, tensors, slots |
//! | [`bench`] | measures servers and this machine, for `lorad bench` | our own server: it is a client like any other |
//!
//! # The sentence that carries it
//!
//! The model knows slots, never names; the registry knows names, never slots; only `engine/residency.rs` knows
//! both.
//!
//! # The path of a request
//!
//! 1. [`http`] parses a dialect's JSON into a [`generation::GenerateRequest`].
//! 2. [`generation::Generator`] renders the chat template, tokenises, checks the length, leases the adapters'
//!    current versions from [`adapter::AdapterRegistry`] and submits to [`engine::EngineHandle`].
//! 3. The engine thread schedules: tokens to sequences while budget and KV blocks last; adapters that are missing come
//!    from the loader's thread meanwhile.
//! 4. The runner builds one flat [`model::ForwardBatch`] of all of them; every linear layer adds each segment's
//!    low-rank delta; the sampler draws each sequence's token from its own seed.
//! 5. Tokens go back as [`engine::Event`]s, become text with stop strings honoured, and leave as JSON or SSE.
//!    A client that goes away drops the stream, and its blocks are free before the next step.
//!
//! # The path of a text that is read
//!
//! Embeddings, labels and scores of pairs take the same way: [`generation::Generator::encode`] submits every text as a
//! sequence that wants an [`engine::Output`] instead of an answer. On a causal base it shares steps with sequences that
//! generate. On an encoder a token sees both sides, so all of a text is computed in one step, and its keys and values lie
//! in the paged cache for the length of one layer. Each adapter may bring a [`lora::ClassHead`] with labels of its own.
//!
//! # The path of an upload
//!
//! `PUT /admin/adapters/{name}` → content hash → every field and tensor checked against the model's
//! [`lora::LoraLayout`] → stored: all or nothing → one map insert. Requests that run keep the version they leased.
//!
//! # Glossary
//!
//! *sequence*: a prompt and its continuation in the engine; *request*: the same in HTTP and generation. *step*: one
//! forward pass. *block*: a fixed number of tokens' keys and values; *block table*: a sequence's blocks. *site*: one
//! linear layer that an adapter may change. *adapter slot*: a resident adapter's place on the device. *mix*: a
//! request's adapters with their weights. *alias*: a model name with weighted targets; *shadow*: a target whose
//! answers are only compared. *class head*: what scores labels, the base's or an adapter's. *version*: an adapter's immutable content; *current*: what a name points at. *lease*: the right to use a version.
pub mod adapter;
pub mod app;
pub mod bench;
pub mod cli;
pub mod config;
pub mod demo;
pub mod engine;
pub mod error;
pub mod generation;
pub mod gguf;
pub mod http;
pub mod hub;
pub mod kernel;
pub mod lora;
pub mod model;
pub mod telemetry;
