//! Fields that other servers know and this one does not serve.
//!
//! A client that sends one at its neutral value loses nothing; at any other value the answer would
//! not be what was asked for, so it is refused by name instead of ignored.
use crate::http::{ApiError, json::JsonBody};
use serde_json::Value;

/// Which values change nothing.
pub(in crate::http) type Neutral = fn(&Value) -> bool;

/// None.
pub(in crate::http) const NEVER: Neutral = |_| false;
/// `false`.
pub(in crate::http) const FALSE: Neutral = |value| value == &Value::Bool(false);
/// What has nothing in it.
pub(in crate::http) const EMPTY: Neutral = |value| match value {
    Value::String(text) => text.is_empty(),
    Value::Array(items) => items.is_empty(),
    Value::Object(fields) => fields.is_empty(),
    _ => false,
};
const ONE: Neutral = |value| value.as_f64() == Some(1.0);
const TEXT_ONLY: Neutral = |value| value == &serde_json::json!(["text"]);

/// Refused in completions and chat completions.
const EVERYWHERE: &[(&str, Neutral)] = &[
    ("early_stopping", FALSE),
    ("length_penalty", ONE),
    ("logits_processors", EMPTY),
    ("prompt_embeds", NEVER),
    ("use_beam_search", FALSE),
];

const IN_COMPLETIONS: &[(&str, Neutral)] = &[("suffix", EMPTY)];

const IN_CHAT: &[(&str, Neutral)] = &[
    ("audio", NEVER),
    ("best_of", ONE),
    ("chat_template", NEVER),
    ("function_call", |value| value == "none"),
    ("functions", EMPTY),
    ("mm_processor_kwargs", EMPTY),
    ("modalities", TEXT_ONLY),
    ("prediction", NEVER),
    ("web_search_options", NEVER),
];

/// Whether completions ask only for what is served.
///
/// # Errors
/// 501 with the first field that is not.
pub(super) fn check_completions(body: &JsonBody) -> Result<(), ApiError> {
    check(body, EVERYWHERE)?;
    check(body, IN_COMPLETIONS)
}

/// Whether chat completions ask only for what is served.
///
/// # Errors
/// 501 with the first field that is not.
pub(super) fn check_chat(body: &JsonBody) -> Result<(), ApiError> {
    check(body, EVERYWHERE)?;
    check(body, IN_CHAT)
}

/// Whether a body asks only for what is served.
///
/// # Errors
/// 501 with the first field that is not.
pub(in crate::http) fn check(body: &JsonBody, refused: &[(&str, Neutral)]) -> Result<(), ApiError> {
    for (field, is_neutral) in refused {
        if body.get(field).is_some_and(|value| !is_neutral(value)) {
            let message = format!("`{field}` is not supported; leave it out");
            return Err(ApiError::unsupported(field, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(value: &Value) -> JsonBody {
        JsonBody::parse(value.to_string().as_bytes()).expect("an object")
    }

    #[test]
    fn neutral_values_and_null_pass() {
        let neutral = json!({
            "best_of": 1, "suffix": "", "use_beam_search": false,
            "modalities": ["text"], "functions": [], "length_penalty": 1.0,
        });
        check_completions(&body(&neutral)).expect("neutral");
        check_chat(&body(&neutral)).expect("neutral");
    }

    #[test]
    fn what_would_change_the_answer_is_refused_by_name() {
        for (field, value) in [("suffix", json!("end")), ("length_penalty", json!(2))] {
            let error = check_completions(&body(&json!({field: value}))).expect_err(field).openai();
            assert_eq!(error["error"]["code"], 501);
            assert_eq!(error["error"]["param"], field);
        }
        assert!(check_chat(&body(&json!({"audio": {}}))).is_err());
    }
}
