//! The fields that ask for a form of answer, in every dialect's words.
use super::{ApiError, json::JsonBody};
use crate::generation::{AnswerForm, Constraint, GenerateError, GrammarError};
use serde_json::{Map, Value, json};

/// More than any form may have, bytes: what is longer is not even copied.
const MAX_BYTES: usize = 64 << 10;

/// The form that an OpenAI body asks for, in OpenAI's own field, vLLM's, or vLLM's older ones.
///
/// # Errors
/// The path of what is wrong; two fields that ask for a form.
pub(super) fn of_openai(body: &JsonBody) -> Result<Option<Constraint>, ApiError> {
    let whitespace = Whitespace::of(None, body.get("guided_whitespace_pattern"));
    let guided = |field: &str, kind| {
        let value = body.get(field);
        value.map(|value| of_kind(kind, value, field, &whitespace)).transpose()
    };
    one_of([
        response_format(body.get("response_format"), "response_format")?,
        structured_outputs(body.get("structured_outputs"))?,
        guided("guided_json", Kind::Json)?,
        guided("guided_regex", Kind::Regex)?,
        guided("guided_choice", Kind::Choice)?,
        guided("guided_grammar", Kind::Grammar)?,
    ])
}

/// The form that LoRAX's or TGI's `parameters` ask for.
///
/// # Errors
/// The path of what is wrong; two fields that ask for a form.
pub(super) fn of_lorax(given: &Map<String, Value>) -> Result<Option<Constraint>, ApiError> {
    let given = |field: &str| given.get(field).filter(|value| !value.is_null());
    one_of([
        response_format(given("response_format"), "parameters.response_format")?,
        given("grammar").map(|value| tgi(value, "parameters.grammar")).transpose()?,
    ])
}

fn one_of<const N: usize>(wanted: [Option<Constraint>; N]) -> Result<Option<Constraint>, ApiError> {
    let mut wanted = wanted.into_iter().flatten();
    let first = wanted.next();
    let (Some(first), Some(second)) = (&first, wanted.next()) else { return Ok(first) };
    let message =
        format!("`{}` and `{}` both ask for a form; send one of them", first.field, second.field);
    Err(ApiError::invalid(&second.field, message))
}

/// What a field of vLLM's holds.
#[derive(Clone, Copy)]
enum Kind {
    Json,
    JsonObject,
    Regex,
    Choice,
    Grammar,
}

/// What JSON may have between its parts, where a request says so.
#[derive(Default)]
struct Whitespace(Map<String, Value>);

impl Whitespace {
    fn of(none: Option<&Value>, pattern: Option<&Value>) -> Self {
        let mut options = Map::new();
        if none == Some(&Value::Bool(true)) {
            options.insert("whitespace_flexible".into(), false.into());
        } else if let Some(pattern) = pattern {
            options.insert("whitespace_pattern".into(), pattern.clone());
        }
        Self(options)
    }

    /// As llguidance reads it, in the schema.
    fn put_in(&self, mut schema: Value) -> Value {
        if let (Value::Object(fields), false) = (&mut schema, self.0.is_empty()) {
            fields.insert("x-guidance".into(), self.0.clone().into());
        }
        schema
    }
}

/// OpenAI's; LoRAX and llama.cpp put a `schema` beside `json_object`.
fn response_format(value: Option<&Value>, path: &str) -> Result<Option<Constraint>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let Value::Object(fields) = value else { return Err(wrong(path, "an object with a `type`")) };
    let plain = Whitespace::default();
    let given = |field: &str| fields.get(field).filter(|value| !value.is_null());
    match given("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => match given("schema") {
            Some(schema) => {
                of_kind(Kind::Json, schema, &format!("{path}.schema"), &plain).map(Some)
            }
            None => Ok(Some(Constraint { form: AnswerForm::JsonObject, field: path.into() })),
        },
        Some("json_schema") => {
            let path = format!("{path}.json_schema");
            let Some(Value::Object(named)) = given("json_schema") else {
                return Err(wrong(&path, "an object with a `schema`"));
            };
            let path = format!("{path}.schema");
            match named.get("schema") {
                Some(schema @ Value::Object(_)) => {
                    of_kind(Kind::Json, schema, &path, &plain).map(Some)
                }
                _ => Err(wrong(&path, "a JSON schema")),
            }
        }
        Some("structural_tag") => Err(unsupported(&format!("{path}.type"), "structural_tag")),
        _ => {
            let path = format!("{path}.type");
            Err(wrong(&path, "`text`, `json_object` or `json_schema`"))
        }
    }
}

/// vLLM's: exactly one form, and how JSON is spaced.
fn structured_outputs(value: Option<&Value>) -> Result<Option<Constraint>, ApiError> {
    const PATH: &str = "structured_outputs";
    let Some(value) = value else { return Ok(None) };
    let Value::Object(fields) = value else { return Err(wrong(PATH, "an object")) };
    let given = |field: &str| {
        fields.get(field).filter(|value| !matches!(value, Value::Null | Value::Bool(false)))
    };
    for field in ["structural_tag", "disable_additional_properties"] {
        if given(field).is_some() {
            return Err(unsupported(&format!("{PATH}.{field}"), field));
        }
    }
    let whitespace = Whitespace::of(given("disable_any_whitespace"), given("whitespace_pattern"));
    let forms = [
        ("json", Kind::Json),
        ("json_object", Kind::JsonObject),
        ("regex", Kind::Regex),
        ("choice", Kind::Choice),
        ("grammar", Kind::Grammar),
    ];
    let mut wanted = forms.iter().filter_map(|(field, kind)| Some((field, *kind, given(field)?)));
    let (Some((field, kind, value)), None) = (wanted.next(), wanted.next()) else {
        let one = "exactly one of `json`, `json_object`, `regex`, `choice` and `grammar`";
        return Err(ApiError::invalid(PATH, format!("`{PATH}` must have {one}")));
    };
    of_kind(kind, value, &format!("{PATH}.{field}"), &whitespace).map(Some)
}

/// TGI's.
fn tgi(value: &Value, path: &str) -> Result<Constraint, ApiError> {
    let (inner, plain) = (format!("{path}.value"), Whitespace::default());
    let Some(form) = value.get("value") else { return Err(wrong(&inner, "there")) };
    match value.get("type").and_then(Value::as_str) {
        Some("regex") => of_kind(Kind::Regex, form, &inner, &plain),
        Some("json") => of_kind(Kind::Json, form, &inner, &plain),
        Some("json_schema") => {
            of_kind(Kind::Json, form.get("schema").unwrap_or(form), &inner, &plain)
        }
        _ => Err(wrong(&format!("{path}.type"), "`json`, `json_schema` or `regex`")),
    }
}

fn of_kind(
    kind: Kind,
    value: &Value,
    path: &str,
    whitespace: &Whitespace,
) -> Result<Constraint, ApiError> {
    if weight(value, MAX_BYTES) > MAX_BYTES {
        let message = format!("a schema or grammar may have {MAX_BYTES} bytes");
        let (error, field) = (GrammarError::TooComplex(message), path.to_owned());
        return Err(GenerateError::Grammar { error, field }.into());
    }
    let text = || value.as_str().map(ToOwned::to_owned).ok_or_else(|| wrong(path, "a string"));
    let form = match kind {
        Kind::Json => AnswerForm::JsonSchema(whitespace.put_in(schema(value, path)?)),
        Kind::JsonObject if value == &Value::Bool(true) => {
            AnswerForm::JsonSchema(whitespace.put_in(json!({"type": "object"})))
        }
        Kind::JsonObject => return Err(wrong(path, "true or false")),
        Kind::Regex => AnswerForm::Regex(text()?),
        Kind::Grammar => AnswerForm::Grammar(text()?),
        Kind::Choice => {
            let wrong = || wrong(path, "a list of strings");
            let choices = value.as_array().ok_or_else(wrong)?.iter();
            let choice = |value: &Value| value.as_str().map(ToOwned::to_owned).ok_or_else(wrong);
            AnswerForm::Choice(choices.map(choice).collect::<Result<_, _>>()?)
        }
    };
    Ok(Constraint { form, field: path.to_owned() })
}

/// A schema, or a string of one.
fn schema(value: &Value, path: &str) -> Result<Value, ApiError> {
    let Value::String(text) = value else { return Ok(value.clone()) };
    serde_json::from_str(text).map_err(|error| {
        ApiError::invalid(
            path,
            format!("`{path}` must be a JSON schema, or a string of one: {error}"),
        )
    })
}

/// Bytes of `value` as JSON, at least; counting ends beyond `most`.
fn weight(value: &Value, most: usize) -> usize {
    let within = |sum: usize, more: &dyn Fn(usize) -> usize| {
        if sum > most { sum } else { sum + 1 + more(most - sum) }
    };
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => {
            items.iter().fold(1, |sum, item| within(sum, &|left| weight(item, left)))
        }
        Value::Object(fields) => fields
            .iter()
            .fold(1, |sum, (name, value)| within(sum, &|left| name.len() + weight(value, left))),
        _ => 1,
    }
}

fn wrong(path: &str, expected: &str) -> ApiError {
    ApiError::invalid(path, format!("`{path}` must be {expected}"))
}

fn unsupported(path: &str, what: &str) -> ApiError {
    ApiError::unsupported(path, format!("`{what}` is not supported; leave it out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openai(body: &Value) -> Result<Option<Constraint>, ApiError> {
        of_openai(&JsonBody::parse(body.to_string().as_bytes())?)
    }

    fn lorax(parameters: Value) -> Result<Option<Constraint>, ApiError> {
        let Value::Object(parameters) = parameters else { panic!("an object") };
        of_lorax(&parameters)
    }

    fn found(wanted: Result<Option<Constraint>, ApiError>) -> (AnswerForm, String) {
        let Constraint { form, field } = wanted.expect("valid").expect("a form");
        (form, field)
    }

    fn in_openai_s_words() -> Vec<(Value, AnswerForm, &'static str)> {
        let json = AnswerForm::JsonSchema;
        let schema = || json!({"type": "integer"});
        vec![
            (
                json!({"response_format": {"type": "json_object"}}),
                AnswerForm::JsonObject,
                "response_format",
            ),
            (
                json!({"response_format": {"type": "json_object", "schema": schema()}}),
                json(schema()),
                "response_format.schema",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema":
                    {"name": "n", "strict": true, "schema": schema()}}}),
                json(schema()),
                "response_format.json_schema.schema",
            ),
        ]
    }

    fn in_vllm_s_words() -> Vec<(Value, AnswerForm, &'static str)> {
        let json = AnswerForm::JsonSchema;
        let schema = || json!({"type": "integer"});
        let spaced = |options: Value| json!({"type": "integer", "x-guidance": options});
        vec![
            (
                json!({"structured_outputs": {"json": schema()}}),
                json(schema()),
                "structured_outputs.json",
            ),
            (
                json!({"structured_outputs": {"json": schema().to_string(), "regex": null}}),
                json(schema()),
                "structured_outputs.json",
            ),
            (
                json!({"structured_outputs": {"json": schema(), "disable_any_whitespace": true}}),
                json(spaced(json!({"whitespace_flexible": false}))),
                "structured_outputs.json",
            ),
            (
                json!({"structured_outputs": {"json": schema(), "whitespace_pattern": " ?"}}),
                json(spaced(json!({"whitespace_pattern": " ?"}))),
                "structured_outputs.json",
            ),
            (
                json!({"structured_outputs": {"json_object": true}}),
                json(json!({"type": "object"})),
                "structured_outputs.json_object",
            ),
            (
                json!({"structured_outputs": {"regex": "a"}}),
                AnswerForm::Regex("a".into()),
                "structured_outputs.regex",
            ),
            (
                json!({"structured_outputs": {"choice": ["a"], "json_object": false}}),
                AnswerForm::Choice(vec!["a".into()]),
                "structured_outputs.choice",
            ),
            (
                json!({"structured_outputs": {"grammar": "start: /a/"}}),
                AnswerForm::Grammar("start: /a/".into()),
                "structured_outputs.grammar",
            ),
        ]
    }

    fn in_older_words() -> Vec<(Value, AnswerForm, &'static str)> {
        let json = AnswerForm::JsonSchema;
        let schema = || json!({"type": "integer"});
        vec![
            (json!({"guided_json": schema()}), json(schema()), "guided_json"),
            (json!({"guided_regex": "a"}), AnswerForm::Regex("a".into()), "guided_regex"),
            (
                json!({"guided_choice": ["a"]}),
                AnswerForm::Choice(vec!["a".into()]),
                "guided_choice",
            ),
            (json!({"guided_grammar": "g"}), AnswerForm::Grammar("g".into()), "guided_grammar"),
        ]
    }

    #[test]
    fn every_field_of_openai_bodies_is_understood() {
        let cases = [in_openai_s_words(), in_vllm_s_words(), in_older_words()].concat();
        for (body, form, field) in cases {
            assert_eq!(found(openai(&body)), (form, field.to_owned()), "{body}");
        }
        for body in [
            json!({}),
            json!({"response_format": null, "structured_outputs": null, "guided_json": null}),
            json!({"response_format": {"type": "text"}}),
        ] {
            assert_eq!(openai(&body).expect("valid"), None, "{body}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        for (body, status, path) in [
            (json!({"response_format": "json"}), 400, "response_format"),
            (json!({"response_format": {}}), 400, "response_format.type"),
            (json!({"response_format": {"type": "xml"}}), 400, "response_format.type"),
            (json!({"response_format": {"type": "structural_tag"}}), 501, "response_format.type"),
            (
                json!({"response_format": {"type": "json_schema"}}),
                400,
                "response_format.json_schema",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}),
                400,
                "response_format.json_schema.schema",
            ),
            (json!({"structured_outputs": {}}), 400, "structured_outputs"),
            (json!({"structured_outputs": {"json_object": false}}), 400, "structured_outputs"),
            (
                json!({"structured_outputs": {"regex": "a", "choice": ["a"]}}),
                400,
                "structured_outputs",
            ),
            (
                json!({"structured_outputs": {"structural_tag": {}}}),
                501,
                "structured_outputs.structural_tag",
            ),
            (json!({"structured_outputs": {"regex": 1}}), 400, "structured_outputs.regex"),
            (json!({"structured_outputs": {"choice": ["a", 1]}}), 400, "structured_outputs.choice"),
            (json!({"structured_outputs": {"json": "{"}}), 400, "structured_outputs.json"),
            (
                json!({"structured_outputs": {"json_object": 1}}),
                400,
                "structured_outputs.json_object",
            ),
            (json!({"guided_regex": "a", "guided_choice": ["a"]}), 400, "guided_choice"),
            (
                json!({"response_format": {"type": "json_object"}, "guided_regex": "a"}),
                400,
                "guided_regex",
            ),
        ] {
            let error = openai(&body).expect_err("refused").openai();
            assert_eq!(error["error"]["param"], path, "{body}");
            assert_eq!(error["error"]["code"], status, "{body}");
        }
        for long in [
            json!({"guided_json": " ".repeat(MAX_BYTES + 1)}),
            json!({"guided_json": {"enum": vec![1; MAX_BYTES]}}),
            json!({"guided_choice": vec!["a"; MAX_BYTES]}),
            json!({"structured_outputs": {"regex": "a".repeat(MAX_BYTES + 1)}}),
        ] {
            let error = openai(&long).expect_err("too long").openai();
            assert_eq!(error["error"]["reason"], "grammar_too_complex");
        }
    }

    #[test]
    fn a_weight_is_never_more_than_the_json_and_counting_ends() {
        for value in [json!({"a": [1, "b", null], "c": {}}), json!([[], 1.5, true, "é"]), json!(7)]
        {
            let json = value.to_string().len();
            assert!((1..=json).contains(&weight(&value, MAX_BYTES)), "{value}");
        }
        assert!(weight(&json!(vec![1; 1000]), 10) < 15);
    }

    #[test]
    fn lorax_and_tgi_have_their_own_words() {
        let schema = || json!({"type": "integer"});
        for (parameters, form) in [
            (json!({"response_format": {"type": "json_object"}}), AnswerForm::JsonObject),
            (
                json!({"response_format": {"type": "json_object", "schema": schema()}, "grammar": null}),
                AnswerForm::JsonSchema(schema()),
            ),
            (
                json!({"grammar": {"type": "json", "value": schema()}}),
                AnswerForm::JsonSchema(schema()),
            ),
            (
                json!({"grammar": {"type": "json_schema", "value": {"name": "n", "schema": schema()}}}),
                AnswerForm::JsonSchema(schema()),
            ),
            (json!({"grammar": {"type": "regex", "value": "a"}}), AnswerForm::Regex("a".into())),
        ] {
            assert_eq!(found(lorax(parameters.clone())).0, form, "{parameters}");
        }
        for (parameters, path) in [
            (json!({"grammar": {"type": "regex"}}), "parameters.grammar.value"),
            (json!({"grammar": {"type": "ebnf", "value": "a"}}), "parameters.grammar.type"),
            (
                json!({"grammar": {"type": "regex", "value": "a"}, "response_format": {"type": "json_object"}}),
                "parameters.grammar.value",
            ),
        ] {
            let error = lorax(parameters.clone()).expect_err("refused").openai();
            assert_eq!(error["error"]["param"], path, "{parameters}");
        }
    }
}
