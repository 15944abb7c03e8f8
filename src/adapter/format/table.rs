//! Which adapter kinds are served: one line each.
use super::{AdapterFiles, peft, tensors::shown};
use crate::{
    adapter::{AdapterDescription, AdapterError, AdapterLimits},
    lora::{FrozenBase, LoraLayout, LoraWeights},
};
use serde_json::{Map, Value};

/// An adapter that fits the base.
#[derive(Debug)]
pub struct ParsedAdapter {
    /// The factors.
    pub weights: LoraWeights,
    /// What it is, for people.
    pub description: AdapterDescription,
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
    pub(super) files: &'a AdapterFiles,
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
    Ok(read(files, fit, limits)?.description)
}

fn read(
    files: &AdapterFiles,
    fit: Fit<'_>,
    limits: &AdapterLimits,
) -> Result<ParsedAdapter, AdapterError> {
    files.check_size(limits)?;
    let config: Map<String, Value> = serde_json::from_slice(&files.config).map_err(|error| {
        AdapterError::invalid(format!("adapter_config.json is not a JSON object: {error}"))
    })?;
    let format = find(&config)?;
    (format.parse)(&Source { config: &config, files, fit, limits })
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
