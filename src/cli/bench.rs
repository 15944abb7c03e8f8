//! `lorad bench`: measure.
use super::fail;
use crate::{
    bench::{AdaptersArgs, BenchError, LoadArgs, MachineArgs, QualityArgs},
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
    /// Measure this machine's limits, and how near the products of a model come to them.
    ///
    /// Limits are loops that only read memory, or only multiply what lies in registers. Products are all weights of a
    /// step, once, from memory, with as many rows as a batch has.
    Machine(MachineArgs),
    /// Say what each precision costs in quality: perplexity, divergence from f32 and equal first choices on a text.
    Quality(QualityArgs),
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
        BenchCommand::Machine(args) => {
            let source = args.model.as_deref().map(source).transpose()?;
            args.run(source.as_ref(), out)
        }
        BenchCommand::Quality(args) => args.run(&source(&args.model)?, out),
        BenchCommand::Adapters(args) => args.run(&source(&args.model)?, out),
    }
}

fn source(model: &str) -> Result<ModelSource, ModelError> {
    match model {
        "demo" => Ok(ModelSource::Embedded(demo::BASE)),
        model => ModelSource::parse(model),
    }
}
