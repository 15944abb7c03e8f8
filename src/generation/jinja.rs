//! The Jinja2 dialect that `transformers` gives to chat templates.
use chrono::{DateTime, Utc};
use minijinja::{
    Environment, Error, ErrorKind, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, ValueKind},
};
use serde_json::Value as Json;
use std::{fmt::Write, time::SystemTime};

/// Instructions one rendering may take: some hundred times what a long conversation needs, and
/// about a second.
const FUEL: u64 = 10_000_000;

/// What a template passes to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// An environment with the filters and functions that do not change between renderings.
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::from(ErrorKind::InvalidOperation).with_source(Raised(message)))
    });
    Ok(environment)
}

/// The function `strftime_now`, which tells `now` in UTC.
pub(super) fn strftime(now: SystemTime) -> Value {
    let now = DateTime::<Utc>::from(now);
    Value::from_function(move |format: String| -> Result<String, Error> {
        let mut text = String::new();
        write!(text, "{}", now.format(&format))
            .map_err(|_| Error::new(ErrorKind::InvalidOperation, "strftime_now: unknown format"))?;
        Ok(text)
    })
}

/// `{% generation %}` marks what training counts; for rendering it is a block like any other.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        let Some(end) = tag.find("%}") else { break };
        let (tag, after) = tag.split_at(end + 2);
        text.push_str(before);
        text.push_str(&match tag.trim_matches(['{', '}', '%', '-', '+', ' ', '\t', '\n']) {
            "generation" => tag.replacen("generation", "if true", 1),
            "endgeneration" => tag.replacen("endgeneration", "endif", 1),
            _ => tag.into(),
        });
        rest = after;
    }
    text.push_str(rest);
    text
}

/// A JSON value as templates see it, its keys in their order.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(truth) => (*truth).into(),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(values) => values.iter().map(value).collect::<Vec<_>>().into(),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(name, field)| (name.as_str(), value(field))))
        }
    }
}

/// Python's `json.dumps` with `ensure_ascii=False`, as `transformers` has it: nothing is escaped
/// for HTML.
#[expect(clippy::needless_pass_by_value, reason = "the form that a filter has")]
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    if ascii == Some(true) {
        return Err(failed("tojson: ensure_ascii is not supported"));
    }
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.as_str(), key.as_str()),
        Some(_) => return Err(failed("tojson: separators must be two strings")),
        None if indent.is_some() => (",", ": "),
        None => (", ", ": "),
    };
    let style = Dump { indent, item, key, sort_keys: sort_keys == Some(true) };
    let mut json = String::new();
    style.value(value, 0, &mut json)?;
    Ok(Value::from_safe_string(json))
}

fn failed(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// How `json.dumps` writes.
struct Dump<'a> {
    /// Spaces a level; `None` is all on one line.
    indent: Option<usize>,
    item: &'a str,
    key: &'a str,
    sort_keys: bool,
}

impl Dump<'_> {
    fn value(&self, value: &Value, depth: usize, to: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => to.push_str("null"),
            ValueKind::Bool => to.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => to.push_str(&value.to_string()),
            ValueKind::String => to.push_str(&quoted(value.as_str().unwrap_or_default())?),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| (None, item));
                self.container(['[', ']'], items, depth, to)?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                let fields = keys.into_iter().map(|key| {
                    let field = value.get_item(&key).unwrap_or_default();
                    (Some(key), field)
                });
                self.container(['{', '}'], fields, depth, to)?;
            }
            _ => return Err(failed("tojson: the value is not JSON")),
        }
        Ok(())
    }

    fn container(
        &self,
        [open, close]: [char; 2],
        items: impl Iterator<Item = (Option<Value>, Value)>,
        depth: usize,
        to: &mut String,
    ) -> Result<(), Error> {
        to.push(open);
        let mut empty = true;
        for (key, item) in items {
            if !std::mem::take(&mut empty) {
                to.push_str(self.item);
            }
            self.line(depth + 1, to);
            if let Some(key) = key {
                to.push_str(&quoted(&key.to_string())?);
                to.push_str(self.key);
            }
            self.value(&item, depth + 1, to)?;
        }
        if !empty {
            self.line(depth, to);
        }
        to.push(close);
        Ok(())
    }

    fn line(&self, depth: usize, to: &mut String) {
        if let Some(indent) = self.indent {
            to.push('\n');
            to.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }
}

fn quoted(text: &str) -> Result<String, Error> {
    serde_json::to_string(text).map_err(|_| failed("tojson: the text is not JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dumps(json: &Json, call: &str) -> String {
        let environment = environment().expect("an environment");
        let context = Value::from_pairs([("x", value(json))]);
        environment.render_str(&format!("{{{{ x | {call} }}}}"), context).expect("text")
    }

    #[test]
    fn tojson_writes_as_python_does() {
        let json = json!({"b": [1, -2.5, true, null], "a": {"é<&>": "\"\n"}, "c": [], "d": {}});
        assert_eq!(
            dumps(&json, "tojson"),
            r#"{"b": [1, -2.5, true, null], "a": {"é<&>": "\"\n"}, "c": [], "d": {}}"#
        );
        assert_eq!(
            dumps(&json!({"b": 1, "a": 2}), "tojson(sort_keys=true)"),
            r#"{"a": 2, "b": 1}"#
        );
        assert_eq!(dumps(&json!([1, [2]]), "tojson(separators=[',', ':'])"), "[1,[2]]");
        assert_eq!(
            dumps(&json!({"a": [1, {}], "b": []}), "tojson(indent=2)"),
            "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}"
        );
    }

    #[test]
    fn whole_numbers_stay_whole_and_large() {
        let json = json!([u64::MAX, i64::MIN, 1.0]);
        assert_eq!(dumps(&json, "tojson"), "[18446744073709551615, -9223372036854775808, 1.0]");
    }

    #[test]
    fn marks_of_training_are_blocks_like_any_other() {
        let source =
            "a\n{%- generation -%}\n b \n{%- endgeneration %}c{% if x %}{{ '{%' }}{% endif %}";
        let environment = environment().expect("an environment");
        let text = without_generation_tags(source);
        let context = Value::from_pairs([("x", true)]);
        assert_eq!(environment.render_str(&text, context).expect("text"), "abc{%");
    }

    #[test]
    fn the_clock_speaks_strftime() {
        let environment = environment().expect("an environment");
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_hours(24 * 59);
        let render = |format: &str| {
            let context = Value::from_pairs([("strftime_now", strftime(now))]);
            environment.render_str(&format!("{{{{ strftime_now('{format}') }}}}"), context)
        };
        assert_eq!(render("%d %b %Y, %H:%M").expect("text"), "01 Mar 1970, 00:00");
        assert!(render("%Q").is_err());
    }
}
