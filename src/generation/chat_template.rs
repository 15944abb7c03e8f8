//! A conversation to the text the model was trained on.
use super::{
    GenerateError,
    jinja::{self, Raised},
};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::{Map, Value, json};
use std::time::SystemTime;

const NAME: &str = "chat";

/// Variables that only the request's own fields set.
const RESERVED: [&str; 8] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "bos_token",
    "eos_token",
    "strftime_now",
];

/// A compiled template.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: Option<String>,
    eos_token: Option<String>,
    content: Content,
}

/// What a template makes of a message's `content`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Content {
    /// It writes strings.
    Strings,
    /// It goes through a list of parts.
    Parts,
    /// It does either.
    Both,
}

/// What is to be rendered; see `Prompt::Chat`.
#[derive(Clone, Debug, Default)]
pub(super) struct Chat {
    pub(super) messages: Vec<Value>,
    pub(super) tools: Vec<Value>,
    pub(super) add_generation_prompt: bool,
    pub(super) continue_final_message: bool,
    pub(super) variables: Map<String, Value>,
}

impl ChatTemplate {
    /// # Errors
    /// When `source` is not a template.
    pub(super) fn compile(
        source: &str,
        bos_token: Option<String>,
        eos_token: Option<String>,
    ) -> Result<Self, GenerateError> {
        let environment = compile(source).map_err(|error| {
            GenerateError::Internal(format!("the model's chat template is broken: {error}"))
        })?;
        let mut template = Self { environment, bos_token, eos_token, content: Content::Both };
        template.content = template.probe();
        Ok(template)
    }

    /// The text of `chat` at the time `now`.
    ///
    /// # Errors
    /// When the template refuses the messages, or a message is of a form no template takes.
    pub(super) fn render(&self, chat: Chat, now: SystemTime) -> Result<String, GenerateError> {
        if chat.add_generation_prompt && chat.continue_final_message {
            return Err(invalid(
                "continue_final_message",
                "`continue_final_message` and `add_generation_prompt` exclude each other",
            ));
        }
        if let Some(name) = RESERVED.iter().find(|name| chat.variables.contains_key(**name)) {
            let message = format!("`chat_template_kwargs` must not set `{name}`");
            return Err(invalid("chat_template_kwargs", &message));
        }
        let mut chat = chat;
        for message in &mut chat.messages {
            self.normalise(message)?;
        }
        let continued =
            chat.continue_final_message.then(|| final_text(&chat.messages)).transpose()?;
        let text = self.write(chat, now).map_err(|error| refused(&error))?;
        match continued {
            Some(last) => cut_after(text, &last),
            None => Ok(text),
        }
    }

    fn write(&self, chat: Chat, now: SystemTime) -> Result<String, Error> {
        let mut variables = chat.variables;
        let tools = if chat.tools.is_empty() { Value::Null } else { chat.tools.into() };
        variables.insert("messages".into(), chat.messages.into());
        variables.insert("tools".into(), tools);
        variables.insert("documents".into(), Value::Null);
        variables.insert("add_generation_prompt".into(), chat.add_generation_prompt.into());
        for (name, token) in [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)] {
            if let Some(token) = token {
                variables.insert(name.into(), token.as_str().into());
            }
        }
        let variables = variables.iter().map(|(name, value)| (name.as_str(), jinja::value(value)));
        let clock = ("strftime_now", jinja::strftime(now));
        let context = minijinja::Value::from_pairs(variables.chain([clock]));
        self.environment.get_template(NAME)?.render(context)
    }

    /// Tries out which forms of `content` come out as text.
    fn probe(&self) -> Content {
        let shows = |content: Value| {
            let messages = vec![json!({"role": "user", "content": content})];
            let text = self.write(Chat { messages, ..Chat::default() }, SystemTime::UNIX_EPOCH);
            // A list written as a whole shows its quoted keys.
            text.is_ok_and(|text| {
                text.contains("Probe") && !text.contains("'text'") && !text.contains("\"text\"")
            })
        };
        let part = json!([{"type": "text", "text": "Probe"}]);
        match (shows("Probe".into()), shows(part)) {
            (true, false) => Content::Strings,
            (false, true) => Content::Parts,
            _ => Content::Both,
        }
    }

    /// Brings a message to the form the template takes.
    fn normalise(&self, message: &mut Value) -> Result<(), GenerateError> {
        let Some(message) = message.as_object_mut() else {
            return Err(invalid("messages", "each message must be an object"));
        };
        if let Some(content) = message.get_mut("content") {
            check_parts(content)?;
            match (self.content, &*content) {
                (Content::Strings, Value::Array(parts)) => {
                    let texts: Vec<&str> = parts.iter().filter_map(part_text).collect();
                    *content = texts.join("\n").into();
                }
                (Content::Parts, Value::String(text)) => {
                    *content = json!([{"type": "text", "text": text}]);
                }
                _ => {}
            }
        }
        parse_arguments(message)
    }
}

fn compile(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = jinja::environment()?;
    environment.add_template_owned(NAME, jinja::without_generation_tags(source))?;
    Ok(environment)
}

fn check_parts(content: &Value) -> Result<(), GenerateError> {
    match content {
        Value::String(_) | Value::Null => Ok(()),
        Value::Array(parts) if parts.iter().all(|part| part_text(part).is_some()) => Ok(()),
        _ => Err(invalid(
            "messages",
            "a message's content must be a string or a list of `text` parts; this model takes \
             nothing else",
        )),
    }
}

fn part_text(part: &Value) -> Option<&str> {
    (part.get("type")? == "text").then(|| part.get("text")?.as_str())?
}

/// OpenAI's tool calls carry their arguments as JSON in a string; templates want the object.
fn parse_arguments(message: &mut Map<String, Value>) -> Result<(), GenerateError> {
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    for call in calls.into_iter().flatten() {
        let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
        let Some(text) = arguments.as_str() else { continue };
        let text = if text.trim().is_empty() { "{}" } else { text };
        *arguments = serde_json::from_str(text).map_err(|_| {
            invalid("messages", "`arguments` of a tool call must be a JSON object in a string")
        })?;
    }
    Ok(())
}

fn final_text(messages: &[Value]) -> Result<String, GenerateError> {
    let content = messages.last().and_then(|message| message.get("content"));
    let text = match content {
        Some(Value::String(text)) => Some(text.as_str()),
        Some(Value::Array(parts)) => parts.iter().rev().find_map(part_text),
        _ => None,
    };
    match text {
        Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err(invalid("messages", "the final message has no text to continue")),
    }
}

/// Drops what the template wrote after the last message's text. Templates often trim messages;
/// white space at its end stays only where the template kept it.
fn cut_after(mut text: String, last: &str) -> Result<String, GenerateError> {
    let Some(start) = text.rfind(last.trim()) else {
        return Err(invalid(
            "continue_final_message",
            "the chat template changes the final message, so it cannot be continued",
        ));
    };
    let whole = last.trim_start();
    let kept = if text[start..].starts_with(whole) { whole } else { last.trim() };
    text.truncate(start + kept.len());
    Ok(text)
}

/// The error without any of the messages' text, unless the template itself quotes it.
fn refused(error: &Error) -> GenerateError {
    if error.kind() == ErrorKind::OutOfFuel {
        return GenerateError::Template("there are too many of them for it".into());
    }
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return GenerateError::Template(message.chars().take(200).collect());
        }
        source = cause.source();
    }
    let line = error.line().map_or_else(String::new, |line| format!(" in line {line}"));
    GenerateError::Template(format!("{}{line}", error.kind()))
}

fn invalid(field: &'static str, message: &str) -> GenerateError {
    GenerateError::Invalid { field, message: message.into() }
}
