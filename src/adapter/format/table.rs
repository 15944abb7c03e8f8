//! Which adapter kinds are served: one line each.
use super::{AdapterFiles, peft, tensors::shown};
use crate::{
    adapter::{AdapterDescription, AdapterError, AdapterLimits},
    lora::{LoraLayout, LoraWeights},
};
use serde_json::{Map, Value};

/// An adapter that fits the model.
#[derive(Debug)]
pub struct ParsedAdapter {
    /// The factors.
    pub weights: LoraWeights,
    /// What it is, for people.
    pub description: AdapterDescription,
}

/// What a format's parser gets. The layout is `None` when there is no model to fit: shapes are then the tensors' own.
pub(super) struct Source<'a> {
    pub(super) config: &'a Map<String, Value>,
    pub(super) files: &'a AdapterFiles,
    pub(super) layout: Option<&'a LoraLayout>,
    pub(super) limits: &'a AdapterLimits,
}

/// A kind of adapter, by the `peft_type` of its config.
struct Format {
    peft_type: &'static str,
    parse: fn(&Source<'_>) -> Result<ParsedAdapter, AdapterError>,
}

const FORMATS: &[Format] = &[Format { peft_type: "LORA", parse: peft::parse }];

/// Checks `files` and reads them. Without a layout everything is checked but the fit to a model.
///
/// # Errors
/// When the files are broken, too large, ask for what is not served, or do not fit the model.
pub fn parse(
    files: &AdapterFiles,
    layout: Option<&LoraLayout>,
    limits: &AdapterLimits,
) -> Result<ParsedAdapter, AdapterError> {
    files.check_size(limits)?;
    let config: Map<String, Value> = serde_json::from_slice(&files.config).map_err(|error| {
        AdapterError::invalid(format!("adapter_config.json is not a JSON object: {error}"))
    })?;
    let format = find(&config)?;
    (format.parse)(&Source { config: &config, files, layout, limits })
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
