//! Tools: what models say becomes calls, whole and streamed, in every format; and what requests may not say.
mod answers;
mod enforced;
mod requests;
mod streams;

use crate::client::{Answer, Script, Server, with_tools};
use lorad::generation::ToolCallSetting;
use serde_json::{Value, json};

const PATH: &str = "/v1/chat/completions";

/// Templates as of four families: each shows its tools and writes calls in its own way.
const HERMES: &str = r#"{%- if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls %}
<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"#;
const LLAMA3: &str = r#"{%- if tools %}{{ tools | tojson }}{% endif %}
{%- for m in messages %}<|{{ m.role }}|>
{%- if 'tool_calls' in m %}{%- set c = m.tool_calls[0].function -%}
{"name": "{{ c.name }}", "parameters": {{ c.arguments | tojson }}}
{%- else %}{{ m.content }}{% endif %}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"#;
const MISTRAL: &str = r#"{%- if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}[INST]{{ m.content }}[/INST]
{%- elif m.role == 'tool' %}[TOOL_RESULTS]{"id": "{{ m.tool_call_id }}", "content": {{ m.content }}}[/TOOL_RESULTS]
{%- elif m.tool_calls %}[TOOL_CALLS][
{%- for c in m.tool_calls %}
{%- if c.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif -%}
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}
{%- if not loop.last %}, {% endif %}{% endfor %}]
{%- else %}{{ m.content }}{% endif %}{% endfor %}"#;
const PLAIN_JSON: &str = r#"{%- if tools %}{{ tools | tojson }}{% endif %}
{%- for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls -%}
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
{%- endfor %}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"#;

/// Each format: its template, and what a model says to call `add` and then `get_weather`.
const FORMATS: [(&str, &str); 4] = [
    (
        HERMES,
        "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"get_weather\", \
         \"arguments\": {\"place\": \"Köln\"}}\n</tool_call>",
    ),
    (
        LLAMA3,
        "<|python_tag|>{\"name\": \"add\", \"parameters\": {\"a\": 1}}; {\"name\": \"get_weather\", \"parameters\": \
         {\"place\": \"Köln\"}}",
    ),
    (
        MISTRAL,
        "[TOOL_CALLS][{\"name\": \"add\", \"arguments\": {\"a\": 1}}, {\"name\": \"get_weather\", \"arguments\": \
         {\"place\": \"Köln\"}}]",
    ),
    (
        PLAIN_JSON,
        "[{\"name\": \"add\", \"arguments\": {\"a\": 1}}, {\"name\": \"get_weather\", \"arguments\": {\"place\": \
         \"Köln\"}}]",
    ),
];

/// A server whose model says `said`.
fn server(template: &str, said: &[&str]) -> Server {
    Server::start(with_tools(Script::say(said), template, ToolCallSetting::Auto))
}

fn tools() -> Value {
    let schema =
        |field: &str, kind: &str| json!({"type": "object", "properties": {field: {"type": kind}}});
    let tool = |name: &str, schema: Value| json!({"type": "function", "function": {"name": name, "description": "", "parameters": schema}});
    json!([tool("add", schema("a", "integer")), tool("get_weather", schema("place", "string"))])
}

fn asking() -> Value {
    json!({"messages": [{"role": "user", "content": "Hello"}], "tools": tools(), "max_tokens": 500})
}

/// `body` with these fields as well.
fn with(mut body: Value, fields: Value) -> Value {
    let (Some(body_fields), Value::Object(fields)) = (body.as_object_mut(), fields) else {
        panic!("objects")
    };
    body_fields.extend(fields);
    body
}

/// Names and arguments of a message's calls.
fn called(message: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    calls
        .iter()
        .map(|call| (text(&call["function"]["name"]), text(&call["function"]["arguments"])))
        .collect()
}

fn both() -> Vec<(String, String)> {
    [("add", "{\"a\": 1}"), ("get_weather", "{\"place\": \"Köln\"}")]
        .map(|(name, arguments)| (name.to_owned(), arguments.to_owned()))
        .into()
}

/// A stream's messages, put together as clients do, with their finish reasons.
fn joined(answer: &Answer) -> Vec<(Value, Value)> {
    let events = answer.events();
    let mut choices: Vec<(Value, Value)> = Vec::new();
    for event in events.iter().filter(|event| *event != "[DONE]") {
        let event: Value = serde_json::from_str(event).expect("JSON");
        let Some(choice) = event["choices"].get(0) else { continue };
        let index = choice["index"].as_u64().expect("an index") as usize;
        if choices.len() <= index {
            choices.resize(index + 1, (json!({"content": "", "tool_calls": []}), Value::Null));
        }
        let (message, reason) = &mut choices[index];
        let delta = &choice["delta"];
        append(&mut message["content"], &delta["content"]);
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let calls = message["tool_calls"].as_array_mut().expect("a list");
            let at = call["index"].as_u64().expect("an index") as usize;
            if call.get("id").is_some() {
                assert_eq!(at, calls.len(), "calls come in order");
                assert_eq!(call["function"]["arguments"], "");
                calls.push(call.clone());
            } else {
                assert_eq!(at + 1, calls.len(), "arguments are the newest call's");
                append(&mut calls[at]["function"]["arguments"], &call["function"]["arguments"]);
            }
        }
        assert!(reason.is_null(), "nothing comes after the end: {event}");
        *reason = choice["finish_reason"].clone();
    }
    choices
}

fn append(to: &mut Value, piece: &Value) {
    if let Some(piece) = piece.as_str() {
        *to = format!("{}{piece}", to.as_str().expect("text")).into();
    }
}
