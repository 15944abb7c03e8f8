//! The functions that a model may call, and whether it may, must or must not.
use crate::{
    generation::{MAX_FORM_BYTES, MAX_SCHEMA_DEPTH, ToolFunction, is_flat, json_bytes},
    http::{ApiError, json::JsonBody},
};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Most tools of a conversation.
const MAX_TOOLS: usize = 128;
/// Longest name of a function.
const MAX_NAME: usize = 64;

/// What a request says about tools.
#[derive(Debug, Default)]
pub(in crate::http) struct Tools {
    /// As they came, for the template.
    shown: Vec<Value>,
    functions: Vec<ToolFunction>,
    choice: Choice,
    parallel: bool,
}

/// `tool_choice`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Choice {
    #[default]
    None,
    Auto,
    Required,
    /// The function with this index.
    Named(usize),
}

impl Tools {
    /// The tools in `body`.
    ///
    /// # Errors
    /// The path of whatever is wrong with them.
    pub(in crate::http) fn read(body: &JsonBody) -> Result<Self, ApiError> {
        let shown = list(body.get("tools"))?;
        let mut names = BTreeSet::new();
        let mut functions = Vec::with_capacity(shown.len());
        for (index, tool) in shown.iter().enumerate() {
            let path = format!("tools[{index}]");
            let function = function(tool, &path)?;
            if !names.insert(function.name.clone()) {
                let path = format!("{path}.function.name");
                let message = format!("`{path}`: there are two functions `{}`", function.name);
                return Err(ApiError::invalid(&path, message));
            }
            functions.push(function);
        }
        let choice = choice(body.get("tool_choice"), &functions)?;
        let parallel = match body.get("parallel_tool_calls") {
            None => true,
            Some(Value::Bool(parallel)) => *parallel,
            Some(_) => {
                let field = "parallel_tool_calls";
                return Err(ApiError::malformed(field, format!("`{field}` must be true or false")));
            }
        };
        Ok(Self { shown, functions, choice, parallel })
    }

    /// What the template shows: nothing where nothing may be called.
    pub(super) fn shown(&self) -> Vec<Value> {
        if self.choice == Choice::None { Vec::new() } else { self.shown.clone() }
    }

    /// Whether answers may have calls.
    pub(super) fn may_be_called(&self) -> bool {
        self.choice != Choice::None
    }

    /// Whether answers must be calls.
    pub(super) fn must_be_called(&self) -> bool {
        matches!(self.choice, Choice::Required | Choice::Named(_))
    }

    /// Whether the request names the function to be called.
    pub(super) fn is_named(&self) -> bool {
        matches!(self.choice, Choice::Named(_))
    }

    /// Whether an answer may have one call and no more.
    pub(super) fn only_one(&self) -> bool {
        !self.parallel || self.is_named()
    }

    /// Whether some function's arguments must obey its schema where it need not be called.
    pub(super) fn has_strict(&self) -> bool {
        self.callable().iter().any(|function| function.strict)
    }

    /// Whether the schemas are short enough to be enforced together.
    pub(super) fn can_be_enforced(&self) -> bool {
        let schemas = self.callable().iter().filter_map(|function| function.parameters.as_ref());
        schemas.map(json_bytes).sum::<usize>() <= MAX_FORM_BYTES
    }

    /// The field to blame where calls cannot be enforced.
    pub(super) fn schema_field(&self) -> String {
        match self.choice {
            Choice::Named(index) => format!("tools[{index}].function.parameters"),
            Choice::None | Choice::Auto | Choice::Required => "tools".to_owned(),
        }
    }

    /// What may be called.
    pub(super) fn callable(&self) -> &[ToolFunction] {
        match self.choice {
            Choice::None => &[],
            Choice::Named(index) => self.functions.get(index).map_or(&[], std::slice::from_ref),
            Choice::Auto | Choice::Required => &self.functions,
        }
    }
}

fn list(tools: Option<&Value>) -> Result<Vec<Value>, ApiError> {
    match tools {
        None => Ok(Vec::new()),
        Some(Value::Array(tools)) if (1..=MAX_TOOLS).contains(&tools.len()) => Ok(tools.clone()),
        Some(Value::Array(_)) => {
            let message = format!("`tools` must have 1 to {MAX_TOOLS} tools, or be left out");
            Err(ApiError::invalid("tools", message))
        }
        Some(_) => Err(ApiError::malformed("tools", "`tools` must be a list of functions")),
    }
}

fn function(tool: &Value, path: &str) -> Result<ToolFunction, ApiError> {
    if tool.get("type").and_then(Value::as_str) != Some("function") {
        let path = format!("{path}.type");
        return Err(ApiError::invalid(&path, format!("`{path}` must be `function`")));
    }
    let path = format!("{path}.function");
    let Some(function) = tool.get("function").and_then(Value::as_object) else {
        return Err(ApiError::malformed(
            &path,
            format!("`{path}` must be an object with a `name`"),
        ));
    };
    if !matches!(function.get("description"), None | Some(Value::Null | Value::String(_))) {
        let path = format!("{path}.description");
        return Err(ApiError::malformed(&path, format!("`{path}` must be a string")));
    }
    let strict = match function.get("strict") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(strict)) => *strict,
        Some(_) => {
            let path = format!("{path}.strict");
            return Err(ApiError::malformed(&path, format!("`{path}` must be true or false")));
        }
    };
    let name = name(function, &path)?;
    let parameters = parameters(function, &format!("{path}.parameters"))?;
    Ok(ToolFunction { name, parameters, strict })
}

fn name(function: &Map<String, Value>, path: &str) -> Result<String, ApiError> {
    let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(is_valid) {
        let path = format!("{path}.name");
        let message = format!(
            "`{path}` must have 1 to {MAX_NAME} characters: letters, digits, `_`, `.` and `-`"
        );
        return Err(ApiError::invalid(&path, message));
    }
    Ok(name.to_owned())
}

fn parameters(function: &Map<String, Value>, path: &str) -> Result<Option<Value>, ApiError> {
    let parameters = match function.get("parameters") {
        None | Some(Value::Null) => return Ok(None),
        Some(parameters @ Value::Object(_)) => parameters,
        Some(_) => {
            let message = format!("`{path}` must be a JSON schema of an object");
            return Err(ApiError::malformed(path, message));
        }
    };
    if !is_flat(parameters, MAX_SCHEMA_DEPTH) {
        let message = format!("`{path}` may be {MAX_SCHEMA_DEPTH} levels deep");
        return Err(ApiError::invalid(path, message));
    }
    if json_bytes(parameters) > MAX_FORM_BYTES {
        let message = format!("`{path}` may have {MAX_FORM_BYTES} bytes");
        return Err(ApiError::invalid(path, message));
    }
    let is_object = match parameters.get("type") {
        None => true,
        Some(Value::Array(types)) => types.iter().any(|kind| kind == "object"),
        Some(kind) => kind == "object",
    };
    if !is_object {
        let path = format!("{path}.type");
        let message = format!("`{path}` must be `object`: arguments are one");
        return Err(ApiError::invalid(&path, message));
    }
    Ok(Some(parameters.clone()))
}

fn choice(choice: Option<&Value>, functions: &[ToolFunction]) -> Result<Choice, ApiError> {
    let choice = match choice {
        None if functions.is_empty() => return Ok(Choice::None),
        None => return Ok(Choice::Auto),
        Some(choice) => choice,
    };
    let kind = choice.as_str().or_else(|| choice.get("type").and_then(Value::as_str));
    let choice = match (kind, choice) {
        // It asks for what would happen anyway.
        (Some("none"), Value::String(_)) => return Ok(Choice::None),
        (Some("auto"), Value::String(_)) => Choice::Auto,
        (Some("required"), Value::String(_)) => Choice::Required,
        (Some("function"), Value::Object(_)) => return named(choice, functions),
        (Some("allowed_tools" | "custom"), Value::Object(_)) => {
            let message =
                "this kind of `tool_choice` is not supported; send the tools that are allowed";
            return Err(ApiError::unsupported("tool_choice.type", message));
        }
        _ => {
            let message = "`tool_choice` must be `none`, `auto`, `required` or \
                           {\"type\": \"function\", \"function\": {\"name\": …}}";
            return Err(ApiError::invalid("tool_choice", message));
        }
    };
    if functions.is_empty() { Err(no_tools()) } else { Ok(choice) }
}

fn named(choice: &Value, functions: &[ToolFunction]) -> Result<Choice, ApiError> {
    let path = "tool_choice.function.name";
    let Some(name) = choice.pointer("/function/name").and_then(Value::as_str) else {
        return Err(ApiError::malformed(path, format!("`{path}` must be a function's name")));
    };
    if functions.is_empty() {
        return Err(no_tools());
    }
    let index = functions.iter().position(|function| function.name == name);
    index.map(Choice::Named).ok_or_else(|| {
        let shown: String = name.chars().take(MAX_NAME).collect();
        let message = format!("`{path}`: there is no `{}` among the `tools`", shown.escape_debug());
        ApiError::invalid(path, message)
    })
}

fn no_tools() -> ApiError {
    ApiError::invalid("tool_choice", "`tool_choice` needs `tools` to choose from")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &Value) -> Result<Tools, ApiError> {
        Tools::read(&JsonBody::parse(body.to_string().as_bytes()).expect("an object"))
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name}})
    }

    #[test]
    fn tools_are_shown_unless_none_may_be_called() {
        let tools = json!([tool("f"), tool("g")]);
        let named = json!({"type": "function", "function": {"name": "g"}});
        for (choice, shown, callable, must) in [
            (Value::Null, 2, 2, false),
            (json!("auto"), 2, 2, false),
            (json!("none"), 0, 0, false),
            (json!("required"), 2, 2, true),
            (named, 2, 1, true),
        ] {
            let body = json!({"tools": tools, "tool_choice": choice});
            let tools = read(&body).expect("valid");
            assert_eq!(tools.shown().len(), shown, "{choice}");
            assert_eq!(tools.callable().len(), callable, "{choice}");
            assert_eq!(tools.must_be_called(), must, "{choice}");
            assert_eq!(tools.may_be_called(), shown > 0, "{choice}");
        }
    }

    #[test]
    fn one_call_is_allowed_where_one_is_named_or_calls_are_not_to_be_parallel() {
        let named = json!({"type": "function", "function": {"name": "f"}});
        for (body, only_one) in [
            (json!({}), false),
            (json!({"parallel_tool_calls": true}), false),
            (json!({"parallel_tool_calls": false}), true),
            (json!({"tool_choice": named}), true),
        ] {
            let mut body = body;
            body["tools"] = json!([tool("f")]);
            assert_eq!(read(&body).expect("valid").only_one(), only_one, "{body}");
        }
    }

    #[test]
    fn nothing_is_as_good_as_no_tools() {
        for body in [
            json!({}),
            json!({"tools": null, "tool_choice": null, "parallel_tool_calls": null}),
            json!({"tool_choice": "none"}),
        ] {
            let tools = read(&body).expect("valid");
            assert!(!tools.may_be_called() && tools.shown().is_empty(), "{body}");
        }
    }

    #[test]
    fn names_and_schemas_are_taken_as_they_are() {
        let schema = json!({"properties": {"a": {"type": "integer"}}});
        let name = "a.b_c-9".repeat(9);
        let function = json!({"name": name, "parameters": schema, "strict": true, "extra": 1});
        let tools = json!({"tools": [{"type": "function", "function": function}]});
        let tools = read(&tools).expect("valid");
        let expected = ToolFunction { name, parameters: Some(schema), strict: true };
        assert_eq!(tools.callable(), [expected]);
    }

    #[test]
    fn whatever_is_wrong_is_named_by_its_path() {
        let with = |field: &str, value: Value| {
            let mut function = json!({"name": "f"});
            function[field] = value;
            json!({"tools": [{"type": "function", "function": function}]})
        };
        let choose = |choice: Value| json!({"tools": [tool("f")], "tool_choice": choice});
        let name = "tools[0].function.name";
        let choice_name = "tool_choice.function.name";
        for (body, status, path) in [
            (json!({"tools": []}), 400, "tools"),
            (json!({"tools": {}}), 400, "tools"),
            (json!({"tools": vec![tool("f"); 129]}), 400, "tools"),
            (json!({"tools": [1]}), 400, "tools[0].type"),
            (json!({"tools": [{"type": "web_search"}]}), 400, "tools[0].type"),
            (json!({"tools": [{"type": "function"}]}), 400, "tools[0].function"),
            (with("name", json!(null)), 400, name),
            (with("name", json!("")), 400, name),
            (with("name", json!("a b")), 400, name),
            (with("name", json!("é")), 400, name),
            (with("name", json!("x".repeat(65))), 400, name),
            (with("description", json!(1)), 400, "tools[0].function.description"),
            (with("strict", json!("yes")), 400, "tools[0].function.strict"),
            (with("parameters", json!([])), 400, "tools[0].function.parameters"),
            (with("parameters", json!(true)), 400, "tools[0].function.parameters"),
            (
                with("parameters", json!({"title": "x".repeat(MAX_FORM_BYTES)})),
                400,
                "tools[0].function.parameters",
            ),
            (
                with("parameters", json!({"type": "string"})),
                400,
                "tools[0].function.parameters.type",
            ),
            (json!({"tools": [tool("f"), tool("g"), tool("f")]}), 400, "tools[2].function.name"),
            (json!({"tool_choice": "auto"}), 400, "tool_choice"),
            (json!({"tool_choice": "required"}), 400, "tool_choice"),
            (choose(json!("any")), 400, "tool_choice"),
            (choose(json!(1)), 400, "tool_choice"),
            (choose(json!({"type": "auto"})), 400, "tool_choice"),
            (choose(json!({"type": "function"})), 400, choice_name),
            (choose(json!({"type": "function", "function": {"name": "g"}})), 400, choice_name),
            (choose(json!({"type": "allowed_tools"})), 501, "tool_choice.type"),
            (json!({"tools": [tool("f")], "parallel_tool_calls": 1}), 400, "parallel_tool_calls"),
        ] {
            let error = read(&body).expect_err("refused").openai();
            assert_eq!(error["error"]["param"], path, "{body}");
            assert_eq!(error["error"]["code"], status, "{body}");
        }
    }
}
