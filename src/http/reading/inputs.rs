//! Texts in the shapes that clients send them in.
use crate::{generation::EncodeInput, http::ApiError};
use serde_json::Value;

/// A text, a list of texts, a list of token ids, or a list of such lists.
///
/// # Errors
/// The path of what is wrong, or empty.
pub(in crate::http) fn inputs(
    value: Option<&Value>,
    field: &str,
) -> Result<Vec<EncodeInput>, ApiError> {
    match value {
        None => Err(missing(field)),
        Some(Value::String(text)) => Ok(vec![text_input(text, field)?]),
        Some(Value::Array(items)) if items.is_empty() => Err(ApiError::empty(field)),
        Some(Value::Array(items)) if items[0].is_number() => Ok(vec![token_input(items, field)?]),
        Some(Value::Array(items)) => each(items, field, |path, item| match item {
            Value::String(text) => text_input(text, path),
            Value::Array(ids) => token_input(ids, path),
            _ => Err(wrong_input(path)),
        }),
        Some(_) => Err(wrong_input(field)),
    }
}

/// A text, a pair of them, or a list of lists of one or two, and whether it is such a list.
///
/// # Errors
/// The path of what is wrong, or empty.
pub(in crate::http) fn sequences(
    value: Option<&Value>,
    field: &str,
) -> Result<(Vec<EncodeInput>, bool), ApiError> {
    let items = match value {
        None => return Err(missing(field)),
        Some(Value::String(text)) => return Ok((vec![text_input(text, field)?], false)),
        Some(Value::Array(items)) if items.is_empty() => return Err(ApiError::empty(field)),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(wrong_sequence(field)),
    };
    if items[0].is_string() {
        return Ok((vec![sequence(items, field)?], false));
    }
    let batch = each(items, field, |path, item| match item {
        Value::Array(texts) => sequence(texts, path),
        _ => Err(wrong_sequence(path)),
    });
    Ok((batch?, true))
}

/// A text, or a list of texts, which may be objects with a `text`.
///
/// # Errors
/// The path of what is wrong, or empty.
pub(in crate::http) fn texts(value: Option<&Value>, field: &str) -> Result<Vec<String>, ApiError> {
    match value {
        None => Err(missing(field)),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(items)) if items.is_empty() => Err(ApiError::empty(field)),
        Some(Value::Array(items)) => each(items, field, |path, item| match item {
            Value::String(text) => Ok(text.clone()),
            Value::Object(fields) => match fields.get("text") {
                Some(Value::String(text)) => Ok(text.clone()),
                _ => Err(wrong_text(path)),
            },
            _ => Err(wrong_text(path)),
        }),
        Some(_) => Err(wrong_text(field)),
    }
}

/// As many texts as a request may have.
///
/// # Errors
/// 400 for more.
pub(in crate::http) fn counted<T>(
    texts: Vec<T>,
    field: &str,
    most: usize,
) -> Result<Vec<T>, ApiError> {
    if texts.len() <= most {
        return Ok(texts);
    }
    Err(ApiError::too_many_texts(field, texts.len(), most))
}

fn each<T>(
    items: &[Value],
    field: &str,
    read: impl Fn(&str, &Value) -> Result<T, ApiError>,
) -> Result<Vec<T>, ApiError> {
    let read = |(at, item)| read(&format!("{field}[{at}]"), item);
    items.iter().enumerate().map(read).collect()
}

fn text_input(text: &str, path: &str) -> Result<EncodeInput, ApiError> {
    if text.is_empty() {
        return Err(ApiError::empty(path));
    }
    Ok(EncodeInput::Text(text.to_owned()))
}

fn token_input(ids: &[Value], path: &str) -> Result<EncodeInput, ApiError> {
    if ids.is_empty() {
        return Err(ApiError::empty(path));
    }
    let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = each(ids, path, |path, item| id(item).ok_or_else(|| wrong_input(path)));
    Ok(EncodeInput::Tokens(ids?))
}

fn sequence(texts: &[Value], path: &str) -> Result<EncodeInput, ApiError> {
    match texts {
        [Value::String(text)] => text_input(text, path),
        [Value::String(first), Value::String(second)] if first.is_empty() && second.is_empty() => {
            Err(ApiError::empty(path))
        }
        [Value::String(first), Value::String(second)] => {
            Ok(EncodeInput::Pair(first.clone(), second.clone()))
        }
        _ => Err(wrong_sequence(path)),
    }
}

/// 400: there must be such a field.
pub(in crate::http) fn missing(field: &str) -> ApiError {
    ApiError::malformed(field, format!("`{field}` is missing"))
}

fn wrong_input(path: &str) -> ApiError {
    let message = format!(
        "`{path}`: an input is a string, a list of strings, a list of token ids or a list of such lists"
    );
    ApiError::malformed(path, message)
}

fn wrong_sequence(path: &str) -> ApiError {
    let message = format!(
        "`{path}`: an input is a string, a pair of strings, or a list of lists of one or two strings"
    );
    ApiError::malformed(path, message)
}

fn wrong_text(path: &str) -> ApiError {
    let message = format!("`{path}` must be a string or a list of strings; nothing else is read");
    ApiError::malformed(path, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use EncodeInput::{Pair, Text, Tokens};
    use serde_json::json;

    #[test]
    fn inputs_have_four_shapes() {
        let read = |value: Value| inputs(Some(&value), "input").expect("inputs");
        assert_eq!(read(json!("a")), [Text("a".into())]);
        assert_eq!(read(json!(["a", "b"])), [Text("a".into()), Text("b".into())]);
        assert_eq!(read(json!([1, 2])), [Tokens(vec![1, 2])]);
        assert_eq!(read(json!([[1], [2, 3]])), [Tokens(vec![1]), Tokens(vec![2, 3])]);
    }

    #[test]
    fn sequences_are_texts_and_pairs_alone_or_in_a_list() {
        let read = |value: Value| sequences(Some(&value), "inputs").expect("sequences");
        let pair = || Pair("a".into(), "b".into());
        assert_eq!(read(json!("a")), (vec![Text("a".into())], false));
        assert_eq!(read(json!(["a"])), (vec![Text("a".into())], false));
        assert_eq!(read(json!(["a", "b"])), (vec![pair()], false));
        assert_eq!(read(json!([["a"], ["a", "b"]])), (vec![Text("a".into()), pair()], true));
    }

    #[test]
    fn what_is_wrong_or_empty_is_named_by_its_path() {
        for (value, path) in [
            (json!(""), "f"),
            (json!([]), "f"),
            (json!(["a", ""]), "f[1]"),
            (json!([[]]), "f[0]"),
            (json!([1, -1]), "f[1]"),
            (json!([[1], [2, "a"]]), "f[1][1]"),
            (json!(["a", 1]), "f[1]"),
            (json!([4_294_967_296_u64]), "f[0]"),
            (json!({"a": 1}), "f"),
        ] {
            let error = inputs(Some(&value), "f").expect_err("refused").openai();
            assert_eq!(error["error"]["param"], path, "{value}");
        }
        for (value, path) in [
            (json!(["a", "b", "c"]), "f"),
            (json!([["a"], "b"]), "f[1]"),
            (json!([["a"], []]), "f[1]"),
            (json!([["a", 1]]), "f[0]"),
            (json!(["", ""]), "f"),
            (json!(1), "f"),
        ] {
            let error = sequences(Some(&value), "f").expect_err("refused").openai();
            assert_eq!(error["error"]["param"], path, "{value}");
        }
        for (value, path) in [
            (json!([]), "f"),
            (json!(["a", 1]), "f[1]"),
            (json!([{"text": "a"}, {"image": "b"}]), "f[1]"),
            (json!({"text": "a"}), "f"),
        ] {
            let error = texts(Some(&value), "f").expect_err("refused").openai();
            assert_eq!(error["error"]["param"], path, "{value}");
        }
        assert!(inputs(None, "f").is_err() && sequences(None, "f").is_err());
    }

    #[test]
    fn a_request_has_only_so_many_texts() {
        assert_eq!(counted(vec![1, 2], "f", 2).expect("two"), [1, 2]);
        let error = counted(vec![1, 2, 3], "f", 2).expect_err("three");
        assert_eq!(error.reason(), "too_many_texts");
    }
}
