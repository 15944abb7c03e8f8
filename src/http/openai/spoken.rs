//! What earlier turns say of tools: an assistant's calls, and the answers to them.
use crate::http::ApiError;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Most calls of one message.
const MAX_CALLS: usize = 128;

/// Checks what `message` says of tools, and writes it as templates take it: calls that are none are no field, and a message of
/// calls alone has an empty text.
///
/// # Errors
/// The path of what is wrong.
pub(super) fn check(message: &mut Map<String, Value>, path: &str) -> Result<(), ApiError> {
    check_deprecated(message, path)?;
    match message.get("tool_calls") {
        None => {}
        Some(Value::Null) => drop(message.remove("tool_calls")),
        Some(Value::Array(calls)) if calls.is_empty() => drop(message.remove("tool_calls")),
        Some(calls) => {
            let path = format!("{path}.tool_calls");
            if message["role"] != "assistant" {
                let message = format!("`{path}`: only a message of the assistant has calls");
                return Err(ApiError::invalid(&path, message));
            }
            check_calls(calls, &path)?;
            if message.get("content").is_none_or(Value::is_null) {
                message.insert("content".into(), "".into());
            }
        }
    }
    if message["role"] == "tool" {
        let path = format!("{path}.tool_call_id");
        text(message.get("tool_call_id"), &path, "the id of the call that it answers")?;
    }
    Ok(())
}

/// Says in each answer of a tool which function it is of, where the answer does not: `OpenAI`'s clients give the call's id alone, and
/// some templates want the name.
pub(super) fn name_answers(messages: &mut [Value]) {
    let mut names: HashMap<String, Value> = HashMap::new();
    for message in messages {
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            if let Some(id) = call["id"].as_str() {
                names.insert(id.to_owned(), call["function"]["name"].clone());
            }
        }
        let is_answer = message["role"] == "tool" && message["name"].is_null();
        let name = message["tool_call_id"].as_str().and_then(|id| names.get(id));
        if let Some(name) = name.filter(|_| is_answer) {
            message["name"] = name.clone();
        }
    }
}

fn check_deprecated(message: &mut Map<String, Value>, path: &str) -> Result<(), ApiError> {
    match message.get("function_call") {
        None => Ok(()),
        Some(Value::Null) => {
            message.remove("function_call");
            Ok(())
        }
        Some(_) => {
            let path = format!("{path}.function_call");
            let message = format!("`{path}` is not supported; say it in `tool_calls`");
            Err(ApiError::unsupported(&path, message))
        }
    }
}

fn check_calls(calls: &Value, path: &str) -> Result<(), ApiError> {
    let calls = match calls {
        Value::Array(calls) if calls.len() <= MAX_CALLS => calls,
        _ => {
            let message = format!("`{path}` must be a list of at most {MAX_CALLS} calls");
            return Err(ApiError::malformed(path, message));
        }
    };
    for (index, call) in calls.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if !call.is_object() {
            return Err(ApiError::malformed(&path, format!("`{path}` must be an object")));
        }
        if !call.get("type").is_none_or(|kind| kind == "function") {
            let path = format!("{path}.type");
            return Err(ApiError::invalid(&path, format!("`{path}` must be `function`")));
        }
        text(call.get("id"), &format!("{path}.id"), "the id that the call was given")?;
        let (name, arguments) =
            (call.pointer("/function/name"), call.pointer("/function/arguments"));
        text(name, &format!("{path}.function.name"), "the function's name")?;
        if !arguments.is_some_and(Value::is_string) {
            let path = format!("{path}.function.arguments");
            let message = format!("`{path}` must be a string: the arguments as JSON");
            return Err(ApiError::malformed(&path, message));
        }
    }
    Ok(())
}

/// A text that is not empty.
fn text(value: Option<&Value>, path: &str, what: &str) -> Result<(), ApiError> {
    if value.and_then(Value::as_str).is_some_and(|text| !text.is_empty()) {
        return Ok(());
    }
    Err(ApiError::malformed(path, format!("`{path}` must be {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checked(message: &Value) -> Result<Value, ApiError> {
        let mut message = message.as_object().cloned().expect("an object");
        check(&mut message, "messages[3]")?;
        Ok(message.into())
    }

    fn call() -> Value {
        json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}})
    }

    #[test]
    fn calls_are_written_as_templates_take_them() {
        let nothing = json!({"role": "assistant", "content": "hi"});
        for none in [json!(null), json!([])] {
            let message = json!({"role": "assistant", "content": "hi", "tool_calls": none,
                                 "function_call": null});
            assert_eq!(checked(&message).expect("valid"), nothing);
        }
        for content in [json!(null), json!("")] {
            let message = json!({"role": "assistant", "content": content, "tool_calls": [call()]});
            let expected = json!({"role": "assistant", "content": "", "tool_calls": [call()]});
            assert_eq!(checked(&message).expect("valid"), expected);
        }
        let answer = json!({"role": "tool", "tool_call_id": "a", "content": "4"});
        assert_eq!(checked(&answer).expect("valid"), answer);
    }

    #[test]
    fn an_answer_is_named_after_the_call_that_it_answers() {
        let answer = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "4"});
        let mut named = answer("a");
        named["name"] = "own".into();
        let mut messages = vec![
            answer("a"),
            json!({"role": "assistant", "content": "", "tool_calls": [call()]}),
            answer("a"),
            answer("b"),
            named,
            json!({"role": "user", "content": "a"}),
        ];
        name_answers(&mut messages);
        let names: Vec<_> = messages.iter().map(|message| message["name"].as_str()).collect();
        assert_eq!(names, [None, None, Some("f"), None, Some("own"), None]);
    }

    #[test]
    fn arguments_may_be_anything_that_the_model_wrote() {
        for arguments in ["", "{", "3", "{\"a\": 1}"] {
            let mut call = call();
            call["function"]["arguments"] = arguments.into();
            checked(&json!({"role": "assistant", "tool_calls": [call]})).expect("valid");
        }
    }

    #[test]
    fn whatever_is_wrong_is_named_by_its_path() {
        let without = |path: &str| {
            let mut call = call();
            *call.pointer_mut(path).expect("a field") = Value::Null;
            json!({"role": "assistant", "content": null, "tool_calls": [call]})
        };
        let calls = |calls: Value| json!({"role": "assistant", "tool_calls": calls});
        for (message, status, path) in [
            (without("/id"), 400, "tool_calls[0].id"),
            (without("/type"), 400, "tool_calls[0].type"),
            (without("/function"), 400, "tool_calls[0].function.name"),
            (without("/function/name"), 400, "tool_calls[0].function.name"),
            (without("/function/arguments"), 400, "tool_calls[0].function.arguments"),
            (calls(json!({})), 400, "tool_calls"),
            (calls(json!([call(), 1])), 400, "tool_calls[1]"),
            (calls(vec![call(); 129].into()), 400, "tool_calls"),
            (json!({"role": "user", "tool_calls": [call()]}), 400, "tool_calls"),
            (json!({"role": "tool", "content": "4"}), 400, "tool_call_id"),
            (json!({"role": "tool", "content": "4", "tool_call_id": 4}), 400, "tool_call_id"),
            (json!({"role": "assistant", "function_call": {"name": "f"}}), 501, "function_call"),
        ] {
            let error = checked(&message).expect_err("refused").openai();
            assert_eq!(error["error"]["param"], format!("messages[3].{path}"), "{message}");
            assert_eq!(error["error"]["code"], status, "{message}");
        }
    }
}
