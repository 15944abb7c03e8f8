//! From the two files to weights and their description.
use super::{assemble::assemble, config::LoraConfig, keys::Role, parts};
use crate::adapter::{
    AdapterError, AdapterLimits,
    describe::Facts,
    format::{
        table::{Fit, ParsedAdapter, Source},
        tensors,
    },
};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// # Errors
/// When the config or a tensor is broken, not served, or does not fit.
pub(in crate::adapter::format) fn parse(
    source: &Source<'_>,
) -> Result<ParsedAdapter, AdapterError> {
    let mut config = LoraConfig::read(source.config, source.limits)?;
    let tensors = tensors::open(source.weights)?;
    let dtypes: BTreeSet<_> = tensors.values().map(|view| format!("{:?}", view.dtype())).collect();
    let (modules, paths) = parts::sort(&tensors, source.fit.layout(), config.task)?;
    config.paths = paths;
    let biases = [Role::BBias, Role::Bias, Role::TargetBias];
    let biased = modules.values().filter(|parts| biases.iter().any(|role| parts.has(*role)));
    let mut facts = Facts {
        kind: "lora",
        names: paths.names,
        task: config.task.name(),
        labels: None,
        alpha: config.alpha.default(),
        rslora: config.rslora,
        dora: config.extras.dora,
        biases: biased.count(),
        parameters: modules.values().map(parts::Parts::parameters).sum(),
        target_modules: source.config.get("target_modules").cloned().unwrap_or_default(),
        base_model: config.base_model.clone(),
        ignored_fields: config.ignored.clone(),
        dtypes: dtypes.into_iter().collect(),
        file_bytes: 0,
    };
    if let (Fit::Base(_), false) = (source.fit, config.ignored.is_empty()) {
        let fields = config.ignored.join(", ");
        tracing::warn!(fields, "adapter_config.json has fields that this build does not know");
    }
    let (weights, labels) = assemble(&config, modules, source.fit)?;
    facts.labels = labels;
    Ok(ParsedAdapter { weights, facts })
}

/// PEFT's factor on `B·A`, by a module's path and its rank.
///
/// # Errors
/// As [`parse`], as far as the config goes.
pub(in crate::adapter::format) fn scaling(
    config: &Map<String, Value>,
    limits: &AdapterLimits,
) -> Result<impl Fn(&str, usize) -> Result<f32, AdapterError>, AdapterError> {
    let config = LoraConfig::read(config, limits)?;
    Ok(move |path: &str, rank: usize| config.scaling(path, rank))
}
