//! OpenAI's dialect with vLLM's extensions: completions, chat completions, embeddings, models.
//!
//! Every body is read several times, each time for the fields one part knows: the sampling fields
//! that completions and chat share, the fields of the route, and the table of what is refused.
mod calls;
mod chat;
mod chat_answer;
mod completion_answer;
mod completions;
mod embeddings;
mod fields;
mod logprobs;
mod messages;
mod models;
pub(super) mod refused;
mod shown;
mod spoken;
mod tools;
mod usage;

pub(super) use chat::chat_completions;
#[cfg(test)]
pub(super) use chat::chat_fields;
#[cfg(test)]
pub(super) use completions::completion_fields;
pub(super) use completions::{completions, entries};
#[cfg(test)]
pub(super) use embeddings::embedding_fields;
pub(super) use embeddings::embeddings;
pub(super) use fields::{named_adapters, priority};
pub(super) use messages::chat_prompt;
pub(super) use models::{list, remove, retrieve};
pub(super) use tools::Tools;
