//! Calls of every format, read and written.
mod detecting;
mod reading;
mod splitting;
mod writing;

use super::*;
use std::sync::Arc;

const ALL: [ToolCallFormat; 4] = ToolCallFormat::ALL;

fn wanted(streamed: bool) -> CallsWanted {
    let names = ["add", "get_weather"].map(str::to_owned).into();
    CallsWanted { names: Arc::new(names), only_one: false, streamed }
}

/// What an answer says, and its calls with their arguments.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Read {
    content: String,
    calls: Vec<(String, String)>,
}

impl Read {
    fn of(events: impl IntoIterator<Item = CallEvent>) -> Self {
        let mut read = Self::default();
        for event in events {
            match event {
                CallEvent::Content(text) => read.content.push_str(&text),
                CallEvent::Begins { call, name } => {
                    assert_eq!(call, read.calls.len(), "calls are counted");
                    read.calls.push((name, String::new()));
                }
                CallEvent::Arguments { call, text } => {
                    assert_eq!(call + 1, read.calls.len(), "arguments are the newest call's");
                    read.calls[call].1.push_str(&text);
                }
            }
        }
        read
    }
}

fn read(format: ToolCallFormat, wanted: CallsWanted, pieces: &[&str]) -> Read {
    let mut parser = CallParser::new(format, wanted);
    let mut events: Vec<CallEvent> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    events.extend(parser.finish());
    let read = Read::of(events);
    assert_eq!(parser.calls(), read.calls.len());
    read
}

/// One function called after the other, in the format's own writing.
fn written(format: ToolCallFormat, calls: &[(&str, &str)]) -> String {
    let key = format.shape().arguments;
    let object = |(name, arguments): &(&str, &str)| {
        format!("{{\"name\": \"{name}\", \"{key}\": {arguments}}}")
    };
    let objects: Vec<String> = calls.iter().map(object).collect();
    match format {
        ToolCallFormat::Hermes => {
            let call = |object: &String| format!("<tool_call>\n{object}\n</tool_call>");
            objects.iter().map(call).collect::<Vec<_>>().join("\n")
        }
        ToolCallFormat::Llama3 => objects.join("; "),
        ToolCallFormat::Mistral => format!("[TOOL_CALLS][{}]", objects.join(", ")),
        ToolCallFormat::Json if objects.len() == 1 => objects.concat(),
        ToolCallFormat::Json => format!("[{}]", objects.join(", ")),
    }
}
