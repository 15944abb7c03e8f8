//! The `lorad` binary: arguments, then one of the commands.
use clap::Parser;
use lorad::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    Cli::parse().run()
}
