//! Which adapter kinds are served: one line each.
use super::tensors::shown;
use super::{AdapterFiles, gguf, peft, tensors};
use crate::{
    adapter::{AdapterDescription, AdapterError, AdapterLimits, describe::Facts},
    lora::{FrozenBase, LoraLayout, LoraWeights, ModuleNames},
};
use bytes::Bytes;
use serde_json::{Map, Value};

/// An adapter that fits the base.
#[derive(Debug)]
pub struct ParsedAdapter {
    /// The factors.
    pub weights: LoraWeights,
    pub(super) facts: Facts,
}

impl ParsedAdapter {
    /// What it is, for people. The norms in it cost more than all else: who only wants to serve it does without.
    ///
    /// # Errors
    /// When a product of factors is not a number.
    pub fn describe(&self) -> Result<AdapterDescription, AdapterError> {
        AdapterDescription::new(self.facts.clone(), &self.weights)
    }
}

/// What an adapter is held against.
#[derive(Clone, Copy)]
pub(super) enum Fit<'a> {
    /// Nothing: shapes are the tensors' own.
    Alone,
    /// A model's layers, without their values: weights made from it lack what depends on those.
    Layout(&'a LoraLayout),
    /// A loaded base.
    Base(&'a dyn FrozenBase),
}

impl<'a> Fit<'a> {
    pub(super) fn layout(self) -> Option<&'a LoraLayout> {
        match self {
            Self::Alone => None,
            Self::Layout(layout) => Some(layout),
            Self::Base(base) => Some(base.layout()),
        }
    }

    pub(super) fn base(self) -> Option<&'a dyn FrozenBase> {
        match self {
            Self::Base(base) => Some(base),
            Self::Alone | Self::Layout(_) => None,
        }
    }
}

/// What a format's parser gets.
pub(super) struct Source<'a> {
    pub(super) config: &'a Map<String, Value>,
    pub(super) weights: &'a Bytes,
    pub(super) fit: Fit<'a>,
    pub(super) limits: &'a AdapterLimits,
}

/// A kind of adapter, by the `peft_type` of its config.
struct Format {
    peft_type: &'static str,
    parse: fn(&Source<'_>) -> Result<ParsedAdapter, AdapterError>,
}

const FORMATS: &[Format] = &[Format { peft_type: "LORA", parse: peft::parse }];

/// Checks `files` against `base` and makes of them what is served.
///
/// # Errors
/// When the files are broken, too large, ask for what is not served, or do not fit the base, or it cannot be read.
pub fn parse(
    files: &AdapterFiles,
    base: &dyn FrozenBase,
    limits: &AdapterLimits,
) -> Result<ParsedAdapter, AdapterError> {
    read(files, Fit::Base(base), limits)
}

/// Checks `files` as far as that goes without a base's values, and says what they are. Without a layout everything is
/// checked but the fit to a model.
///
/// # Errors
/// As [`parse`], but for what the values of a base decide.
pub fn check(
    files: &AdapterFiles,
    layout: Option<&LoraLayout>,
    limits: &AdapterLimits,
) -> Result<AdapterDescription, AdapterError> {
    let fit = layout.map_or(Fit::Alone, Fit::Layout);
    read(files, fit, limits)?.describe()
}

fn read(
    files: &AdapterFiles,
    fit: Fit<'_>,
    limits: &AdapterLimits,
) -> Result<ParsedAdapter, AdapterError> {
    files.check_size(limits)?;
    let mut parsed = match files {
        AdapterFiles::Peft { config, weights } => parse_peft(config, weights, fit, limits)?,
        AdapterFiles::Gguf(bytes) => parse_gguf(bytes, fit, limits)?,
    };
    parsed.facts.file_bytes = files.bytes();
    Ok(parsed)
}

fn parse_peft(
    config: &Bytes,
    weights: &Bytes,
    fit: Fit<'_>,
    limits: &AdapterLimits,
) -> Result<ParsedAdapter, AdapterError> {
    let config = read_config(config)?;
    let format = find(&config)?;
    (format.parse)(&Source { config: &config, weights, fit, limits })
}

/// By way of PEFT's form, so that both forms pass the same checks.
fn parse_gguf(
    bytes: &Bytes,
    fit: Fit<'_>,
    limits: &AdapterLimits,
) -> Result<ParsedAdapter, AdapterError> {
    if fit.layout().is_some_and(|layout| layout.names() != ModuleNames::Decoder) {
        return Err(AdapterError::unsupported(
            "a GGUF adapter is for a model that continues texts, and the model that is served is an encoder: upload the \
             PEFT adapter",
        ));
    }
    let peft = gguf::translate(bytes, fit.layout())?;
    if fit.layout().is_some() && peft.rows_in_pairs {
        return Err(AdapterError::invalid("the base does not say how many attention heads it has"));
    }
    let parsed = parse_peft(&peft.config, &peft.weights, fit, limits);
    let mut parsed = parsed.map_err(AdapterError::in_peft_words)?;
    parsed.facts.dtypes = peft.types;
    Ok(parsed)
}

fn read_config(config: &Bytes) -> Result<Map<String, Value>, AdapterError> {
    serde_json::from_slice(config).map_err(|error| {
        AdapterError::invalid(format!("adapter_config.json is not a JSON object: {error}"))
    })
}

/// A PEFT adapter as a GGUF file.
///
/// # Errors
/// When it has what a GGUF adapter cannot carry.
pub(in crate::adapter) fn export(
    config: &Bytes,
    weights: &Bytes,
    target: &gguf::Target<'_>,
    limits: &AdapterLimits,
) -> Result<Vec<u8>, AdapterError> {
    let config = read_config(config)?;
    gguf::check_task(&config)?;
    let scaling = peft::scaling(&config, limits)?;
    gguf::export(&config, &tensors::open(weights)?, target, scaling)
}

fn find(config: &Map<String, Value>) -> Result<&'static Format, AdapterError> {
    let Some(peft_type) = config.get("peft_type") else {
        return Err(AdapterError::invalid(
            "adapter_config.json has no `peft_type`: is it the config of an adapter?",
        ));
    };
    FORMATS.iter().find(|format| peft_type == format.peft_type).ok_or_else(|| {
        let served: Vec<_> = FORMATS.iter().map(|format| format.peft_type).collect();
        AdapterError::unsupported(format!(
            "`peft_type` is {}: this server serves {}",
            shown(peft_type),
            served.join(", ")
        ))
    })
}
