//! Sends one request and times its answer.
use super::{
    args::TrafficArgs,
    sample::Sample,
    sse::SseParser,
    target::Target,
    texts::{Endpoint, Texts, tokens},
};
use crate::bench::BenchError;
use futures_util::StreamExt;
use serde_json::Value;
use std::{
    error::Error,
    time::{Duration, Instant},
};

/// Longest part of a server's answer that is shown.
const MAX_MESSAGE: usize = 300;

/// A connection to one server.
pub(super) struct Client {
    http: reqwest::Client,
    pub(super) target: Target,
    /// What is read, where texts are not continued.
    pub(super) texts: Option<Texts>,
}

impl Client {
    /// Connects when the first request is sent.
    pub(super) fn new(target: Target, args: &TrafficArgs) -> Result<Self, BenchError> {
        let timeout = Duration::from_secs(args.timeout);
        let http = reqwest::Client::builder().timeout(timeout).no_proxy().build();
        let http = http.map_err(|error| BenchError::Server {
            url: target.url.clone(),
            detail: format!("no HTTP client: {error}"),
        })?;
        let texts = args.endpoint.reads().then(|| Texts::new(args)).transpose()?;
        Ok(Self { http, target, texts })
    }

    /// Sends one request and reads its stream to the end; `seen` hears of each piece of text.
    pub(super) async fn complete(
        &self,
        route: usize,
        body: &Value,
        clock: Instant,
        mut seen: impl FnMut(usize),
    ) -> Sample {
        let mut sample = Sample { route, sent: clock.elapsed(), ..Sample::default() };
        let answer = self.read(body, clock, &mut sample, &mut seen).await;
        if sample.ended.is_zero() {
            sample.ended = clock.elapsed();
        }
        sample.failure = answer.err();
        sample
    }

    /// Sends texts to be read and waits for the answer.
    pub(super) async fn encode(
        &self,
        endpoint: Endpoint,
        route: usize,
        body: &Value,
        texts: usize,
        clock: Instant,
    ) -> Sample {
        let mut sample = Sample { route, sent: clock.elapsed(), ..Sample::default() };
        let answer = self.answer(endpoint, body).await;
        sample.ended = clock.elapsed();
        match answer.and_then(|answer| tokens(&answer, texts)) {
            Ok(tokens) => sample.usage = tokens.map(|tokens| (tokens, 0)),
            Err(failure) => sample.failure = Some(failure),
        }
        sample
    }

    async fn answer(&self, endpoint: Endpoint, body: &Value) -> Result<Value, String> {
        let response = self.post(endpoint, body).await?;
        let answer = response.bytes().await.map_err(|error| unreachable_or_slow(&error))?;
        serde_json::from_slice(&answer).map_err(|error| format!("the answer is no JSON: {error}"))
    }

    async fn post(&self, endpoint: Endpoint, body: &Value) -> Result<reqwest::Response, String> {
        let mut request =
            self.http.post(format!("{}{}", self.target.url, endpoint.path())).json(body);
        if let Some(key) = &self.target.api_key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.map_err(|error| unreachable_or_slow(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(refusal(status.as_u16(), &response.text().await.unwrap_or_default()))
    }

    async fn read(
        &self,
        body: &Value,
        clock: Instant,
        sample: &mut Sample,
        seen: &mut impl FnMut(usize),
    ) -> Result<(), String> {
        let response = self.post(Endpoint::Completions, body).await?;
        let (mut parser, mut bytes) = (SseParser::default(), response.bytes_stream());
        let mut done = false;
        while let Some(piece) = bytes.next().await {
            let piece = piece.map_err(|error| format!("the stream broke: {}", root(&error)))?;
            let now = clock.elapsed();
            for event in parser.push(&piece) {
                if event == "[DONE]" {
                    (done, sample.ended) = (true, now);
                } else if take(&event, now, sample)? {
                    seen(sample.pieces.len());
                }
            }
        }
        if done { Ok(()) } else { Err("the stream ended before [DONE]".to_owned()) }
    }
}

/// Writes down what an event says; whether it brought text.
fn take(event: &str, now: Duration, sample: &mut Sample) -> Result<bool, String> {
    let event: Value =
        serde_json::from_str(event).map_err(|error| format!("an event is no JSON: {error}"))?;
    if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
        return Err(format!("an error in the stream: {}", message(error)));
    }
    if let Some(usage) = event.get("usage") {
        let count = |name| usage.get(name).and_then(Value::as_u64).map(|count| count as usize);
        sample.usage = count("prompt_tokens").zip(count("completion_tokens")).or(sample.usage);
    }
    let text = event.pointer("/choices/0/text").and_then(Value::as_str).unwrap_or_default();
    if !text.is_empty() {
        sample.pieces.push(now);
    }
    Ok(!text.is_empty())
}

fn unreachable_or_slow(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        "no answer in time; raise --timeout or lower the load".to_owned()
    } else if error.is_builder() {
        format!("no address to send to, try http://HOST:PORT: {}", root(error))
    } else {
        format!("cannot be reached, is the server running? {}", root(error))
    }
}

/// The innermost cause: what the system said.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// One line on an answer that is no stream.
fn refusal(status: u16, body: &str) -> String {
    let said = match serde_json::from_str::<Value>(body) {
        Ok(json) => message(json.get("error").unwrap_or(&json)),
        Err(_) => shorten(body),
    };
    let advice = match status {
        401 | 403 => "; say --api-key",
        400 => "; see --token-ids, --prompt-tokens and --output-tokens",
        404 => "; GET /v1/models lists what --models may name",
        _ => "",
    };
    format!("{status}: {said}{advice}")
}

/// What an error object says.
fn message(error: &Value) -> String {
    let text = error.get("message").or(error.get("detail")).unwrap_or(error);
    shorten(text.as_str().unwrap_or(&text.to_string()))
}

fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(events: &[&str]) -> (Sample, Vec<Result<bool, String>>) {
        let mut sample = Sample::default();
        let taken = events
            .iter()
            .zip(1..)
            .map(|(event, at)| take(event, Duration::from_millis(at), &mut sample));
        let taken = taken.collect();
        (sample, taken)
    }

    #[test]
    fn text_is_timed_and_usage_is_counted() {
        let (sample, taken) = taken(&[
            r#"{"choices": [{"text": "a"}], "usage": null}"#,
            r#"{"choices": [{"text": "", "finish_reason": "length"}]}"#,
            r#"{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}"#,
        ]);
        assert_eq!(taken, [Ok(true), Ok(false), Ok(false)]);
        assert_eq!(sample.pieces, [Duration::from_millis(1)]);
        assert_eq!((sample.usage, sample.output_tokens()), (Some((5, 3)), 3));
    }

    #[test]
    fn an_error_in_the_stream_is_told_in_its_own_words() {
        let (_, taken) = taken(&[r#"{"error": {"message": "the engine\n failed"}}"#, "{"]);
        assert_eq!(taken[0], Err("an error in the stream: the engine failed".to_owned()));
        assert!(taken[1].as_ref().unwrap_err().contains("no JSON"));
    }

    #[test]
    fn a_refusal_is_one_line_that_says_what_to_do() {
        let line = refusal(404, r#"{"error": {"message": "no model `x`"}}"#);
        assert_eq!(line, "404: no model `x`; GET /v1/models lists what --models may name");
        assert_eq!(refusal(500, "<h1>\nbroken</h1>"), "500: <h1> broken</h1>");
        assert_eq!(refusal(422, r#"{"detail": "why"}"#), "422: why");
    }
}
