//! What traces show of a request: OpenTelemetry's names for HTTP and for generative models.
use super::{AppState, access::Record};
use crate::telemetry::{FinishedSpan, TraceAttribute, TraceId, TraceParent, attribute, texts};
use axum::{
    extract::{MatchedPath, Request, State},
    http::HeaderMap,
    middleware::Next,
    response::Response,
};
use std::time::SystemTime;

/// What a request to the model is called there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Operation {
    /// A conversation is continued.
    Chat,
    /// A text is.
    Completion,
    /// Texts become vectors.
    Embeddings,
    /// Texts get labels.
    Classify,
    /// Pairs of texts are scored.
    Score,
    /// Texts are put in order.
    Rerank,
}

impl Operation {
    /// That of a route.
    pub(super) fn of(route: &str) -> Self {
        match route {
            "/v1/chat/completions" => Self::Chat,
            "/v1/embeddings" | "/embed" | "/embed_all" => Self::Embeddings,
            "/classify" | "/classify_batch" | "/predict" => Self::Classify,
            "/score" | "/v1/score" | "/similarity" => Self::Score,
            "/rerank" | "/v1/rerank" | "/v2/rerank" => Self::Rerank,
            _ => Self::Completion,
        }
    }

    /// Its name; OpenTelemetry's where it has one.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completion => "text_completion",
            Self::Embeddings => "embeddings",
            Self::Classify => "classify",
            Self::Score => "score",
            Self::Rerank => "rerank",
        }
    }

    /// Whether the model says something.
    pub(super) fn generates(self) -> bool {
        matches!(self, Self::Chat | Self::Completion)
    }
}

/// The layer of guarded routes that do not generate: a span of the request itself.
pub(super) async fn trace(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let parent = parent(request.headers());
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none", MatchedPath::as_str).to_owned();
    let (method, begun) = (request.method().to_string(), SystemTime::now());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    app.traces.record(&parent, server_span(&method, &route, status, begun), None);
    response
}

/// The trace that a request came with.
pub(super) fn parent(headers: &HeaderMap) -> TraceParent {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    TraceParent::read(text("traceparent"), text("tracestate"))
}

/// The spans of a generation that is over; the id of their trace.
pub(super) fn record(app: &AppState, record: &Record) -> Option<TraceId> {
    let server = server_span("POST", &record.route, record.status, record.began);
    let ended = server.ended;
    let operation = record.operation.name();
    let model = record.model.as_deref().unwrap_or(&app.generator.model().name);
    let error = record.error.clone();
    let inner = FinishedSpan {
        name: format!("{operation} {model}"),
        is_server: false,
        begun: record.began,
        ended,
        attributes: attributes(record, operation, model),
        error,
    };
    app.traces.record(&record.parent, server, Some(inner))
}

fn server_span(method: &str, route: &str, status: u16, begun: SystemTime) -> FinishedSpan {
    FinishedSpan {
        name: format!("{method} {route}"),
        is_server: true,
        begun,
        ended: SystemTime::now(),
        attributes: vec![
            attribute("http.request.method", method.to_owned()),
            attribute("http.route", route.to_owned()),
            attribute("http.response.status_code", i64::from(status)),
        ],
        error: (status >= 500).then(|| status.to_string()),
    }
}

fn attributes(record: &Record, operation: &'static str, model: &str) -> Vec<TraceAttribute> {
    let number = |name, value: usize| attribute(name, value as i64);
    let (adapter, version) = record.served();
    let mut all = vec![
        attribute("gen_ai.operation.name", operation),
        attribute("gen_ai.provider.name", "lorad"),
        attribute("gen_ai.request.model", model.to_owned()),
        attribute("gen_ai.response.model", model.to_owned()),
        attribute("gen_ai.request.stream", record.is_stream),
        texts("gen_ai.response.finish_reasons", record.reasons.iter().copied()),
        attribute("lorad.request.id", record.request_id.clone()),
        number("gen_ai.usage.input_tokens", record.prompt_tokens),
        number("gen_ai.usage.output_tokens", record.completion_tokens),
        number("gen_ai.usage.cache_read.input_tokens", record.cached_tokens),
    ];
    if let Some(asked) = &record.asked {
        all.extend([
            number("gen_ai.request.choice.count", asked.answers),
            attribute("gen_ai.request.temperature", f64::from(asked.temperature)),
            attribute("gen_ai.request.top_p", f64::from(asked.top_p)),
            number("gen_ai.request.top_k", asked.top_k),
            attribute("gen_ai.request.presence_penalty", f64::from(asked.presence_penalty)),
            attribute("gen_ai.request.frequency_penalty", f64::from(asked.frequency_penalty)),
        ]);
        all.extend(asked.max_tokens.map(|most| number("gen_ai.request.max_tokens", most)));
        all.extend(asked.seed.map(|seed| attribute("gen_ai.request.seed", seed as i64)));
    }
    let optional = [
        ("error.type", record.error.clone()),
        ("lorad.adapter.name", adapter),
        ("lorad.adapter.version", version),
    ];
    all.extend(optional.into_iter().filter_map(|(name, text)| Some(attribute(name, text?))));
    let times = [
        ("gen_ai.response.time_to_first_chunk", record.first_token),
        ("lorad.queue.duration", record.queued),
    ];
    let seconds = times.into_iter().filter_map(|(name, time)| Some((name, time?.as_secs_f64())));
    all.extend(seconds.map(|(name, seconds)| attribute(name, seconds)));
    all
}
