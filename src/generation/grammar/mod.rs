//! From the form that a request wants of its answers to the tokens that may come, through llguidance.
//!
//! A form is compiled once and kept within bounds; every answer follows its own copy. Grammars come from clients:
//! compiling has threads of its own with room for deep recursion, few at once, and nobody waits long for one.
mod bounds;
mod cache;
mod compiler;
mod embedded;
mod error;
mod follower;
mod gbnf;
mod gbnf_words;
mod source;
mod vocabulary;

pub use bounds::{MAX_FORM_BYTES, MAX_SCHEMA_DEPTH, is_flat, json_bytes};
pub use error::GrammarError;

use super::{AnswerForm, Constraint, GenerateError, tokenizer::Tokenizer};
use crate::{engine::TokenConstraint, telemetry::Metrics};
use cache::Cache;
use compiler::{Compiled, Compiler};
use follower::Follower;
use source::Source;
use std::sync::Arc;

/// The forms of one model's answers.
pub(super) struct Grammars {
    compiler: Compiler,
    cache: Cache,
    metrics: Metrics,
}

/// A form, compiled, for as many answers as it takes.
#[derive(Clone)]
pub(super) struct Form(Arc<Compiled>);

impl Form {
    /// For one answer.
    pub(super) fn constraint(&self) -> Box<dyn TokenConstraint> {
        Box::new(Follower::new(self.0.clone()))
    }
}

impl Grammars {
    /// For tokens below `vocab`. What it needs of the tokenizer is worked out when the first form is compiled.
    pub(super) fn new(tokenizer: Arc<Tokenizer>, vocab: usize, metrics: Metrics) -> Self {
        let compiler = Compiler::new(tokenizer, vocab);
        Self { compiler, cache: Cache::default(), metrics }
    }

    /// The form that `wanted` names.
    ///
    /// # Errors
    /// When it is wrong or too much, or too many are being compiled.
    pub(super) async fn form(&self, wanted: Constraint) -> Result<Form, GenerateError> {
        let Constraint { form, field } = wanted;
        let compiled = self.compiled(form).await;
        compiled.map(Form).map_err(|error| GenerateError::Grammar { error, field })
    }

    async fn compiled(&self, form: AnswerForm) -> Result<Arc<Compiled>, GrammarError> {
        let source = Source::of(form)?;
        let key = source.key();
        let (cell, is_known) = self.cache.place(key);
        if is_known {
            self.metrics.grammar_found();
        }
        let compile = async || {
            let compiled = self.compiler.compile(source, &self.metrics).await;
            self.cache.settle(&key, &compiled);
            compiled
        };
        cell.get_or_init(compile).await.clone()
    }
}
