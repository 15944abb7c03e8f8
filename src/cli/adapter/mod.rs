//! `lorad adapter`: what the admin API of a running server does, one file a command.
//!
//! Knows the admin API and a terminal. Knows no registry: everything it says comes from the server.
mod alias;
mod client;
mod command;
mod confirm;
mod error;
mod how;
mod list;
mod output;
mod pull;
mod push;
mod remove;
mod report;
mod rollback;
mod send;
mod server;
mod show;
mod source;
mod split;
mod table;
mod terms;
mod versions;
mod words;

pub(super) use command::{AdapterArgs, run};
