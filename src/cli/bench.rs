//! `lorad bench`: measure.
use super::fail;
use crate::{
    bench::{AdaptersArgs, BenchError, LoadArgs},
    demo,
    model::{ModelError, ModelSource},
};
use clap::Subcommand;
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Load a running server with streaming completions and time them.
    ///
    /// Any server that speaks OpenAI's completions with token ids as prompts: lorad, llama.cpp, vLLM. Prompts are
    /// random token ids of exact length without a common beginning. With --compare, two servers run in alternation.
    Load(Box<LoadArgs>),
    /// Write random adapters of a model's shape, to load a server with.
    Adapters(AdaptersArgs),
}

/// Exit status 0 when there are figures.
pub(super) fn run(command: &BenchCommand) -> ExitCode {
    let mut out = io::stdout();
    match measure(command, &mut out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("lorad bench", &error),
    }
}

fn measure(command: &BenchCommand, out: &mut dyn Write) -> Result<(), BenchError> {
    match command {
        BenchCommand::Load(args) => args.run(out),
        BenchCommand::Adapters(args) => args.run(&source(&args.model)?, out),
    }
}

fn source(model: &str) -> Result<ModelSource, ModelError> {
    match model {
        "demo" => Ok(ModelSource::Embedded(demo::BASE)),
        model => ModelSource::parse(model),
    }
}
