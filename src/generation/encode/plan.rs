//! What is asked of the engine for what a request wants, and what becomes of what it gives.
use super::{Abilities, Wanted};
use crate::{
    adapter::AdapterLease,
    engine::{HeadKind, Labels, Output},
    generation::GenerateError,
};

/// An adapter of a request, how much of it, and the request's field that names it.
pub(super) type Part = (AdapterLease, f32, String);

/// One plan for all texts of a request.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) output: Output,
    pub(super) finish: Finish,
    /// Goes before each text.
    pub(super) prefix: String,
    /// Tokens of the longest text.
    pub(super) limit: usize,
}

/// From the engine's numbers to what was wanted.
#[derive(Clone, Debug)]
pub(super) enum Finish {
    /// One vector of so many numbers.
    Vector {
        /// Whether it gets length 1.
        normalize: bool,
        dimensions: usize,
    },
    /// A vector for each token.
    Vectors,
    /// A number for each label.
    Scores {
        labels: Labels,
        /// Whether the scores stay as they are.
        raw: bool,
    },
    /// What is found in the text.
    Entities { labels: Labels },
}

impl Plan {
    /// How `wanted` is done by a base of these abilities that reads up to `context` tokens, with these adapters.
    pub(super) fn new(
        wanted: &Wanted,
        abilities: &Abilities,
        context: usize,
        parts: &[Part],
    ) -> Result<Self, GenerateError> {
        match wanted {
            Wanted::Embedding { normalize, dimensions, prompt } => {
                let setup = abilities.embedding.as_ref().ok_or_else(no_embeddings)?;
                let full = setup.dimensions;
                let dimensions = dimensions.unwrap_or(full);
                if !(1..=full).contains(&dimensions) || (dimensions < full && !setup.shortens) {
                    return Err(wrong_dimensions(full, setup.shortens));
                }
                let normalize = normalize.unwrap_or(setup.normalize);
                let name = prompt.as_ref().or(setup.default_prompt.as_ref());
                let prefix = name.map(|name| {
                    setup.prompts.get(name).ok_or_else(|| no_prompt(name, setup.prompts.keys()))
                });
                Ok(Self {
                    output: Output::Embedding(setup.pooling),
                    finish: Finish::Vector { normalize, dimensions },
                    prefix: prefix.transpose()?.cloned().unwrap_or_default(),
                    limit: setup.max_tokens.unwrap_or(context).min(context),
                })
            }
            Wanted::TokenEmbeddings => {
                let setup = abilities.embedding.as_ref().ok_or_else(no_embeddings)?;
                Ok(Self {
                    output: Output::Hidden,
                    finish: Finish::Vectors,
                    prefix: String::new(),
                    limit: setup.max_tokens.unwrap_or(context).min(context),
                })
            }
            Wanted::Labels { raw } => {
                let labels = labels(abilities, parts)?;
                let (output, finish) = match labels.kind {
                    HeadKind::Sequence => (Output::Scores, Finish::Scores { labels, raw: *raw }),
                    HeadKind::Token => (Output::TokenScores, Finish::Entities { labels }),
                };
                Ok(Self { output, finish, prefix: String::new(), limit: context })
            }
        }
    }

    /// The labels that it scores.
    pub(super) fn labels(&self) -> Option<&Labels> {
        match &self.finish {
            Finish::Scores { labels, .. } | Finish::Entities { labels } => Some(labels),
            Finish::Vector { .. } | Finish::Vectors => None,
        }
    }
}

/// The labels of the one head there is: the adapter's, or else the base's.
pub(super) fn labels(abilities: &Abilities, parts: &[Part]) -> Result<Labels, GenerateError> {
    let owns = |part: &&Part| part.0.weights.class_head().is_some();
    let Some((lease, weight, field)) = parts.iter().find(owns) else {
        return abilities.labels.clone().ok_or_else(|| no_head(parts));
    };
    let is_all = parts.len() == 1 && weight.to_bits() == 1_f32.to_bits();
    if !is_all {
        return Err(unfit(
            "adapter_not_mixable",
            field,
            format!(
                "adapter `{}` brings labels of its own: it can neither be mixed nor have a weight other than 1",
                lease.name
            ),
        ));
    }
    if lease.weights.invocation().is_some() {
        return Err(unfit(
            "adapter_not_mixable",
            field,
            format!(
                "adapter `{}` begins at its invocation tokens and so leaves what it labels open; publish it without them",
                lease.name
            ),
        ));
    }
    let head = lease.weights.class_head().map(|head| head.labels.clone());
    head.ok_or_else(|| no_head(parts))
}

/// A code of its own for what neither model nor adapter can do.
pub(super) fn unfit(code: &'static str, field: &str, message: String) -> GenerateError {
    GenerateError::Unfit { code, field: field.to_owned(), message }
}

fn no_embeddings() -> GenerateError {
    let message = "the base model does not embed texts; ask for labels, or for an answer";
    unfit("model_does_not_embed", "model", message.into())
}

fn no_head(parts: &[Part]) -> GenerateError {
    let (field, who) = match parts {
        [] => ("model", "the base model has no classification head".to_owned()),
        [(lease, _, field), ..] => (
            field.as_str(),
            format!(
                "neither adapter `{}` nor the base model has a classification head",
                lease.name
            ),
        ),
    };
    let message = format!("{who}; name an adapter that classifies, or ask for something else");
    unfit("no_classification_head", field, message)
}

fn wrong_dimensions(full: usize, shortens: bool) -> GenerateError {
    let may = if shortens { format!("between 1 and {full}") } else { format!("{full}") };
    let message = format!("`dimensions` must be {may} with this model");
    GenerateError::Invalid { field: "dimensions", message }
}

fn no_prompt<'a>(name: &str, names: impl Iterator<Item = &'a String>) -> GenerateError {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let message = format!("the model has no prompt `{name}`; it has {known}");
    GenerateError::Invalid { field: "prompt_name", message }
}
