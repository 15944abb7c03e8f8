//! `POST /v1/chat/completions`
use super::{
    calls::{self, CallReading},
    chat_answer::{ChatShown, ChatStream, whole},
    completions::entries,
    fields::{SharedFields, named_adapters},
    messages::{chat_prompt, continued},
    refused,
    shown::Shown,
    tools::Tools,
    usage::Head,
};
use crate::http::{
    ApiError, AppState,
    auth::Caller,
    fan_out::Answers,
    json::{JsonBody, rendered},
    served,
    split::Asker,
    sse, structured,
};
use axum::{
    Extension,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

/// What only chat has.
#[derive(Debug, Deserialize)]
struct ChatFields {
    max_completion_tokens: Option<usize>,
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
    echo: Option<bool>,
}

impl ChatFields {
    /// Alternatives to every token; `None` for no log-probabilities at all.
    fn alternatives(&self) -> Result<Option<usize>, ApiError> {
        let top = self.top_logprobs.unwrap_or(0);
        match self.logprobs {
            Some(true) => Ok(Some(top)),
            _ if top == 0 => Ok(None),
            _ => {
                let message = "`top_logprobs` needs `logprobs` to be true";
                Err(ApiError::invalid("top_logprobs", message))
            }
        }
    }
}

#[cfg(test)]
pub(in crate::http) fn chat_fields() -> Vec<&'static str> {
    use crate::http::json::known_fields;
    let own = [known_fields::<SharedFields>(), known_fields::<ChatFields>()].concat();
    [own, super::messages::prompt_fields()].concat()
}

pub(in crate::http) async fn chat_completions(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, ApiError> {
    refused::check_chat(&body)?;
    let shared = SharedFields::read(&body, app.config.max_prompts)?;
    let fields: ChatFields = body.read()?;
    let tools = Tools::read(&body)?;
    let prompt = chat_prompt(&body, &tools)?;

    let asker = Asker { caller, headers: &headers, body: &body };
    let chosen = app.choose(asker, ("model", shared.model.as_deref()), named_adapters(&body)?)?;
    let context = app.generator.model().max_context;
    let defaults = app.generator.default_sampling();
    let mut request = shared.request(prompt, chosen.adapters, context, defaults)?;
    request.max_tokens = fields.max_completion_tokens.or(request.max_tokens);
    request.sampling.logprobs = fields.alternatives()?;
    request.constraint = structured::of_openai(&body)?;
    let shown = Shown { logprobs: request.sampling.logprobs, ..Shown::of(&shared) };
    let echo = if fields.echo.unwrap_or(false) { continued(&body) } else { String::new() };
    let calls = if tools.may_be_called() { Some(app.generator.tool_calls()?) } else { None };
    if let Some(calls) = calls {
        request.constraint = calls::constraint(calls, &tools, request.constraint)?;
    }
    let calls = calls.map(|calls| CallReading::new(calls.clone(), &tools));
    let shown = ChatShown { shown, echo, calls };

    let answers = Answers::start(&app, vec![request], chosen.split).await?;
    let head = Head::new("chatcmpl", &app, chosen.model, &answers);
    let served = served::header(answers.served());
    if shared.streams() {
        let stream = ChatStream::new(head, &shared, shown, answers.prompts());
        let stream = sse::respond(answers, stream, app.config.write_timeout());
        return Ok((served, stream).into_response());
    }
    let completions = answers.collect().await?;
    let answer =
        rendered(entries(&completions), move || whole(&head, &completions, &shown)).await?;
    Ok((served, answer).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_need_logprobs() {
        let fields = |logprobs, top_logprobs| ChatFields {
            max_completion_tokens: None,
            logprobs,
            top_logprobs,
            echo: None,
        };
        assert_eq!(fields(None, None).alternatives().expect("valid"), None);
        assert_eq!(fields(Some(false), Some(0)).alternatives().expect("valid"), None);
        assert_eq!(fields(Some(true), None).alternatives().expect("valid"), Some(0));
        assert_eq!(fields(Some(true), Some(3)).alternatives().expect("valid"), Some(3));
        assert!(fields(None, Some(1)).alternatives().is_err());
    }
}
