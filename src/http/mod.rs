//! The front door. Translates between HTTP and the rooms behind it; decides nothing.
//!
//! Knows JSON, status codes and who may come in. Knows no tokens, no tensors and no slots. A dialect
//! is a folder; a route is a line in [`ROUTES`]; a failure becomes a status code in [`ApiError`] alone.
mod access;
mod admin;
mod admission;
mod auth;
mod best;
mod colliding;
mod config;
mod connections;
mod drain;
mod entrance;
mod error;
mod events;
mod fan_out;
mod health;
mod info;
mod json;
mod layers;
mod llama;
mod lorax;
mod metrics;
mod mix;
mod openai;
mod openapi;
mod orca;
mod reading;
mod request_id;
mod router;
mod serve;
mod served;
mod shadow;
mod spans;
mod split;
mod sse;
mod state;
mod structured;
mod tei;
mod time;
mod tls;
mod tokens;
mod upload;
mod vllm;

pub use auth::{Access, KeyFile, Keys};
pub use config::HttpConfig;
pub use entrance::Entrance;
pub use error::ApiError;
pub use router::{Dialect, ROUTES, Route, router};
pub use serve::{listen, serve};
pub use state::AppState;
use time::unix_seconds;
