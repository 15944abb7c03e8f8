//! `POST /v1/completions`
use super::{
    completion_answer::{CompletionStream, whole},
    fields::{SharedFields, named_adapters},
    refused,
    shown::Shown,
    usage::{Head, UsageSum},
};
use crate::{
    generation::{Completion, Prompt, Token},
    http::{
        ApiError, AppState,
        auth::Caller,
        best,
        fan_out::Answers,
        json::{JsonBody, rendered},
        served,
        split::Asker,
        sse, structured,
    },
};
use axum::{
    Extension,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::Value;

/// vLLM's and OpenAI's.
const DEFAULT_MAX_TOKENS: usize = 16;

/// What only completions have.
#[derive(Debug, Deserialize)]
struct CompletionFields {
    prompt: Option<Value>,
    logprobs: Option<usize>,
    echo: Option<bool>,
    best_of: Option<usize>,
}

impl CompletionFields {
    /// Answers to make of each prompt, of which `n` are shown.
    fn best_of(&self, shared: &SharedFields, most: usize) -> Result<usize, ApiError> {
        let n = shared.answers();
        let best_of = self.best_of.unwrap_or(n);
        if !(n..=most).contains(&best_of) {
            let message = format!("`best_of` must be between `n` ({n}) and {most}, not {best_of}");
            return Err(ApiError::invalid("best_of", message));
        }
        if best_of > n && shared.streams() {
            let message =
                "`best_of` cannot be streamed: which answers are best is known at the end";
            return Err(ApiError::invalid("best_of", message));
        }
        Ok(best_of)
    }
}

pub(in crate::http) async fn completions(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, ApiError> {
    refused::check_completions(&body)?;
    let shared = SharedFields::read(&body, app.config.max_prompts)?;
    let mut fields: CompletionFields = body.read()?;
    let best_of = fields.best_of(&shared, app.config.max_prompts)?;
    let (n, logprobs, echo) = (shared.answers(), fields.logprobs, fields.echo.unwrap_or(false));
    let shown = Shown { logprobs, echo, ..Shown::of(&shared) };
    let prompts = prompts(fields.prompt.take(), shared.add_special_tokens.unwrap_or(true))?;
    check_count(prompts.len(), best_of, app.config.max_prompts)?;

    let constraint = structured::of_openai(&body)?;

    let asker = Asker { caller, headers: &headers, body: &body };
    let chosen = app.choose(asker, ("model", shared.model.as_deref()), named_adapters(&body)?)?;
    let context = app.generator.model().max_context;
    let defaults = app.generator.default_sampling();
    let mut requests = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let mut request = shared.request(prompt, chosen.adapters.clone(), context, defaults)?;
        request.default_max_tokens = Some(DEFAULT_MAX_TOKENS);
        request.n = best_of;
        request.shows_prompt |= echo;
        request.constraint.clone_from(&constraint);
        // Which answer is best shows in its log-probabilities.
        request.sampling.logprobs = logprobs.or((best_of > n).then_some(0));
        if echo && logprobs > request.sampling.prompt_logprobs {
            request.sampling.prompt_logprobs = logprobs;
        }
        requests.push(request);
    }

    let answers = Answers::start(&app, requests, chosen.split).await?;
    let head = Head::new("cmpl", &app, chosen.model, &answers);
    let served = served::header(answers.served());
    if shared.streams() {
        let stream = CompletionStream::new(head, &shared, shown, answers.prompts());
        let stream = sse::respond(answers, stream, app.config.write_timeout());
        return Ok((served, stream).into_response());
    }
    let completions = answers.collect().await?;
    let mut usage = UsageSum::new(best_of);
    for answer in &completions {
        usage.add(answer.index, answer.usage);
    }
    let completions = best::pick(completions, best_of, n);
    let answer =
        rendered(entries(&completions), move || whole(&head, &usage, &completions, shown)).await?;
    Ok((served, answer).into_response())
}

#[cfg(test)]
pub(in crate::http) fn completion_fields() -> Vec<&'static str> {
    use crate::http::json::known_fields;
    [known_fields::<SharedFields>(), known_fields::<CompletionFields>()].concat()
}

/// Tokens and alternatives that a response to these may have to list.
pub(in crate::http) fn entries(answers: &[Completion]) -> usize {
    let entries = |tokens: &[Token]| tokens.iter().map(|token| 1 + token.top.len()).sum::<usize>();
    let of = |answer: &Completion| {
        let prompt = answer.prompt.as_ref().map_or(0, |prompt| entries(&prompt.tokens));
        prompt + entries(&answer.tokens)
    };
    answers.iter().map(of).sum()
}

fn check_count(prompts: usize, answers: usize, most: usize) -> Result<(), ApiError> {
    if prompts.saturating_mul(answers) <= most {
        return Ok(());
    }
    let message = format!(
        "{prompts} prompts with {answers} answers each are more than the limit of {most} answers a \
         request; send several requests"
    );
    Err(ApiError::invalid("prompt", message))
}

/// A text, a list of texts, a list of token ids, or a list of such lists.
fn prompts(prompt: Option<Value>, add_special_tokens: bool) -> Result<Vec<Prompt>, ApiError> {
    let text = |text: String| Prompt::Text { text, add_special_tokens };
    match prompt {
        None => Err(ApiError::malformed("prompt", "`prompt` is missing")),
        Some(Value::String(prompt)) => Ok(vec![text(prompt)]),
        Some(Value::Array(items)) if items.is_empty() => {
            Err(ApiError::invalid("prompt", "`prompt` must not be an empty list"))
        }
        Some(Value::Array(items)) if items[0].is_number() => {
            Ok(vec![Prompt::Tokens(token_ids(&items, "prompt")?)])
        }
        Some(Value::Array(items)) => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| match item {
                Value::String(prompt) => Ok(text(prompt)),
                Value::Array(ids) => {
                    Ok(Prompt::Tokens(token_ids(&ids, &format!("prompt[{index}]"))?))
                }
                _ => Err(wrong_prompt(&format!("prompt[{index}]"))),
            })
            .collect(),
        Some(_) => Err(wrong_prompt("prompt")),
    }
}

fn token_ids(items: &[Value], path: &str) -> Result<Vec<u32>, ApiError> {
    if items.is_empty() {
        return Err(ApiError::invalid(path, format!("`{path}` has no tokens")));
    }
    let id = |item: &Value| item.as_u64().and_then(|id| u32::try_from(id).ok());
    items
        .iter()
        .enumerate()
        .map(|(index, item)| id(item).ok_or_else(|| wrong_prompt(&format!("{path}[{index}]"))))
        .collect()
}

fn wrong_prompt(path: &str) -> ApiError {
    let message = format!(
        "`{path}`: a prompt is a string, a list of strings, a list of token ids or a list of such lists"
    );
    ApiError::malformed(path, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shape(prompt: Value) -> Vec<String> {
        let described = |prompt: &Prompt| match prompt {
            Prompt::Text { text, add_special_tokens: true } => format!("text {text}"),
            Prompt::Tokens(ids) => format!("tokens {ids:?}"),
            other => format!("{other:?}"),
        };
        prompts(Some(prompt), true).expect("prompts").iter().map(described).collect()
    }

    #[test]
    fn a_prompt_has_four_forms() {
        assert_eq!(shape(json!("a")), ["text a"]);
        assert_eq!(shape(json!(["a", "b"])), ["text a", "text b"]);
        assert_eq!(shape(json!([1, 2])), ["tokens [1, 2]"]);
        assert_eq!(shape(json!([[1], [2, 3]])), ["tokens [1]", "tokens [2, 3]"]);
        assert_eq!(shape(json!("")), ["text "]);
    }

    #[test]
    fn a_wrong_prompt_is_named_by_its_path() {
        for (prompt, path) in [
            (json!([]), "prompt"),
            (json!([[]]), "prompt[0]"),
            (json!([1, -1]), "prompt[1]"),
            (json!([1, 1.5]), "prompt[1]"),
            (json!([[1], [2, "a"]]), "prompt[1][1]"),
            (json!(["a", 1]), "prompt[1]"),
            (json!([4_294_967_296_u64]), "prompt[0]"),
            (json!({"a": 1}), "prompt"),
            (json!(1), "prompt"),
        ] {
            let error = prompts(Some(prompt.clone()), true).expect_err("refused").openai();
            assert_eq!(error["error"]["param"], path, "{prompt}");
        }
        assert!(prompts(None, true).is_err());
    }

    #[test]
    fn prompts_times_answers_are_limited() {
        assert!(check_count(64, 2, 128).is_ok());
        assert!(check_count(65, 2, 128).is_err());
        assert!(check_count(usize::MAX, 2, 128).is_err());
    }
}
