//! A load on any OpenAI-compatible server: streaming completions, timed piece by piece, or texts that are read.
//!
//! `args`, `target` and `texts` say what is asked of whom, `plan` makes the requests, `drive` sends them, `client` and `sse`
//! read the answers into `sample`s, `summary` and `stats` reduce those, `table` and `page` show them. `compare` and
//! `stall` are two ways to arrange runs.
mod args;
mod client;
mod compare;
mod drive;
mod page;
mod plan;
mod plot;
mod run;
mod sample;
mod sse;
mod stall;
mod stats;
mod summary;
mod table;
mod target;
mod texts;

pub use args::LoadArgs;
