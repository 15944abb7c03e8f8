//! `lorad inspect`: what an adapter is, and whether it fits a model.
use crate::{
    adapter::{AdapterLimits, Inspection, inspect},
    demo,
    lora::LoraLayout,
    model::{self, ModelError, ModelSource},
};
use std::{
    error::Error,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

/// What to look at.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// Directory with `adapter_config.json` and `adapter_model.safetensors`, or a GGUF file
    #[arg(value_name = "ADAPTER")]
    adapter: PathBuf,
    /// Base model it should fit: a directory, a GGUF file, a hub id, or `demo` for the embedded one
    #[arg(long, env = "LORAD_MODEL", value_name = "MODEL")]
    model: Option<String>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// What would be refused.
    #[command(flatten)]
    limits: AdapterLimits,
}

/// Exit status 0 when the adapter is sound, and fits the model if one is named.
pub(super) fn run(args: &InspectArgs) -> ExitCode {
    // A closed pipe is the reader's choice; whether the adapter is good is told by the status.
    match report(args) {
        Ok((text, good)) => {
            let _ = writeln!(io::stdout(), "{text}");
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(reason) => {
            let _ = writeln!(io::stderr(), "lorad inspect: {}: {reason}", args.adapter.display());
            ExitCode::FAILURE
        }
    }
}

/// What to print, and whether the adapter could be served.
fn report(args: &InspectArgs) -> Result<(String, bool), Box<dyn Error>> {
    let model = args.model.as_deref().map(layout).transpose()?;
    let model = model.as_ref().map(|(name, layout)| (name.as_str(), layout));
    let inspection: Inspection = inspect(&args.adapter, model, &args.limits)?;
    let text =
        if args.json { serde_json::to_string_pretty(&inspection)? } else { inspection.to_string() };
    Ok((text, inspection.misfit.is_none()))
}

/// The model's name and layers.
fn layout(model: &str) -> Result<(String, LoraLayout), ModelError> {
    let source = match model {
        "demo" => ModelSource::Embedded(demo::BASE),
        model => ModelSource::parse(model)?,
    };
    Ok((source.name(), model::layout(&source)?))
}
