//! The commands of `lorad adapter`, and how each ends.
use super::{
    client::Server, error::CommandError, list, output::Output, pull, push, remove, rollback,
    server::ServerArgs, show, split, terms,
};
use clap::Subcommand;
use std::{
    io::{self, Write},
    process::ExitCode,
};
use tokio::runtime::Builder;

/// A server, and what to do with its adapters.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct AdapterArgs {
    #[command(subcommand)]
    command: AdapterCommand,
    #[command(flatten)]
    server: ServerArgs,
    /// Print the server's JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Show no progress; elsewhere than on a terminal none is shown anyway
    #[arg(long, short, global = true)]
    quiet: bool,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
enum AdapterCommand {
    /// Publish an adapter, or replace one, while the server serves
    Push(Box<push::PushArgs>),
    /// List the server's adapters
    List(list::ListArgs),
    /// Show one adapter with its terms, its usage and its history
    Show(show::ShowArgs),
    /// Download the files of a version
    Pull(pull::PullArgs),
    /// Make a name mean a former version again
    Rollback(rollback::RollbackArgs),
    /// List, show and change aliases: model names whose requests are split between targets
    Split(Box<split::SplitArgs>),
    /// Change the terms on which an adapter is served: pinning, share, limits
    Terms(terms::TermsArgs),
    /// Take an adapter out of service, with all its versions
    Rm(remove::RemoveArgs),
}

/// Exit status 0 when it is done, 1 when it could not be, 2 when it makes no sense.
pub(in crate::cli) fn run(args: &AdapterArgs) -> ExitCode {
    match output(args) {
        Ok(output) => {
            let text = if args.json { format!("{:#}", output.json) } else { output.text };
            // A closed pipe is the reader's choice.
            let _ = writeln!(io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "lorad adapter: {error}");
            error.exit_code()
        }
    }
}

fn output(args: &AdapterArgs) -> Result<Output, CommandError> {
    let server = Server::new(&args.server)?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::failed(error.to_string()))?;
    runtime.block_on(done(&server, args))
}

async fn done(server: &Server, args: &AdapterArgs) -> Result<Output, CommandError> {
    match &args.command {
        AdapterCommand::Push(push) => push::run(server, push, args.quiet).await,
        AdapterCommand::List(list) => list::run(server, list).await,
        AdapterCommand::Show(show) => show::run(server, show).await,
        AdapterCommand::Pull(pull) => pull::run(server, pull, args.quiet).await,
        AdapterCommand::Rollback(rollback) => rollback::run(server, rollback).await,
        AdapterCommand::Split(split) => split::run(server, split).await,
        AdapterCommand::Terms(terms) => terms::run(server, terms).await,
        AdapterCommand::Rm(remove) => remove::run(server, remove).await,
    }
}
