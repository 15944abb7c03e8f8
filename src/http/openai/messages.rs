//! Conversations: messages and what the template gets besides.
use super::{spoken, tools::Tools};
use crate::{
    generation::Prompt,
    http::{ApiError, json::JsonBody},
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Who may speak.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
/// Most messages of a conversation.
const MAX_MESSAGES: usize = 4096;

/// What makes a prompt of a conversation.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChatPromptFields {
    messages: Option<Vec<Value>>,
    documents: Option<Vec<Value>>,
    reasoning_effort: Option<String>,
    add_generation_prompt: Option<bool>,
    continue_final_message: Option<bool>,
    chat_template_kwargs: Option<Map<String, Value>>,
}

/// The conversation in `body`, with these tools.
///
/// # Errors
/// The path of whatever is wrong with it.
pub(in crate::http) fn chat_prompt(body: &JsonBody, tools: &Tools) -> Result<Prompt, ApiError> {
    let fields: ChatPromptFields = body.read()?;
    let mut messages = fields.messages.unwrap_or_default();
    check_messages(&mut messages)?;
    let documents = fields.documents.unwrap_or_default();
    if let Some(index) = documents.iter().position(|document| !document.is_object()) {
        let path = format!("documents[{index}]");
        return Err(ApiError::malformed(&path, format!("`{path}` must be an object")));
    }
    let mut variables = fields.chat_template_kwargs.unwrap_or_default();
    if let Some(effort) = fields.reasoning_effort {
        variables.entry("reasoning_effort").or_insert(effort.into());
    }
    let continue_final_message = fields.continue_final_message.unwrap_or(false);
    let opens = fields.add_generation_prompt.unwrap_or(!continue_final_message);
    if opens && continue_final_message {
        let field = "continue_final_message";
        let message = format!("`{field}` and `add_generation_prompt` exclude each other");
        return Err(ApiError::invalid(field, message));
    }
    Ok(Prompt::Chat {
        messages,
        tools: tools.shown(),
        documents,
        add_generation_prompt: opens,
        continue_final_message,
        variables,
    })
}

#[cfg(test)]
pub(super) fn prompt_fields() -> Vec<&'static str> {
    crate::http::json::known_fields::<ChatPromptFields>()
}

/// The text of the assistant's last message, where that is the last one: what an answer may continue.
pub(super) fn continued(body: &JsonBody) -> String {
    let messages = body.get("messages").and_then(Value::as_array);
    let last = messages.and_then(|messages| messages.last());
    let own = last.filter(|message| message["role"] == "assistant");
    match own.map(|message| &message["content"]) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part["text"].as_str()).collect()
        }
        _ => String::new(),
    }
}

fn check_messages(messages: &mut [Value]) -> Result<(), ApiError> {
    if !(1..=MAX_MESSAGES).contains(&messages.len()) {
        let message = format!("`messages` must have 1 to {MAX_MESSAGES} messages");
        return Err(ApiError::invalid("messages", message));
    }
    for (index, message) in messages.iter_mut().enumerate() {
        let path = format!("messages[{index}]");
        let Some(message) = message.as_object_mut() else {
            return Err(ApiError::malformed(&path, format!("`{path}` must be an object")));
        };
        check_role(message, &path)?;
        spoken::check(message, &path)?;
        check_content(message, &path)?;
    }
    spoken::name_answers(messages);
    Ok(())
}

fn check_role(message: &mut Map<String, Value>, path: &str) -> Result<(), ApiError> {
    let path = format!("{path}.role");
    match message.get_mut("role") {
        // Newer models' word for it; templates know the older one.
        Some(role) if *role == "developer" => *role = "system".into(),
        Some(role) if role.as_str().is_some_and(|role| ROLES.contains(&role)) => {}
        _ => {
            let message = format!("`{path}` must be one of {}", ROLES.join(", "));
            return Err(ApiError::invalid(&path, message));
        }
    }
    Ok(())
}

fn check_content(message: &Map<String, Value>, path: &str) -> Result<(), ApiError> {
    let path = format!("{path}.content");
    match message.get("content") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) => {
            let other =
                parts.iter().position(|part| part["type"] != "text" || !part["text"].is_string());
            match other {
                None => Ok(()),
                Some(index) => {
                    let path = format!("{path}[{index}]");
                    let message = format!("`{path}` must be a part of type `text` with a `text`");
                    Err(ApiError::invalid(&path, message))
                }
            }
        }
        _ => {
            let message = format!("`{path}` must be a string or a list of text parts");
            Err(ApiError::malformed(&path, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn prompt(body: &Value) -> Result<Prompt, ApiError> {
        let body = JsonBody::parse(body.to_string().as_bytes()).expect("an object");
        chat_prompt(&body, &Tools::default())
    }

    #[test]
    fn a_conversation_opens_the_assistants_turn_unless_it_continues_it() {
        let turn =
            json!([{"role": "developer", "content": "be kind"}, {"role": "user", "content": "hi"}]);
        let opened = prompt(&json!({"messages": turn, "reasoning_effort": "low"})).expect("valid");
        let Prompt::Chat { messages, add_generation_prompt, variables, .. } = opened else {
            panic!("not a conversation");
        };
        assert!(add_generation_prompt);
        assert_eq!(messages[0]["role"], "system");
        assert_eq!(variables["reasoning_effort"], "low");
        let continued = prompt(&json!({"messages": turn, "continue_final_message": true}));
        assert!(matches!(
            continued.expect("valid"),
            Prompt::Chat { add_generation_prompt: false, continue_final_message: true, .. }
        ));
    }

    #[test]
    fn whatever_is_wrong_is_named_by_its_path() {
        let hi = json!([{"role": "user", "content": "hi"}]);
        for (body, path) in [
            (json!({}), "messages"),
            (json!({"messages": []}), "messages"),
            (json!({"messages": "hi"}), "messages"),
            (json!({"messages": [1]}), "messages[0]"),
            (json!({"messages": [{"content": "hi"}]}), "messages[0].role"),
            (json!({"messages": [{"role": "robot", "content": "hi"}]}), "messages[0].role"),
            (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
            (json!({"messages": [{"role": "user", "content": 1}]}), "messages[0].content"),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
                "messages[0].content[0]",
            ),
            (json!({"messages": hi, "documents": [{}, "text"]}), "documents[1]"),
            (
                json!({"messages": hi, "add_generation_prompt": true, "continue_final_message": true}),
                "continue_final_message",
            ),
        ] {
            let error = prompt(&body).expect_err("refused").openai();
            assert_eq!(error["error"]["param"], path, "{body}");
        }
    }

    #[test]
    fn only_the_assistant_s_own_last_message_is_continued() {
        let continued = |messages: Value| {
            let body = json!({"messages": messages}).to_string();
            continued(&JsonBody::parse(body.as_bytes()).expect("an object"))
        };
        let user = json!({"role": "user", "content": "hi"});
        let parts = json!([{"type": "text", "text": "o"}, {"type": "text", "text": "h"}]);
        assert_eq!(continued(json!([user, {"role": "assistant", "content": "oh"}])), "oh");
        assert_eq!(continued(json!([user, {"role": "assistant", "content": parts}])), "oh");
        assert_eq!(continued(json!([{"role": "assistant", "content": "oh"}, user])), "");
    }
}
