//! Asks a chat template how its model writes calls.
use super::{CallEvent, CallParser, CallsWanted, ToolCallFormat};
use crate::generation::chat_template::{Chat, ChatTemplate};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::SystemTime};

/// A name that no template has of itself.
const NAME: &str = "probe_4f1c";
/// Nine letters and digits: what the strictest templates want of an id.
const IDS: [&str; 2] = ["probe0001", "probe0002"];

/// What a template does with tools.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::generation) struct Seen {
    /// Whether the model gets to see them.
    pub(super) shows_tools: bool,
    /// The format that reads back what the template writes.
    pub(super) format: Option<ToolCallFormat>,
    /// Whether it writes several calls in one turn.
    pub(super) parallel: bool,
}

impl Seen {
    /// Renders a tool, a call of it, and two calls.
    pub(in crate::generation) fn of(template: &ChatTemplate) -> Self {
        let Some(asked) = render(template, &[user()], true) else { return Self::default() };
        if !asked.contains(NAME) {
            return Self::default();
        }
        let said = |calls: usize| said(template, &asked, calls);
        let by_example = said(1).and_then(|said| {
            ToolCallFormat::ALL.into_iter().find(|format| reads(*format, &said, 1))
        });
        let by_example = match by_example {
            // Llama's name for arguments is what tells the two apart.
            Some(ToolCallFormat::Llama3)
                if said(1).is_some_and(|said| said.contains("arguments")) =>
            {
                Some(ToolCallFormat::Json)
            }
            format => format,
        };
        let format = by_example.or_else(|| by_instruction(&asked));
        let parallel =
            format.is_some_and(|format| said(2).is_some_and(|said| reads(format, &said, 2)));
        Self { shows_tools: true, format, parallel }
    }
}

/// What the model would have said to make these calls.
fn said(template: &ChatTemplate, asked: &str, calls: usize) -> Option<String> {
    let calls: Vec<Value> = IDS[..calls].iter().map(|id| call(id)).collect();
    let turn = |content: Value| {
        let calls = calls.clone();
        let turn = json!({"role": "assistant", "content": content, "tool_calls": calls});
        render(template, &[user(), turn], false)
    };
    let text = turn("".into()).or_else(|| turn(Value::Null))?;
    let same = text.chars().zip(asked.chars()).take_while(|(a, b)| a == b);
    let begin: usize = same.map(|(character, _)| character.len_utf8()).sum();
    Some(text[begin..].to_owned())
}

fn user() -> Value {
    json!({"role": "user", "content": "Hello"})
}

fn call(id: &str) -> Value {
    let function = json!({"name": NAME, "arguments": "{\"place\": \"Ulm\"}"});
    json!({"id": id, "type": "function", "function": function})
}

fn render(template: &ChatTemplate, messages: &[Value], opens: bool) -> Option<String> {
    let parameters = json!({
        "type": "object",
        "properties": {"place": {"type": "string", "description": "A town."}},
        "required": ["place"],
    });
    let function = json!({"name": NAME, "description": "Probes.", "parameters": parameters});
    let chat = Chat {
        messages: messages.to_vec(),
        tools: vec![json!({"type": "function", "function": function})],
        documents: Vec::new(),
        add_generation_prompt: opens,
        continue_final_message: false,
        variables: Map::new(),
    };
    template.render(chat, SystemTime::UNIX_EPOCH).ok()
}

fn reads(format: ToolCallFormat, said: &str, calls: usize) -> bool {
    let names = Arc::new([NAME.to_owned()].into());
    let wanted = CallsWanted { names, only_one: false, streamed: false };
    let mut parser = CallParser::new(format, wanted);
    let events = [parser.push(said), parser.finish()].concat();
    let is_whole = |event: &&CallEvent| match event {
        CallEvent::Arguments { text, .. } => {
            serde_json::from_str::<Value>(text).is_ok_and(|value| value["place"] == "Ulm")
        }
        _ => false,
    };
    events.iter().filter(is_whole).count() == calls
}

/// For templates that show tools and have no form for calls that were made.
fn by_instruction(asked: &str) -> Option<ToolCallFormat> {
    let is_json = asked.contains("\"arguments\"") || asked.contains("'arguments'");
    let has = |mark: &str| asked.contains(mark);
    match () {
        () if has("<tool_call>") && is_json && !has("<function=") && !has("<arg_key>") => {
            Some(ToolCallFormat::Hermes)
        }
        () if has("[TOOL_CALLS]") && is_json && !has("[ARGS]") => Some(ToolCallFormat::Mistral),
        () => None,
    }
}
