//! What an answer must look like, whatever the model would rather say.
use serde_json::Value;

/// A form for an answer's text, enforced token by token, and who asked for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Constraint {
    /// What every answer must be.
    pub form: AnswerForm,
    /// The request's field that asks for it, for errors.
    pub field: String,
}

/// What a whole answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerForm {
    /// Any JSON object.
    JsonObject,
    /// JSON that this schema accepts.
    JsonSchema(Value),
    /// A text that this regular expression matches from end to end.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A sentence of this grammar, as llguidance writes Lark.
    Grammar(String),
    /// The same, made by the server itself of schemas: it may be long, and is nowhere ambiguous.
    Composed(String),
}
