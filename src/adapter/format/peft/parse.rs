//! From the two files to weights and their description.
use super::{assemble::assemble, config::LoraConfig};
use crate::adapter::{
    AdapterError,
    describe::{AdapterDescription, Facts},
    format::{
        table::{ParsedAdapter, Source},
        tensors,
    },
};
use std::collections::BTreeSet;

/// # Errors
/// When the config or a tensor is broken, not served, or does not fit the layout.
pub(in crate::adapter::format) fn parse(
    source: &Source<'_>,
) -> Result<ParsedAdapter, AdapterError> {
    let config = LoraConfig::read(source.config, source.limits)?;
    let tensors = tensors::open(&source.files.weights)?;
    let dtypes: BTreeSet<_> = tensors.values().map(|view| format!("{:?}", view.dtype())).collect();
    let weights = assemble(&config, &tensors, source.layout)?;
    let facts = Facts {
        kind: "lora",
        alpha: config.alpha.default(),
        rslora: config.rslora,
        target_modules: source.config.get("target_modules").cloned().unwrap_or_default(),
        base_model: config.base_model,
        ignored_fields: config.ignored,
        dtypes: dtypes.into_iter().collect(),
        file_bytes: source.files.bytes(),
    };
    let description = AdapterDescription::new(facts, &weights)?;
    Ok(ParsedAdapter { weights, description })
}
