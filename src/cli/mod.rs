//! The command line: `serve`, `adapter`, `inspect`, `convert`, `bench`, `healthcheck`.
mod adapter;
mod bench;
mod convert;
mod fail;
mod healthcheck;
mod inspect;
mod serve;

use crate::config::ServeConfig;
use clap::{Parser, Subcommand};
use fail::fail;
use std::process::ExitCode;

/// One frozen base model, many LoRA adapters, one batch.
#[derive(Debug, Parser)]
#[command(name = "lorad", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a base model and its adapters over HTTP.
    ///
    /// Without --model it serves the small demonstration model that is part of this binary, with its three
    /// adapters. A flag wins over its environment variable.
    Serve(Box<ServeConfig>),
    /// Publish, list, roll back and split the adapters of a running server.
    ///
    /// Speaks to the server's admin API. Exit status 1 when the server says no or does not answer, 2 when the command
    /// makes no sense.
    Adapter(Box<adapter::AdapterArgs>),
    /// Say what an adapter is: its layers, ranks, size and norms, and whether it fits a model.
    Inspect(inspect::InspectArgs),
    /// Turn a GGUF adapter into a PEFT directory, or a PEFT adapter into a GGUF file.
    ///
    /// Factors keep their type and every bit, unless --outtype says otherwise. What the other form cannot say exactly is
    /// refused by name.
    Convert(convert::ConvertArgs),
    /// Measure a server, with or without a second one beside it.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Ask a running server whether it is healthy; exit status 0 if it is.
    Healthcheck(healthcheck::HealthcheckArgs),
}

impl Cli {
    /// Runs the command to its end.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Serve(config) => serve::run(&config),
            Command::Adapter(args) => adapter::run(&args),
            Command::Inspect(args) => inspect::run(&args),
            Command::Convert(args) => convert::run(&args),
            Command::Bench(command) => bench::run(&command),
            Command::Healthcheck(args) => healthcheck::run(&args),
        }
    }
}
