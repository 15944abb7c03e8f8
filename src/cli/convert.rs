//! `lorad convert`: one adapter in the other form.
use crate::{
    adapter::{self, AdapterError, AdapterFiles, AdapterLimits, ConvertBase},
    demo,
    gguf::Storage,
    model::{self, ModelError, ModelSource, Outline},
};
use clap::ValueEnum;
use std::{
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What to turn into what.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ConvertArgs {
    /// The adapter: a PEFT directory, or a GGUF file
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// Where to put it: a directory, or a file that ends in .gguf
    #[arg(value_name = "DEST")]
    destination: PathBuf,
    /// Its base model: a directory, a GGUF file, a hub id, or `demo` for the embedded one. Needed to write a GGUF file,
    /// and to read one whose rows depend on the number of heads; only its configuration is read
    #[arg(long, env = "LORAD_MODEL", value_name = "MODEL")]
    model: Option<String>,
    /// The form to write [default: gguf where DEST ends in .gguf, else peft]
    #[arg(long, value_name = "FORM")]
    to: Option<Form>,
    /// How a GGUF file stores the factors [default: as the adapter has them]
    #[arg(long, value_name = "TYPE")]
    outtype: Option<OutType>,
    /// Replace the adapter that is at DEST
    #[arg(long)]
    force: bool,
    /// What would be refused.
    #[command(flatten)]
    limits: AdapterLimits,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// `adapter_config.json` and `adapter_model.safetensors`
    Peft,
    /// One file for llama.cpp
    Gguf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OutType {
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
    /// The upper half of 32-bit floats
    Bf16,
    /// Blocks of 8 bits; factors that blocks do not fill are f16
    #[value(name = "q8_0")]
    Q8_0,
}

impl OutType {
    fn storage(self) -> Storage {
        match self {
            Self::F32 => Storage::F32,
            Self::F16 => Storage::F16,
            Self::Bf16 => Storage::BF16,
            Self::Q8_0 => Storage::Q8_0,
        }
    }
}

/// Exit status 0 when the adapter is written.
pub(super) fn run(args: &ConvertArgs) -> ExitCode {
    match convert(args) {
        Ok(bytes) => {
            let (from, to) = (args.source.display(), args.destination.display());
            let _ = writeln!(io::stdout(), "{from} -> {to} ({bytes} bytes)");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            let _ = writeln!(io::stderr(), "lorad convert: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Bytes written.
fn convert(args: &ConvertArgs) -> Result<u64, Box<dyn Error>> {
    let at = |path: &Path, error: AdapterError| format!("{}: {error}", path.display());
    let source = AdapterFiles::read(&args.source, &args.limits);
    let source = source.map_err(|error| at(&args.source, error))?;
    let base = args.model.as_deref().map(base).transpose()?;
    let gguf = args.destination.extension().is_some_and(|extension| extension == "gguf");
    let form = args.to.unwrap_or(if gguf { Form::Gguf } else { Form::Peft });
    let converted = match (form, base, args.outtype) {
        (Form::Peft, _, Some(_)) => {
            return Err("--outtype is for GGUF files; PEFT's keep each factor's type".into());
        }
        (Form::Peft, base, None) => adapter::to_peft(&source, base.as_ref(), &args.limits),
        (Form::Gguf, None, _) => {
            return Err(
                "a GGUF file names its base's architecture: give the base with --model".into()
            );
        }
        (Form::Gguf, Some(base), outtype) => {
            let (name, storage) = (name(&args.source), outtype.map(OutType::storage));
            adapter::to_gguf(&source, &base, &name, storage, &args.limits)
        }
    };
    let converted = converted.map_err(|error| at(&args.source, error))?;
    adapter::write(&converted, &args.destination, args.force)
        .map_err(|error| at(&args.destination, error))?;
    Ok(converted.bytes())
}

/// What the adapter is called.
fn name(source: &Path) -> String {
    let whole = source.canonicalize().unwrap_or_else(|_| source.to_owned());
    whole.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn base(model: &str) -> Result<ConvertBase, ModelError> {
    let source = match model {
        "demo" => ModelSource::Embedded(demo::BASE),
        model => ModelSource::parse(model)?,
    };
    let Outline { architecture, layout } = model::outline(&source)?;
    Ok(ConvertBase { class: architecture, layout })
}
