//! `lorad inspect`: what an adapter is, and whether it fits a model.
use crate::{
    adapter::{AdapterDescription, AdapterFiles, AdapterLimits, VersionId, format},
    lora::LoraLayout,
    model::{self, ModelSource},
};
use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

/// What to look at.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// Directory with `adapter_config.json` and `adapter_model.safetensors`
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

/// Exit status 0 when the adapter could be served.
pub(super) fn run(args: &InspectArgs) -> ExitCode {
    // A closed pipe is the reader's choice; whether the adapter is good is told by the status.
    match report(args) {
        Ok(report) => {
            let text = if args.json { report.json() } else { report.to_string() };
            let _ = writeln!(io::stdout(), "{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(reason) => {
            let _ = writeln!(io::stderr(), "lorad inspect: {}: {reason}", args.adapter.display());
            ExitCode::FAILURE
        }
    }
}

/// What is printed.
struct Report {
    version: VersionId,
    model: Option<String>,
    adapter: AdapterDescription,
}

fn report(args: &InspectArgs) -> Result<Report, String> {
    let layout = args.model.as_deref().map(layout).transpose()?;
    let files = AdapterFiles::read(&args.adapter, &args.limits).map_err(|e| e.to_string())?;
    let parsed = format::parse(&files, layout.as_ref(), &args.limits).map_err(|e| e.to_string())?;
    let (version, model) = (files.version(), args.model.clone());
    Ok(Report { version, model, adapter: parsed.description })
}

fn layout(model: &str) -> Result<LoraLayout, String> {
    let source = match model {
        "demo" => Ok(ModelSource::Embedded(crate::demo::BASE)),
        model => ModelSource::parse(model),
    };
    source.and_then(|source| model::layout(&source)).map_err(|error| error.to_string())
}

impl Report {
    fn json(&self) -> String {
        let report = serde_json::json!({
            "version": self.version.to_string(),
            "fits": self.model,
            "adapter": self.adapter,
        });
        format!("{report:#}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let adapter = &self.adapter;
        let scaling = if adapter.rslora { "alpha / sqrt(rank)" } else { "alpha / rank" };
        writeln!(f, "kind        {}, scaling {scaling}, alpha {}", adapter.kind, adapter.alpha)?;
        writeln!(f, "version     {}", self.version)?;
        writeln!(f, "targets     {}", adapter.target_modules)?;
        writeln!(f, "covers      {} linear layers in {} blocks", adapter.sites, adapter.layers)?;
        writeln!(f, "rank        {}", list(&adapter.ranks))?;
        writeln!(f, "parameters  {} ({})", adapter.parameters, adapter.dtypes.join(", "))?;
        writeln!(f, "bytes       {} in files, {} in memory", adapter.file_bytes, adapter.bytes)?;
        writeln!(f, "delta norm  {:.4}", adapter.delta_norm)?;
        if let Some(base) = &adapter.base_model {
            writeln!(f, "trained on  {base}")?;
        }
        match &self.model {
            Some(model) => writeln!(f, "fits        {model}")?,
            None => writeln!(f, "fits        not checked; name a base model with --model")?,
        }
        for ignored in &adapter.ignored_fields {
            writeln!(f, "ignored     {ignored}")?;
        }
        writeln!(
            f,
            "\n{:<22}{:>7}{:>12}{:>13}{:>14}",
            "module", "blocks", "rank", "parameters", "delta norm"
        )?;
        for module in &adapter.projections {
            let (layers, ranks) = (module.layers, list(&module.ranks));
            let (name, parameters, norm) = (module.module, module.parameters, module.delta_norm);
            writeln!(f, "{name:<22}{layers:>7}{ranks:>12}{parameters:>13}{norm:>14.4}")?;
        }
        Ok(())
    }
}

fn list(ranks: &[usize]) -> String {
    ranks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
