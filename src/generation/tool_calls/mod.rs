//! Tool calls: how the base writes them, how they are read back, and how they are enforced.
//!
//! A call is written as the model's chat template writes it (`docs/decisions/0023`). So the template is asked: it renders a
//! conversation with a call in it, and the format that reads the call back is the model's.
mod detect;
mod envelope;
mod format;
mod grammar;
mod json;
mod parser;
mod schema;
#[cfg(test)]
mod tests;

pub(super) use detect::Seen;
pub use format::{ToolCallConfig, ToolCallFormat, ToolCallSetting};
pub use parser::{CallEvent, CallParser, CallsWanted};

use super::{AnswerForm, GenerateError};
use serde_json::Value;

/// A function that a model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolFunction {
    /// What it is called.
    pub name: String,
    /// A JSON schema of its arguments; `None` is any object.
    pub parameters: Option<Value>,
    /// Whether the arguments must obey the schema even where the model need not call.
    pub strict: bool,
}

/// Tokens of a format's marks that are no text to the tokenizer.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    lead: Option<u32>,
    tail: Option<u32>,
}

/// How the base writes calls.
#[derive(Clone, Debug)]
pub struct ToolCalls {
    format: ToolCallFormat,
    /// Whether the template takes several calls in one turn.
    parallel: bool,
    /// The tokens of lead and tail, where they are such that steer the model.
    marks: Marks,
}

impl ToolCalls {
    /// The format.
    pub fn format(&self) -> ToolCallFormat {
        self.format
    }

    /// A reader of one answer.
    pub fn parser(&self, wanted: CallsWanted) -> CallParser {
        CallParser::new(self.format, wanted)
    }

    /// The form of answers that are calls of these functions and nothing else: one call, or as many as the model and its template
    /// like.
    pub fn required(&self, functions: &[ToolFunction], only_one: bool) -> AnswerForm {
        AnswerForm::Composed(self.writer(functions, only_one).required())
    }

    /// The form of answers that are such calls, or else of `form`; `None` where `form` is no JSON.
    pub fn or_else(
        &self,
        functions: &[ToolFunction],
        only_one: bool,
        form: &AnswerForm,
    ) -> Option<AnswerForm> {
        let writer = self.writer(functions, only_one);
        match form {
            AnswerForm::JsonObject => Some(writer.or_json(&serde_json::json!({"type": "object"}))),
            AnswerForm::JsonSchema(schema) => Some(writer.or_json(schema)),
            AnswerForm::Regex(_)
            | AnswerForm::Choice(_)
            | AnswerForm::Grammar(_)
            | AnswerForm::Composed(_) => None,
        }
        .map(AnswerForm::Composed)
    }

    /// The form of answers that say anything and call anything, but the strict functions by their schemas; `None` where no
    /// function is strict.
    pub fn strict(&self, functions: &[ToolFunction], only_one: bool) -> Option<AnswerForm> {
        let is_any = functions.iter().any(|function| function.strict);
        is_any.then(|| AnswerForm::Composed(self.writer(functions, only_one).strict()))
    }

    fn writer<'a>(&self, functions: &'a [ToolFunction], only_one: bool) -> grammar::Writer<'a> {
        let only_one = only_one || !self.parallel;
        grammar::Writer { shape: self.format.shape(), marks: self.marks, functions, only_one }
    }
}

/// What a service makes of the template's way with tools, and of the setting.
#[derive(Clone, Debug)]
pub(super) struct ToolSupport {
    /// Why there are no calls, or how they are written.
    calls: Result<ToolCalls, Lacking>,
}

/// Why tools are refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lacking {
    Template,
    Format,
    Setting,
}

impl ToolSupport {
    /// `special` finds the token of a mark, if it is one that steers the model.
    pub(super) fn new(
        seen: Seen,
        setting: ToolCallSetting,
        special: impl Fn(&str) -> Option<u32>,
    ) -> Self {
        let format = match setting {
            ToolCallSetting::Auto => seen.format.ok_or(Lacking::Format),
            ToolCallSetting::Hermes => Ok(ToolCallFormat::Hermes),
            ToolCallSetting::Llama3 => Ok(ToolCallFormat::Llama3),
            ToolCallSetting::Mistral => Ok(ToolCallFormat::Mistral),
            ToolCallSetting::Json => Ok(ToolCallFormat::Json),
            ToolCallSetting::None => Err(Lacking::Setting),
        };
        // A model that is not shown its tools cannot call them, whatever the setting says.
        let format = if seen.shows_tools { format } else { Err(Lacking::Template) };
        let calls = format.map(|format| {
            let shape = format.shape();
            let [lead, tail] = [shape.lead, shape.tail].map(|mark| mark.and_then(&special));
            ToolCalls { format, parallel: seen.parallel, marks: Marks { lead, tail } }
        });
        Self { calls }
    }

    /// # Errors
    /// When the base cannot be given tools.
    pub(super) fn calls(&self) -> Result<&ToolCalls, GenerateError> {
        self.calls.as_ref().map_err(|lacking| {
            GenerateError::ToolsNotSupported(match lacking {
                Lacking::Template => {
                    "this model's chat template shows no tools to the model; leave `tools` out, or \
                     serve a model that was trained to call them"
                }
                Lacking::Format => {
                    "this model's chat template writes tool calls in a form that is not known here; \
                     start the server with --tool-call-format if you know which it is"
                }
                Lacking::Setting => "tools are switched off here (--tool-call-format none)",
            })
        })
    }

    /// Tokens that are text in answers with tools, though they steer the model.
    pub(super) fn marks(&self) -> Vec<u32> {
        let marks = self.calls.as_ref().map(|calls| calls.marks).unwrap_or_default();
        [marks.lead, marks.tail].into_iter().flatten().collect()
    }
}
