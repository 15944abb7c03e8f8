//! A form of answers as llguidance reads it, within limits.
use super::{
    GrammarError,
    bounds::{MAX_FORM_BYTES, MAX_SCHEMA_DEPTH, is_flat, json_bytes},
    embedded, gbnf,
};
use crate::generation::AnswerForm;
use llguidance::api::TopLevelGrammar;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Longest grammar that the server makes of many schemas, bytes.
const MAX_COMPOSED_BYTES: usize = 256 << 10;
/// Longest regular expression, bytes.
const MAX_REGEX_BYTES: usize = 16 << 10;
/// Most choices.
const MAX_CHOICES: usize = 1024;
/// Between two parts of JSON: nothing, a space, or a new line and an indent. Endless space is where small models get
/// lost.
const WHITESPACE: &str = r"[ ]|\n[ ]{0,24}";
/// Where llguidance finds its own options in a schema.
const OPTIONS: &str = "x-guidance";

/// What is compiled; equal ones are the same grammar.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// A JSON schema, as JSON.
    Json(String),
    /// A client's Lark.
    Lark(String),
    /// The server's own.
    Composed(String),
    /// llama.cpp's grammar.
    Gbnf(String),
}

/// A source's content, hashed.
pub(super) type Key = [u8; 32];

impl Source {
    /// The source of `form`.
    ///
    /// # Errors
    /// When it is over a limit, or clearly no form.
    pub(super) fn of(form: AnswerForm) -> Result<Self, GrammarError> {
        match form {
            AnswerForm::JsonObject => Self::schema(json!({"type": "object"})),
            AnswerForm::JsonSchema(schema) => Self::schema(schema),
            AnswerForm::Regex(regex) => of_regex(&regex),
            AnswerForm::Choice(choices) => of_choice(&choices),
            AnswerForm::Grammar(grammar) => of_grammar(grammar),
            AnswerForm::Composed(grammar) if grammar.len() <= MAX_COMPOSED_BYTES => {
                Ok(Self::Composed(grammar))
            }
            AnswerForm::Composed(_) => {
                Err(too_much(format!("all schemas together may have {MAX_COMPOSED_BYTES} bytes")))
            }
        }
    }

    fn schema(schema: Value) -> Result<Self, GrammarError> {
        let mut schema = match schema {
            Value::Object(fields) => fields,
            Value::Bool(true) => Map::new(),
            other => {
                let found = kind(&other);
                return Err(invalid(format!("a JSON schema must be an object, not {found}")));
            }
        };
        if schema.values().any(|value| !is_flat(value, MAX_SCHEMA_DEPTH - 1)) {
            return Err(too_much(format!("a JSON schema may be {MAX_SCHEMA_DEPTH} levels deep")));
        }
        bound_space(&mut schema);
        let schema = Value::Object(schema);
        if json_bytes(&schema) > MAX_FORM_BYTES {
            return Err(too_much(format!("a JSON schema may have {MAX_FORM_BYTES} bytes")));
        }
        Ok(Self::Json(schema.to_string()))
    }

    /// What finds it again.
    pub(super) fn key(&self) -> Key {
        let (kind, text) = match self {
            Self::Json(text) => (b'j', text),
            Self::Lark(text) => (b'l', text),
            Self::Composed(text) => (b'c', text),
            Self::Gbnf(text) => (b'g', text),
        };
        Sha256::new().chain_update([kind]).chain_update(text).finalize().into()
    }

    /// Whether at every place there is one way to read it, as in JSON.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Json(_) | Self::Composed(_))
    }

    /// Bytes of text.
    pub(super) fn len(&self) -> usize {
        let (Self::Json(text) | Self::Lark(text) | Self::Composed(text) | Self::Gbnf(text)) = self;
        text.len()
    }

    /// The same for llguidance.
    pub(super) fn parse(self) -> Result<TopLevelGrammar, GrammarError> {
        match self {
            Self::Json(text) => {
                let schema = serde_json::from_str(&text).map_err(|_| GrammarError::Broken)?;
                Ok(TopLevelGrammar::from_json_schema(schema))
            }
            Self::Lark(text) | Self::Composed(text) => {
                Ok(TopLevelGrammar::from_lark(embedded::with_bounded_space(&text)))
            }
            Self::Gbnf(text) => {
                gbnf::to_lark(&text).map(TopLevelGrammar::from_lark).map_err(invalid)
            }
        }
    }
}

/// Bounds the space between parts of JSON, unless `schema` has its own rule.
pub(super) fn bound_space(schema: &mut Map<String, Value>) {
    let options = schema.entry(OPTIONS).or_insert_with(|| json!({}));
    if let Value::Object(options) = options
        && !options.contains_key("whitespace_flexible")
    {
        options.entry("whitespace_pattern").or_insert(WHITESPACE.into());
    }
}

/// A text is matched from end to end anyway, so anchors there say nothing.
fn of_regex(regex: &str) -> Result<Source, GrammarError> {
    if regex.len() > MAX_REGEX_BYTES {
        return Err(too_much(format!("a regular expression may have {MAX_REGEX_BYTES} bytes")));
    }
    let is_escaped = |text: &str| text.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1;
    let body = regex.strip_prefix('^').unwrap_or(regex);
    let body = match body.strip_suffix('$') {
        Some(before) if !is_escaped(before) => before,
        _ => body,
    };
    if is_escaped(body) {
        return Err(invalid("the regular expression ends within an escape".into()));
    }
    if body.is_empty() {
        return Err(invalid("the regular expression matches nothing but the empty text".into()));
    }
    let body = llguidance::regex_to_lark(body, "");
    Ok(Source::Lark(format!("start: /{body}/")))
}

fn of_choice(choices: &[String]) -> Result<Source, GrammarError> {
    if choices.is_empty() {
        return Err(invalid("give at least one choice".into()));
    }
    if choices.len() > MAX_CHOICES {
        return Err(too_much(format!("there may be {MAX_CHOICES} choices")));
    }
    if choices.iter().map(String::len).sum::<usize>() > MAX_FORM_BYTES {
        return Err(too_much(format!("all choices together may have {MAX_FORM_BYTES} bytes")));
    }
    if choices.iter().any(String::is_empty) {
        return Err(invalid("a choice must not be empty".into()));
    }
    let choices: Vec<String> =
        choices.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
    Ok(Source::Lark(format!("start: CHOICE\nCHOICE: {}", choices.join(" | "))))
}

fn of_grammar(grammar: String) -> Result<Source, GrammarError> {
    if grammar.len() > MAX_FORM_BYTES {
        return Err(too_much(format!("a grammar may have {MAX_FORM_BYTES} bytes")));
    }
    if gbnf::is_gbnf(&grammar) {
        return Ok(Source::Gbnf(grammar));
    }
    Ok(Source::Lark(grammar))
}

fn invalid(message: String) -> GrammarError {
    GrammarError::Invalid(message)
}

fn too_much(message: String) -> GrammarError {
    GrammarError::TooComplex(message)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "`false`, which nothing matches",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(form: AnswerForm) -> &'static str {
        use crate::error::Classified;
        Source::of(form).map_or_else(|error| error.code(), |_| "ok")
    }

    fn nested(levels: usize) -> Value {
        (1..levels).fold(json!({}), |schema, _| json!({"not": schema}))
    }

    #[test]
    fn limits_are_where_they_are_said_to_be() {
        for (form, expected) in [
            (AnswerForm::JsonSchema(nested(MAX_SCHEMA_DEPTH)), "ok"),
            (AnswerForm::JsonSchema(nested(MAX_SCHEMA_DEPTH + 1)), "grammar_too_complex"),
            (AnswerForm::JsonSchema(json!({"title": "x".repeat(MAX_FORM_BYTES - 200)})), "ok"),
            (
                AnswerForm::JsonSchema(json!({"title": "x".repeat(MAX_FORM_BYTES)})),
                "grammar_too_complex",
            ),
            (AnswerForm::Regex("x".repeat(MAX_REGEX_BYTES)), "ok"),
            (AnswerForm::Regex("x".repeat(MAX_REGEX_BYTES + 1)), "grammar_too_complex"),
            (AnswerForm::Choice(vec!["x".into(); MAX_CHOICES]), "ok"),
            (AnswerForm::Choice(vec!["x".into(); MAX_CHOICES + 1]), "grammar_too_complex"),
            (AnswerForm::Choice(vec!["x".repeat(MAX_FORM_BYTES); 2]), "grammar_too_complex"),
            (AnswerForm::Grammar("x".repeat(MAX_FORM_BYTES)), "ok"),
            (AnswerForm::Grammar("x".repeat(MAX_FORM_BYTES + 1)), "grammar_too_complex"),
            (AnswerForm::Composed("x".repeat(MAX_COMPOSED_BYTES)), "ok"),
            (AnswerForm::Composed("x".repeat(MAX_COMPOSED_BYTES + 1)), "grammar_too_complex"),
        ] {
            assert_eq!(code(form), expected);
        }
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for form in [
            AnswerForm::JsonSchema(json!("string")),
            AnswerForm::JsonSchema(json!(false)),
            AnswerForm::JsonSchema(json!([])),
            AnswerForm::Choice(vec![]),
            AnswerForm::Choice(vec!["a".into(), String::new()]),
            AnswerForm::Regex(String::new()),
            AnswerForm::Regex("^$".into()),
            AnswerForm::Regex("a\\".into()),
        ] {
            assert_eq!(code(form.clone()), "invalid_grammar", "{form:?}");
        }
    }

    #[test]
    fn anchors_at_the_ends_are_dropped_and_nothing_else() {
        let lark = |text: &str| match Source::of(AnswerForm::Regex(text.into())) {
            Ok(Source::Lark(lark)) => lark,
            other => panic!("{other:?}"),
        };
        assert_eq!(lark("^a/b$"), "start: /a\\/b/");
        assert_eq!(lark(r"a\$"), r"start: /a\$/");
        assert_eq!(lark(r"a\\$"), r"start: /a\\/");
    }

    #[test]
    fn a_schema_s_own_whitespace_stays() {
        let text = |schema: Value| match Source::of(AnswerForm::JsonSchema(schema)) {
            Ok(Source::Json(text)) => text,
            other => panic!("{other:?}"),
        };
        let flexible = json!({"x-guidance": {"whitespace_flexible": false}});
        assert_eq!(text(flexible.clone()), flexible.to_string());
        let own = json!({"x-guidance": {"whitespace_pattern": " "}});
        assert_eq!(text(own.clone()), own.to_string());
        let expected = json!({"type": "null", "x-guidance": {"whitespace_pattern": WHITESPACE}});
        assert_eq!(text(json!({"type": "null"})), expected.to_string());
        assert_eq!(text(json!(true)), text(json!({})), "anything is anything");
    }

    #[test]
    fn equal_forms_have_one_key_and_others_their_own() {
        let key = |form| Source::of(form).expect("a form").key();
        let lark = || AnswerForm::Grammar("start: /a/".into());
        assert_eq!(key(AnswerForm::Regex("a".into())), key(lark()));
        assert_ne!(key(AnswerForm::JsonObject), key(lark()));
    }
}
