//! Tool calls in answers: objects of a whole message, and deltas of a stream.
use super::{tools::Tools, usage::finish_reason};
use crate::{
    generation::{CallEvent, CallParser, CallsWanted, Constraint, FinishedBecause, ToolCalls},
    http::ApiError,
};
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

/// The form of answers to these tools, where another field `asked` for one or not.
///
/// # Errors
/// When a call must be made, and the answer must be something else.
pub(super) fn constraint(
    calls: &ToolCalls,
    tools: &Tools,
    asked: Option<Constraint>,
) -> Result<Option<Constraint>, ApiError> {
    let (functions, only_one) = (tools.callable(), tools.only_one());
    let of_tools = |form| Constraint { form, field: tools.schema_field() };
    let is_enforced = tools.must_be_called() || asked.is_some() || tools.has_strict();
    if is_enforced && !tools.can_be_enforced() {
        let message = "`tools` have longer schemas than can be enforced together; send fewer, or leave calls to \
                       the model";
        return Err(ApiError::invalid("tools", message));
    }
    match asked {
        Some(Constraint { field, .. }) if tools.must_be_called() => {
            Err(ApiError::contradiction("tool_choice", &field))
        }
        None if tools.must_be_called() => Ok(Some(of_tools(calls.required(functions, only_one)))),
        None => Ok(calls.strict(functions, only_one).map(of_tools)),
        // A form that is no JSON leaves no room for calls, and none need be made.
        Some(Constraint { form, field }) => {
            let form = calls.or_else(functions, only_one, &form).unwrap_or(form);
            Ok(Some(Constraint { form, field }))
        }
    }
}

/// How the calls of one request are read.
#[derive(Debug)]
pub(super) struct CallReading {
    calls: ToolCalls,
    wanted: CallsWanted,
    is_named: bool,
}

/// Reads the calls of one answer.
#[derive(Debug)]
pub(super) struct CallReader {
    parser: CallParser,
    has_short_ids: bool,
    is_named: bool,
}

impl CallReading {
    /// For answers of this base to these tools.
    pub(super) fn new(calls: ToolCalls, tools: &Tools) -> Self {
        let names = tools.callable().iter().map(|function| function.name.clone()).collect();
        let wanted =
            CallsWanted { names: Arc::new(names), only_one: tools.only_one(), streamed: true };
        Self { calls, wanted, is_named: tools.is_named() }
    }

    /// For an answer in pieces.
    pub(super) fn streamed(&self) -> CallReader {
        self.reader(true)
    }

    /// The message and the reason of a whole answer.
    pub(super) fn message(&self, text: &str, because: &FinishedBecause) -> (Value, &'static str) {
        let mut reader = self.reader(false);
        let events = [reader.parser.push(text), reader.parser.finish()].concat();
        let (mut content, mut calls) = (String::new(), Vec::new());
        for event in events {
            match event {
                CallEvent::Content(text) => content.push_str(&text),
                CallEvent::Begins { name, .. } => calls.push((name, String::new())),
                CallEvent::Arguments { call, text } => {
                    if let Some((_, arguments)) = calls.get_mut(call) {
                        arguments.push_str(&text);
                    }
                }
            }
        }
        let reason = reader.finish_reason(because);
        if calls.is_empty() {
            let message = json!({"role": "assistant", "content": content, "refusal": null});
            return (message, reason);
        }
        let content = Some(content).filter(|content| !content.is_empty());
        let object = |(name, arguments): (String, String)| {
            let function = json!({"name": name, "arguments": arguments});
            json!({"id": reader.id(), "type": "function", "function": function})
        };
        let calls: Vec<Value> = calls.into_iter().map(object).collect();
        let message = json!({"role": "assistant", "content": content, "refusal": null,
                             "tool_calls": calls});
        (message, reason)
    }

    fn reader(&self, streamed: bool) -> CallReader {
        let wanted = CallsWanted { streamed, ..self.wanted.clone() };
        CallReader {
            parser: self.calls.parser(wanted),
            has_short_ids: self.calls.format().has_short_ids(),
            is_named: self.is_named,
        }
    }
}

impl CallReader {
    /// The deltas of the next piece of text.
    pub(super) fn push(&mut self, text: &str) -> Vec<Value> {
        let events = self.parser.push(text);
        events.into_iter().map(|event| self.delta(event)).collect()
    }

    /// The deltas that were held back until the end.
    pub(super) fn finish(&mut self) -> Vec<Value> {
        let events = self.parser.finish();
        events.into_iter().map(|event| self.delta(event)).collect()
    }

    /// `finish_reason`: who names a function knows that it was called.
    pub(super) fn finish_reason(&self, because: &FinishedBecause) -> &'static str {
        match because {
            FinishedBecause::Stop(_) if self.parser.calls() > 0 && !self.is_named => "tool_calls",
            because => finish_reason(because),
        }
    }

    fn delta(&self, event: CallEvent) -> Value {
        match event {
            CallEvent::Content(text) => json!({"content": text}),
            CallEvent::Begins { call, name } => {
                let function = json!({"name": name, "arguments": ""});
                json!({"tool_calls": [{"index": call, "id": self.id(), "type": "function",
                                       "function": function}]})
            }
            CallEvent::Arguments { call, text } => {
                json!({"tool_calls": [{"index": call, "function": {"arguments": text}}]})
            }
        }
    }

    fn id(&self) -> String {
        let id = Uuid::new_v4().simple().to_string();
        if self.has_short_ids { id[..9].to_owned() } else { format!("chatcmpl-tool-{id}") }
    }
}
