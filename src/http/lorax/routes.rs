//! The routes of this dialect.
use super::{
    answer::{LoraxStream, whole},
    headers::{self, Times},
    parameters::{LoraxRequest, Streams},
};
use crate::http::{
    ApiError, AppState,
    auth::Caller,
    best,
    fan_out::Answers,
    json::{JsonBody, rendered},
    openai::entries,
    served,
    split::Asker,
    sse,
};
use axum::{
    Extension, Json,
    extract::State,
    http::HeaderMap,
    response::{AppendHeaders, IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Instant;

/// `POST /generate`
pub(in crate::http) async fn generate(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let asker = Asker { caller, headers: &headers, body: &body };
    let request = LoraxRequest::read(&body, Streams::Never, app.config.max_prompts)?;
    answered(&app, asker, request, |answer| answer).await
}

/// `POST /generate_stream`
pub(in crate::http) async fn generate_stream(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let asker = Asker { caller, headers: &headers, body: &body };
    let request = LoraxRequest::read(&body, Streams::Always, app.config.max_prompts)?;
    streamed(&app, asker, request).await
}

/// `POST /`: `stream` decides, and an answer that is not streamed comes in a list.
pub(in crate::http) async fn compat(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let asker = Asker { caller, headers: &headers, body: &body };
    let request = LoraxRequest::read(&body, Streams::AsAsked, app.config.max_prompts)?;
    if request.stream {
        return streamed(&app, asker, request).await;
    }
    answered(&app, asker, request, |answer| json!([answer])).await
}

async fn answered(
    app: &AppState,
    asker: Asker<'_>,
    request: LoraxRequest,
    form: impl FnOnce(Value) -> Value + Send + 'static,
) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let mut shown = request.shown.clone();
    let (known, answers) = started(app, asker, request).await?;
    let validation = begun.elapsed();
    shown.served = answers.served().to_vec();
    let mut completions = answers.collect().await?;
    best::sort(&mut completions);
    let answer = completions.first().ok_or_else(|| ApiError::internal("no_answer"))?;
    let times = Times { total: begun.elapsed(), validation };
    let measured = AppendHeaders(headers::measured(answer.usage, times));
    let written = rendered(entries(&completions), move || match completions.split_first() {
        Some((answer, others)) => form(whole(answer, others, &shown)),
        None => Value::Null,
    });
    Ok((known, measured, written.await?).into_response())
}

async fn streamed(
    app: &AppState,
    asker: Asker<'_>,
    request: LoraxRequest,
) -> Result<Response, ApiError> {
    let mut shown = request.shown.clone();
    let (known, answers) = started(app, asker, request).await?;
    shown.served = answers.served().to_vec();
    let stream = LoraxStream::new(shown);
    Ok((known, sse::respond(answers, stream, app.config.write_timeout())).into_response())
}

/// The running answer, and the headers that are known by now.
async fn started(
    app: &AppState,
    asker: Asker<'_>,
    asked: LoraxRequest,
) -> Result<(HeaderMap, Answers), ApiError> {
    let mut request = asked.request;
    let adapter_id = ("parameters.adapter_id", asked.adapter.as_deref());
    let chosen = app.choose(asker, adapter_id, asked.named)?;
    request.adapters = chosen.adapters;
    let model = app.generator.model();
    let source = asked.source.as_deref();
    let mut known = headers::known(model, &request.adapters, source, asked.characters);
    let answers = Answers::start(app, vec![request], chosen.split).await?;
    known.extend(served::header(answers.served()));
    Ok((known, answers))
}

#[derive(Debug, Deserialize)]
struct TokenizeFields {
    inputs: String,
    add_special_tokens: Option<bool>,
}

/// `POST /tokenize` with `inputs`. Offsets count characters of the tokens' own texts, or of the text itself where the model
/// only reads: its tokens may leave blanks out.
pub(in crate::http) async fn tokenize(
    app: &AppState,
    body: &JsonBody,
) -> Result<Json<Value>, ApiError> {
    let fields: TokenizeFields = body.read()?;
    let special = fields.add_special_tokens.unwrap_or(true);
    if !app.generator.model().abilities.generates {
        let placed = app.generator.places(fields.inputs, special).await?;
        let described = placed.into_iter().map(|token| {
            let (start, stop) = token.characters.map_or((0, 0), |at| (at.start, at.end));
            json!({"id": token.id, "text": token.text, "start": start, "stop": stop})
        });
        return Ok(Json(described.collect()));
    }
    let tokens = app.generator.tokenize(fields.inputs, special).await?;
    let mut start = 0;
    let described = tokens.iter().map(|token| {
        let length = if token.special { 0 } else { token.text.chars().count() };
        let stop = start + length;
        let described = json!({"id": token.id, "text": token.text, "start": start, "stop": stop});
        start = stop;
        described
    });
    Ok(Json(described.collect()))
}
