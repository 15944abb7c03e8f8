//! The labels of a base's own head.
use super::Fields;
use crate::{
    lora::{HeadKind, Labels, Reading},
    model::ModelError,
};

/// More than any vocabulary of labels; above it a file is damaged.
const MAX_LABELS: usize = 1 << 16;
/// `PretrainedConfig`'s, where the file does not say.
const DEFAULT_LABELS: usize = 2;

/// `id2label`, or as many as `num_labels` says, and what their scores mean.
pub(super) fn read(fields: &mut Fields, kind: HeadKind) -> Result<Labels, ModelError> {
    let count = fields.size("num_labels", 1..=MAX_LABELS)?;
    let names = match fields.object("id2label")? {
        Some(named) => names(named, count)?,
        None => (0..count.unwrap_or(DEFAULT_LABELS)).map(|i| format!("LABEL_{i}")).collect(),
    };
    // Says the same the other way round; transformers reads `id2label`.
    fields.take("label2id");
    let problem = fields.text("problem_type")?;
    let reading = match kind {
        HeadKind::Token => Reading::OneOf,
        HeadKind::Sequence => reading(names.len(), problem.as_deref())?,
    };
    let reading = match cross_encoder(fields)? {
        Some(function) => of_function(&function, names.len(), reading)?,
        None => reading,
    };
    Ok(Labels { kind, names: names.into(), reading })
}

/// `{"0": …, "1": …}`, no number left out.
fn names(mut named: Fields, count: Option<usize>) -> Result<Vec<String>, ModelError> {
    const KEY: &str = "id2label";
    let mut names = Vec::new();
    while let Some(name) = named.text(&names.len().to_string())? {
        names.push(name);
    }
    if !named.is_empty() || names.is_empty() {
        let detail = "does not number its labels 0, 1, 2 and so on";
        return Err(ModelError::config(KEY, detail));
    }
    if count.is_some_and(|count| count != names.len()) {
        let detail = format!("has {} labels; num_labels says otherwise", names.len());
        return Err(ModelError::config(KEY, detail));
    }
    Ok(names)
}

/// `TextClassificationPipeline.postprocess`.
fn reading(labels: usize, problem: Option<&str>) -> Result<Reading, ModelError> {
    match (problem, labels) {
        (Some("regression"), _) => Ok(Reading::Raw),
        (Some("multi_label_classification"), _)
        | (None | Some("single_label_classification"), 1) => Ok(Reading::Independent),
        (None | Some("single_label_classification"), _) => Ok(Reading::OneOf),
        (Some(other), _) => {
            let detail = format!(
                "is `{other}`; single_label_classification, multi_label_classification and \
                 regression are served"
            );
            Err(ModelError::config("problem_type", detail))
        }
    }
}

/// What sentence-transformers' `CrossEncoder` puts on the scores, in both its spellings.
fn cross_encoder(fields: &mut Fields) -> Result<Option<String>, ModelError> {
    let old = fields.text("sbert_ce_default_activation_function")?;
    let Some(mut own) = fields.object("sentence_transformers")? else { return Ok(old) };
    let new = own.text("activation_fn")?;
    own.take("version");
    own.finish()?;
    Ok(new.or(old))
}

/// A cross-encoder of several labels gives raw scores unless told otherwise; its probabilities are a softmax all the same.
fn of_function(function: &str, labels: usize, otherwise: Reading) -> Result<Reading, ModelError> {
    let name = function.strip_prefix("torch.nn.modules.").unwrap_or(function);
    match (name, labels) {
        ("linear.Identity", 1) => Ok(Reading::Raw),
        ("linear.Identity", _) => Ok(otherwise),
        ("activation.Sigmoid", _) => Ok(Reading::Independent),
        ("activation.Softmax", 2..) => Ok(Reading::OneOf),
        _ => {
            let detail = format!(
                "is `{function}`; torch.nn.modules.linear.Identity and \
                 torch.nn.modules.activation.Sigmoid are served"
            );
            Err(ModelError::config("sentence_transformers.activation_fn", detail))
        }
    }
}
