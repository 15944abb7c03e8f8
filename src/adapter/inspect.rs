//! A report on one adapter: what it is, and whether a model can serve it.
use super::{
    AdapterDescription, AdapterError, AdapterLimits, VersionId,
    format::{self, AdapterFiles},
};
use crate::lora::LoraLayout;
use serde::Serialize;
use std::{fmt, path::Path};

/// What [`inspect`] found. `Display` is the same for people.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Identity of the content.
    pub version: VersionId,
    /// What the adapter is.
    pub description: AdapterDescription,
    /// Why the model cannot serve it. `None` when it can, and when there was no model to ask.
    pub misfit: Option<String>,
    /// Whether there was a model to ask.
    pub model_given: bool,
}

/// Reads the adapter at `path`, a directory or a GGUF file, checks it by itself, and against the model, its name and its
/// layers, when there is one.
///
/// # Errors
/// When no model of any shape could serve the adapter; the message says why.
pub fn inspect(
    path: &Path,
    model: Option<(&str, &LoraLayout)>,
    limits: &AdapterLimits,
) -> Result<Inspection, AdapterError> {
    let files = AdapterFiles::read(path, limits)?;
    let mut alone = format::check(&files, None, limits)?;
    if let Some((name, _)) = model {
        alone = alone.beside(name);
    }
    let fit = model.map(|(_, layout)| format::check(&files, Some(layout), limits));
    Ok(Inspection {
        version: files.version(),
        description: alone,
        model_given: fit.is_some(),
        misfit: fit.and_then(Result::err).map(|error| error.to_string()),
    })
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = &self.description;
        let scaling = if about.rslora { "alpha / √rank" } else { "alpha / rank" };
        writeln!(f, "kind            {}", about.kind)?;
        writeln!(f, "version         {}", self.version)?;
        if let Some(task) = &about.task {
            writeln!(f, "task            {task}")?;
        }
        let base = about.base_model.as_deref().unwrap_or("not said");
        let other =
            if about.base_matches == Some(false) { " (the model has another name)" } else { "" };
        writeln!(f, "base            {base}{other}")?;
        writeln!(f, "rank            {}", joined(&about.ranks))?;
        writeln!(f, "scaling         {scaling}, alpha {}", about.alpha)?;
        writeln!(f, "target_modules  {}", about.target_modules)?;
        writeln!(f, "changes         {} linear layers in {} blocks", about.sites, about.layers)?;
        writeln!(f, "parameters      {} ({})", about.parameters, about.dtypes.join(", "))?;
        writeln!(f, "bytes           {} in files, {} in memory", about.file_bytes, about.bytes)?;
        writeln!(f, "norm of delta   {:.6}", about.delta_norm)?;
        parts_beside_factors(about, f)?;
        if !about.ignored_fields.is_empty() {
            writeln!(f, "ignored fields  {}", about.ignored_fields.join(", "))?;
        }
        writeln!(f, "\n{:<24}{:>8}{:>14}{:>14}  ranks", "layer", "blocks", "parameters", "norm")?;
        for row in &about.projections {
            let (module, norm, ranks) = (&row.module, row.delta_norm, joined(&row.ranks));
            writeln!(
                f,
                "{module:<24}{:>8}{:>14}{norm:>14.6}  {ranks}",
                row.layers, row.parameters
            )?;
        }
        match (&self.misfit, self.model_given) {
            (Some(reason), _) => write!(f, "\nThe model cannot serve it: {reason}"),
            (None, true) => write!(f, "\nThe model can serve it."),
            (None, false) => write!(f, "\nWhole and sound; not compared with a model."),
        }
    }
}

/// One line for each part of the family that the adapter has beside pairs of factors.
fn parts_beside_factors(about: &AdapterDescription, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if !about.labels.is_empty() {
        writeln!(f, "labels          {}", about.labels.join(", "))?;
    }
    if let Some([labels, width]) = about.head {
        writeln!(f, "head            its own, {labels} labels of {width} numbers")?;
    }
    if about.dora {
        writeln!(f, "DoRA            yes: outputs are scaled to trained magnitudes")?;
    }
    if about.biases > 0 {
        writeln!(f, "biases          of {} layers", about.biases)?;
    }
    if !about.trained_modules.is_empty() {
        writeln!(f, "trained whole   {}", about.trained_modules.join(", "))?;
    }
    if !about.trained_tokens.is_empty() {
        writeln!(f, "trained tokens  {}", joined(&about.trained_tokens))?;
    }
    if let Some(tokens) = &about.invocation_tokens {
        writeln!(f, "acts from       the last occurrence of tokens {} on", joined(tokens))?;
    }
    Ok(())
}

fn joined<T: ToString>(numbers: &[T]) -> String {
    let texts: Vec<_> = numbers.iter().map(T::to_string).collect();
    texts.join(", ")
}
