//! A conversation to the text the model was trained on.
use super::{
    GenerateError,
    jinja::{self, Raised},
};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, time::SystemTime};

const NAME: &str = "chat";

/// Variables that only the request's own fields set.
const RESERVED: [&str; 6] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "strftime_now",
];

/// A compiled template.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token`, … as templates name them.
    special_tokens: BTreeMap<String, String>,
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
    pub(super) documents: Vec<Value>,
    pub(super) add_generation_prompt: bool,
    pub(super) continue_final_message: bool,
    pub(super) variables: Map<String, Value>,
}

impl ChatTemplate {
    /// # Errors
    /// When `source` is not a template.
    pub(super) fn compile(
        source: &str,
        special_tokens: BTreeMap<String, String>,
    ) -> Result<Self, GenerateError> {
        let environment = compile(source).map_err(|error| {
            invalid("chat_template", &format!("the model's chat template cannot be read: {error}"))
        })?;
        let mut template = Self { environment, special_tokens, content: Content::Both };
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
        if let Some(name) = chat.variables.keys().find(|name| self.is_reserved(name)) {
            let message = format!("`chat_template_kwargs` must not set `{name}`");
            return Err(invalid("chat_template_kwargs", &message));
        }
        if !chat.documents.is_empty() && !self.takes("documents") {
            let message =
                "this model's chat template takes no documents: put their text into a message";
            return Err(invalid("documents", message));
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

    /// Whether it looks at this variable at all.
    fn takes(&self, variable: &str) -> bool {
        let template = self.environment.get_template(NAME);
        template.is_ok_and(|template| template.undeclared_variables(false).contains(variable))
    }

    fn is_reserved(&self, name: &str) -> bool {
        RESERVED.contains(&name) || self.special_tokens.contains_key(name)
    }

    fn write(&self, chat: Chat, now: SystemTime) -> Result<String, Error> {
        let mut variables = chat.variables;
        let tools = if chat.tools.is_empty() { Value::Null } else { chat.tools.into() };
        variables.insert("messages".into(), chat.messages.into());
        variables.insert("tools".into(), tools);
        let documents = if chat.documents.is_empty() { Value::Null } else { chat.documents.into() };
        variables.insert("documents".into(), documents);
        variables.insert("add_generation_prompt".into(), chat.add_generation_prompt.into());
        for (name, token) in &self.special_tokens {
            variables.insert(name.clone(), token.as_str().into());
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
        parse_arguments(message);
        Ok(())
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

/// OpenAI's tool calls carry their arguments as JSON in a string; templates want the object. A model may have written no JSON:
/// then what it wrote is shown as it is.
fn parse_arguments(message: &mut Map<String, Value>) {
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    for call in calls.into_iter().flatten() {
        let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
        let Some(text) = arguments.as_str() else { continue };
        let text = if text.trim().is_empty() { "{}" } else { text };
        if let Some(parsed) = serde_json::from_str(text).ok().filter(Value::is_object) {
            *arguments = parsed;
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Templates of ten families with what `transformers` renders; see `PROVENANCE.md` there.
    const GOLDEN: [&str; 10] = [
        include_str!("../../tests/golden/chat_templates/block-whitespace.json"),
        include_str!("../../tests/golden/chat_templates/chatml.json"),
        include_str!("../../tests/golden/chat_templates/default-system.json"),
        include_str!("../../tests/golden/chat_templates/headers-with-tools.json"),
        include_str!("../../tests/golden/chat_templates/headers.json"),
        include_str!("../../tests/golden/chat_templates/instructions.json"),
        include_str!("../../tests/golden/chat_templates/macros-and-loops.json"),
        include_str!("../../tests/golden/chat_templates/thinking.json"),
        include_str!("../../tests/golden/chat_templates/tools-in-xml.json"),
        include_str!("../../tests/golden/chat_templates/turns.json"),
    ];

    fn template(source: &str) -> ChatTemplate {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let tokens = tokens.map(|(name, token)| (name.to_owned(), token.to_owned())).into();
        ChatTemplate::compile(source, tokens).expect("a template")
    }

    fn chat(messages: &Value) -> Chat {
        Chat { messages: list(messages), ..Chat::default() }
    }

    fn list(values: &Value) -> Vec<Value> {
        values.as_array().cloned().unwrap_or_default()
    }

    fn render(template: &ChatTemplate, chat: Chat) -> Result<String, GenerateError> {
        template.render(chat, SystemTime::UNIX_EPOCH)
    }

    fn golden_chat(case: &Value) -> Chat {
        Chat {
            messages: list(&case["messages"]),
            tools: list(&case["tools"]),
            add_generation_prompt: case["add_generation_prompt"] == true,
            variables: case["variables"].as_object().cloned().unwrap_or_default(),
            ..Chat::default()
        }
    }

    #[test]
    fn every_family_renders_as_in_transformers() {
        for golden in GOLDEN {
            let golden: Value = serde_json::from_str(golden).expect("JSON");
            let text = |key: &str| golden[key].as_str().map(ToOwned::to_owned);
            let tokens = ["bos_token", "eos_token"]
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), text(name)?)));
            let source = text("template").expect("a template");
            let template = ChatTemplate::compile(&source, tokens.collect()).expect("a template");
            for case in list(&golden["cases"]) {
                let rendered = render(&template, golden_chat(&case));
                match (case["expected"].as_str(), case["error"].as_str()) {
                    (Some(expected), _) => {
                        assert_eq!(rendered.expect(&source), expected, "{source}");
                    }
                    (_, Some(error)) => {
                        let got = rendered.expect_err(&source).to_string();
                        assert!(got.contains(error), "{got}");
                    }
                    _ => panic!("a case expects something"),
                }
            }
        }
    }

    const PLAIN: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{{ eos_token }}\
                         {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    const PARTS: &str = "{% for m in messages %}{% for p in m.content %}[{{ p['text'] }}]{% endfor %}\
                         {% endfor %}";

    #[test]
    fn content_takes_the_form_that_the_template_wants() {
        let parts = json!([{"role": "user", "content": [
            {"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]);
        let string = json!([{"role": "user", "content": "one"}]);
        let plain = template(PLAIN);
        assert_eq!(plain.content, Content::Strings);
        assert_eq!(render(&plain, chat(&parts)).expect("joined"), "<user>one\ntwo</s>");
        let in_parts = template(PARTS);
        assert_eq!(in_parts.content, Content::Parts);
        assert_eq!(render(&in_parts, chat(&parts)).expect("as they are"), "[one][two]");
        assert_eq!(render(&in_parts, chat(&string)).expect("wrapped"), "[one]");
    }

    #[test]
    fn content_that_is_no_text_is_refused() {
        let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]);
        for messages in [image, json!([{"role": "user", "content": 3}]), json!(["hello"])] {
            let error = render(&template(PLAIN), chat(&messages)).expect_err("refused");
            assert!(matches!(error, GenerateError::Invalid { field: "messages", .. }), "{error}");
        }
    }

    #[test]
    fn the_final_message_is_continued_where_it_ends() {
        let continued = |content: &str| {
            let messages = json!([
                {"role": "user", "content": "Sing."},
                {"role": "assistant", "content": content},
            ]);
            let chat = Chat { continue_final_message: true, ..chat(&messages) };
            render(&template(PLAIN), chat)
        };
        assert_eq!(continued("La la").expect("cut"), "<user>Sing.</s><assistant>La la");
        assert_eq!(continued("La la \n").expect("cut"), "<user>Sing.</s><assistant>La la");
        assert!(continued(" ").is_err());
        let both = Chat {
            add_generation_prompt: true,
            continue_final_message: true,
            ..chat(&json!([{"role": "user", "content": "x"}]))
        };
        assert!(render(&template(PLAIN), both).is_err());
    }

    #[test]
    fn arguments_of_tool_calls_reach_the_template_as_objects() {
        let source =
            "{% for c in messages[0].tool_calls %}{{ c.function.arguments.city }}{% endfor %}";
        let calling = |arguments: &str| {
            let call =
                json!({"type": "function", "function": {"name": "f", "arguments": arguments}});
            chat(&json!([{"role": "assistant", "content": null, "tool_calls": [call]}]))
        };
        assert_eq!(
            render(&template(source), calling("{\"city\": \"Ulm\"}")).expect("parsed"),
            "Ulm"
        );
        let as_it_is =
            "{% for c in messages[0].tool_calls %}{{ c.function.arguments }}{% endfor %}";
        for arguments in ["{", "3"] {
            assert_eq!(render(&template(as_it_is), calling(arguments)).expect("kept"), arguments);
        }
    }

    #[test]
    fn variables_cannot_replace_what_the_request_says_itself() {
        let mut chat = chat(&json!([{"role": "user", "content": "x"}]));
        chat.variables.insert("messages".into(), json!([]));
        let error = render(&template(PLAIN), chat).expect_err("refused").to_string();
        assert!(error.contains("`messages`"), "{error}");
    }

    #[test]
    fn documents_reach_a_template_that_takes_them_and_no_other() {
        let messages = json!([{"role": "user", "content": "x"}]);
        let documents = vec![json!({"title": "a", "text": "b"})];
        let asked = Chat { documents, ..chat(&messages) };
        let source = "{% for d in documents %}{{ d.title }}: {{ d.text }}{% endfor %}";
        assert_eq!(render(&template(source), asked.clone()).expect("shown"), "a: b");
        let error = render(&template(PLAIN), asked).expect_err("refused");
        assert!(matches!(error, GenerateError::Invalid { field: "documents", .. }), "{error}");
        let own = "{% set documents = [] %}{{ documents | length }}";
        assert_eq!(render(&template(own), chat(&messages)).expect("its own"), "0");
    }

    #[test]
    fn an_error_names_the_line_and_quotes_no_message() {
        let messages = json!([{"role": "user", "content": "a secret"}]);
        let source = "{% for m in messages %}\n{{ m.content + 1 }}{% endfor %}";
        let error = render(&template(source), chat(&messages)).expect_err("refused").to_string();
        assert!(error.contains("line 2") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_template_that_never_ends_is_stopped() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        let error = render(&template(source), Chat::default()).expect_err("stopped").to_string();
        assert!(error.contains("too many"), "{error}");
    }

    #[test]
    fn what_is_no_template_is_refused_at_once() {
        assert!(ChatTemplate::compile("{% for %}", BTreeMap::new()).is_err());
    }
}
