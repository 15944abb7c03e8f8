//! Tied weights: when what is written for one side of the table changes the other one too.
//!
//! PEFT trains the embedding and the head apart, even over a tied base, unless `ensure_weight_tying` says otherwise.
//! Rows of single tokens are shared by default. A weight that `modules_to_save` does not name goes into the base
//! itself, and so into both.
use super::{
    config::LoraConfig,
    extras::Extras,
    keys::Role,
    linear::scaled_transpose,
    module::Module,
    named::Named,
    parts::{Modules, Parts},
    task::Task,
};
use crate::{
    adapter::{AdapterError, format::tensors::to_f32},
    lora::{EmbeddingShape, LoraLayout},
};

const HEAD: &str = "lm_head";

/// Whether the head of the model that the adapter is for is its embedding.
pub(super) fn is_tied(task: Task, layout: Option<&LoraLayout>) -> bool {
    let Some(layout) = layout.filter(|layout| layout.generates()) else { return false };
    let generates = matches!(task, Task::Generate | Task::Unsaid);
    generates && layout.embedding().is_some_and(|embedding| embedding.tied)
}

/// Gives each side what it shares with the other.
///
/// # Errors
/// When both sides are in the file, should be one, and are not.
pub(super) fn complete(
    modules: &mut Modules<'_>,
    config: &LoraConfig,
    layout: Option<&LoraLayout>,
) -> Result<(), AdapterError> {
    if !is_tied(config.task, layout) {
        return Ok(());
    }
    let extras = &config.extras;
    check_rows(extras)?;
    let named = |path| extras.saves(path);
    let apart = !extras.ensure_tying && (named(HEAD) || named(EmbeddingShape::PATH));
    if !apart {
        share(modules, Role::Weight, Module::HEAD)?;
    }
    if extras.tokens_of(HEAD).is_none_or(|ids| Some(ids) == extras.tokens_of(EmbeddingShape::PATH))
    {
        share(modules, Role::TokenRows, Module::Embedding)?;
    }
    if extras.ensure_tying {
        check_pairs(modules)?;
    }
    Ok(())
}

/// The tokens whose rows of the head an adapter has.
pub(super) fn head_tokens<'a>(
    config: &'a LoraConfig,
    layout: Option<&LoraLayout>,
) -> Option<&'a [u32]> {
    let extras = &config.extras;
    let shared = || extras.tokens_of(EmbeddingShape::PATH).filter(|_| is_tied(config.task, layout));
    extras.tokens_of(HEAD).or_else(shared)
}

fn check_rows(extras: &Extras) -> Result<(), AdapterError> {
    let (head, embedding) = (extras.tokens_of(HEAD), extras.tokens_of(EmbeddingShape::PATH));
    match (extras.ensure_tying, head, embedding) {
        (true, Some(head), Some(embedding)) if head != embedding => Err(AdapterError::invalid(
            "adapter_config.json has `ensure_weight_tying`, and other `trainable_token_indices` for the head than for \
             the embedding: PEFT would not load it",
        )),
        _ => Ok(()),
    }
}

/// One tensor for both sides. Rows go from the embedding (`from`) only: PEFT never reads them the other way.
fn share(modules: &mut Modules<'_>, role: Role, from: Module) -> Result<(), AdapterError> {
    let of = |module| modules.get(&module).and_then(|parts: &Parts<'_>| parts.get(role));
    let (to, tensor) = match (of(Module::Embedding), of(Module::HEAD)) {
        (Some(embedding), Some(head)) => return check_same(embedding, head),
        (Some(embedding), None) => (Module::HEAD, embedding),
        (None, Some(head)) if from == Module::HEAD => (Module::Embedding, head),
        (None, _) => return Ok(()),
    };
    modules.entry(to).or_default().put(role, tensor);
    Ok(())
}

fn check_same(embedding: Named<'_>, head: Named<'_>) -> Result<(), AdapterError> {
    if embedding.view.data() == head.view.data() {
        return Ok(());
    }
    Err(contradiction(embedding, head))
}

/// The head's pair is the embedding's, turned.
fn check_pairs(modules: &Modules<'_>) -> Result<(), AdapterError> {
    let pair = |module| modules.get(&module).and_then(Parts::pair);
    let (Some((a, b)), Some((head_a, head_b))) = (pair(Module::Embedding), pair(Module::HEAD))
    else {
        return Ok(());
    };
    for (one, other) in [(a, head_b), (b, head_a)] {
        let [rows, columns] = one.matrix()?;
        other.check(&[columns, rows], "turned")?;
        let turned = scaled_transpose(&to_f32(one.name, one.view)?, columns, 1.0);
        if turned != to_f32(other.name, other.view)? {
            return Err(contradiction(one, other));
        }
    }
    Ok(())
}

fn contradiction(one: Named<'_>, other: Named<'_>) -> AdapterError {
    AdapterError::invalid(format!(
        "tensors {one} and {other} differ, and the model and adapter_config.json make them one: name both modules in \
         `modules_to_save`, without `ensure_weight_tying`, if they were trained apart"
    ))
}
