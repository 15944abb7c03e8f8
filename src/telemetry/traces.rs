//! OpenTelemetry: finished spans, sent to a collector over OTLP where one is configured.
use opentelemetry::{
    Array, Context, KeyValue, StringValue, Value,
    propagation::{Extractor, TextMapPropagator},
    trace::{
        Span as _, SpanContext, SpanKind, Status, TraceContextExt, Tracer, TracerProvider as _,
    },
};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter},
};
use reqwest::{blocking::Client, redirect::Policy};
use std::{
    env,
    error::Error,
    fmt,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

/// How often it is said that spans are lost.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);
/// How long the end of the process waits for the last spans.
const LAST_SPANS: Duration = Duration::from_secs(5);
/// How long a collector may take for a batch.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// The one that is spoken.
const HTTP_PROTOCOL: &str = "http/protobuf";
/// OTLP's own path.
const PATH: &str = "/v1/traces";

/// Where traces go. Without an endpoint, here or in OpenTelemetry's own variables, there are none.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TracesConfig {
    /// OpenTelemetry collector that takes OTLP over HTTP, such as `http://collector:4318` [default: what
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` says, or no traces]
    #[arg(
        long,
        env = "LORAD_OTLP_ENDPOINT",
        value_name = "URL",
        visible_alias = "otlp-traces-endpoint"
    )]
    pub otlp_endpoint: Option<String>,

    /// Name of this service in traces [default: what `OTEL_SERVICE_NAME` says, or lorad]
    #[arg(long, env = "LORAD_OTLP_SERVICE_NAME", value_name = "NAME")]
    pub otlp_service_name: Option<String>,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("--otlp-endpoint, or a variable of OpenTelemetry's: {0}")]
pub struct TracesError(String);

/// The way out for spans; nothing waits for it. Clones are handles to one. The default leads nowhere.
#[derive(Clone, Default)]
pub struct Traces(Option<(SdkTracerProvider, SdkTracer)>);

/// The trace that a request belongs to, as its `traceparent` and `tracestate` say.
#[derive(Clone, Debug, Default)]
pub struct TraceParent(Context);

/// The id of a trace, 32 hexadecimal digits.
pub type TraceId = String;

/// One fact of a span.
pub type TraceAttribute = KeyValue;

/// A text, a number, or a truth under its name.
pub fn attribute(name: &'static str, value: impl Into<Value>) -> TraceAttribute {
    KeyValue::new(name, value)
}

/// Several texts under one name.
pub fn texts(name: &'static str, values: impl IntoIterator<Item = &'static str>) -> TraceAttribute {
    let values: Vec<StringValue> = values.into_iter().map(StringValue::from).collect();
    KeyValue::new(name, Value::Array(Array::String(values)))
}

/// Something that is over.
#[derive(Debug)]
pub struct FinishedSpan {
    /// Low in variety: a route, or an operation with its model.
    pub name: String,
    /// Whether it is a request that came from outside.
    pub is_server: bool,
    /// When it began.
    pub begun: SystemTime,
    /// When it was over.
    pub ended: SystemTime,
    /// What is known of it.
    pub attributes: Vec<KeyValue>,
    /// Whether it failed, and with which code.
    pub error: Option<String>,
}

impl TracesConfig {
    fn endpoint(&self) -> Option<String> {
        let endpoint =
            self.otlp_endpoint.as_deref().map(str::trim).filter(|url| !url.is_empty())?;
        let host = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
        match host.split_once('/') {
            None => Some(format!("{endpoint}{PATH}")),
            Some((_, "")) => Some(format!("{}{PATH}", endpoint.trim_end_matches('/'))),
            Some(_) => Some(endpoint.to_owned()),
        }
    }

    /// OpenTelemetry's own variables count as everywhere.
    fn is_on(&self) -> bool {
        let is = |name: &str, value: &str| {
            env::var(name).is_ok_and(|is| is.trim().eq_ignore_ascii_case(value))
        };
        let has = |name: &str| env::var(name).is_ok_and(|value| !value.trim().is_empty());
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return false;
        }
        self.endpoint().is_some()
            || has("OTEL_EXPORTER_OTLP_ENDPOINT")
            || has("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    }

    /// Whether no TLS is spoken with the collector.
    fn is_plain(&self) -> bool {
        let variables = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let named = variables.into_iter().filter_map(|name| env::var(name).ok());
        let endpoint = self.endpoint().or_else(|| named.into_iter().find(|url| !url.is_empty()));
        endpoint.is_some_and(|url| url.trim().to_ascii_lowercase().starts_with("http://"))
    }

    fn resource(&self) -> Resource {
        let is_named = env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
            || env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name="));
        let resource = Resource::builder()
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        match &self.otlp_service_name {
            Some(name) => resource.with_service_name(name.clone()).build(),
            None if is_named => resource.build(),
            None => resource.with_service_name("lorad").build(),
        }
    }
}

impl Traces {
    /// Begins to send, if there is a collector. Whether it answers is seen later.
    ///
    /// # Errors
    /// For an address or a variable that cannot be used.
    pub fn start(config: &TracesConfig) -> Result<Self, TracesError> {
        if !config.is_on() {
            return Ok(Self::default());
        }
        if let Ok(protocol) = env::var("OTEL_EXPORTER_OTLP_PROTOCOL")
            && !protocol.is_empty()
            && protocol != HTTP_PROTOCOL
        {
            tracing::warn!(protocol, "traces go out as {HTTP_PROTOCOL} whatever the variable says");
        }
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary);
        let exporter = match config.endpoint() {
            Some(endpoint) => exporter.with_endpoint(endpoint),
            None => exporter,
        };
        let exporter =
            if config.is_plain() { exporter.with_http_client(plain_client()?) } else { exporter };
        let exporter = exporter.build().map_err(|error| TracesError(root(&error)))?;
        Ok(Self::through(exporter, config.resource()))
    }

    fn through(exporter: impl SpanExporter + 'static, resource: Resource) -> Self {
        let exporter = Complaining { inner: exporter, losses: Mutex::default() };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("lorad");
        Self(Some((provider, tracer)))
    }

    /// Hands over a span, and another one that was part of it. The id of their trace; without a collector that of the
    /// request, if it came with one.
    pub fn record(
        &self,
        parent: &TraceParent,
        span: FinishedSpan,
        inner: Option<FinishedSpan>,
    ) -> Option<TraceId> {
        let Some((_, tracer)) = &self.0 else { return parent.trace_id() };
        let context = built(tracer, span, &parent.0);
        if let Some(inner) = inner {
            built(tracer, inner, &Context::new().with_remote_span_context(context.clone()));
        }
        shown(&context)
    }

    /// Sends what is left. Blocks, but not for long.
    pub fn finish(&self) {
        if let Some((provider, _)) = &self.0
            && let Err(error) = provider.shutdown_with_timeout(LAST_SPANS)
        {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Traces({})", if self.0.is_some() { "on" } else { "off" })
    }
}

/// A client without TLS: building one with it fails where the system has no authorities, as in small images.
fn plain_client() -> Result<Client, TracesError> {
    let build = || {
        let client = Client::builder().redirect(Policy::none()).timeout(SEND_TIMEOUT);
        client.tls_danger_accept_invalid_certs(true).build()
    };
    // A blocking client may not be built on an async thread.
    match thread::spawn(build).join() {
        Ok(built) => built.map_err(|error| TracesError(root(&error))),
        Err(_) => Err(TracesError("the client cannot be built".into())),
    }
}

/// The innermost cause: what the system said.
fn root(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn built(tracer: &SdkTracer, span: FinishedSpan, parent: &Context) -> SpanContext {
    let kind = if span.is_server { SpanKind::Server } else { SpanKind::Internal };
    let builder = tracer
        .span_builder(span.name)
        .with_kind(kind)
        .with_start_time(span.begun)
        .with_attributes(span.attributes);
    let mut built = tracer.build_with_context(builder, parent);
    if let Some(error) = span.error {
        built.set_status(Status::error(error));
    }
    let context = built.span_context().clone();
    built.end_with_timestamp(span.ended);
    context
}

fn shown(context: &SpanContext) -> Option<TraceId> {
    context.is_valid().then(|| context.trace_id().to_string())
}

impl TraceParent {
    /// What the two headers of W3C's trace context say; anything else is no trace.
    pub fn read(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let headers = Headers { traceparent, tracestate };
        Self(TraceContextPropagator::new().extract_with_context(&Context::new(), &headers))
    }

    /// The id of the trace, if there is one.
    pub fn trace_id(&self) -> Option<TraceId> {
        shown(self.0.span().span_context())
    }
}

struct Headers<'a> {
    traceparent: Option<&'a str>,
    tracestate: Option<&'a str>,
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.traceparent,
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// Says that spans are lost, and not for every batch of them.
#[derive(Debug)]
struct Complaining<E> {
    inner: E,
    losses: Mutex<Losses>,
}

#[derive(Debug, Default)]
struct Losses {
    spans: usize,
    said: Option<Instant>,
}

impl Losses {
    /// How many to complain about now, if any.
    fn add(&mut self, spans: usize, now: Instant) -> Option<usize> {
        self.spans += spans;
        if self.said.is_some_and(|said| now.duration_since(said) < COMPLAIN_EVERY) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.spans))
    }
}

impl<E: SpanExporter> SpanExporter for Complaining<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.inner.export(batch).await;
        if let Err(error) = &exported {
            let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(spans) = losses.add(spans, Instant::now()) {
                tracing::warn!(spans, %error, "traces could not be sent");
            }
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[derive(Clone, Debug, Default)]
    struct Collected(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Collected {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().expect("no panic").extend(batch);
            Ok(())
        }
    }

    fn span(name: &str, is_server: bool) -> FinishedSpan {
        let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
        FinishedSpan {
            name: name.into(),
            is_server,
            begun,
            ended: begun + Duration::from_secs(1),
            attributes: vec![KeyValue::new("a", 1)],
            error: None,
        }
    }

    #[test]
    fn a_span_belongs_to_the_trace_that_the_request_came_with() {
        let collected = Collected::default();
        let traces = Traces::through(collected.clone(), Resource::builder_empty().build());
        let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
        let parent = TraceParent::read(Some(&parent), Some("vendor=1"));
        let inner = FinishedSpan { error: Some("bad".into()), ..span("inner", false) };
        let id = traces.record(&parent, span("outer", true), Some(inner));
        assert_eq!(id.as_deref(), Some(TRACE));
        traces.finish();
        let spans = collected.0.lock().expect("no panic");
        let named = |name: &str| spans.iter().find(|span| span.name == name).expect("a span");
        let (outer, inner) = (named("outer"), named("inner"));
        assert_eq!(outer.parent_span_id.to_string(), "b7ad6b7169203331");
        assert_eq!(outer.span_context.trace_state().get("vendor"), Some("1"));
        assert_eq!(inner.parent_span_id, outer.span_context.span_id());
        assert_eq!(inner.span_context.trace_id().to_string(), TRACE);
        assert_eq!((&outer.span_kind, &inner.span_kind), (&SpanKind::Server, &SpanKind::Internal));
        assert_eq!(inner.status, Status::error("bad"));
        assert_eq!(outer.end_time.duration_since(outer.start_time).expect("later").as_secs(), 1);
    }

    #[test]
    fn what_is_no_traceparent_is_no_trace() {
        let read = |text: &str| TraceParent::read(Some(text), None).trace_id();
        assert_eq!(read(&format!("00-{TRACE}-b7ad6b7169203331-00")).as_deref(), Some(TRACE));
        for text in [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7-b7ad-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "x-y-z-1",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(TraceParent::read(None, Some("a=b")).trace_id(), None);
        let off = Traces::default().record(&TraceParent::default(), span("a", true), None);
        assert_eq!(off, None);
    }

    #[test]
    fn an_address_without_a_path_gets_otlps() {
        let endpoint = |url: &str| {
            TracesConfig { otlp_endpoint: Some(url.into()), otlp_service_name: None }.endpoint()
        };
        let whole = Some("http://c:4318/v1/traces".to_owned());
        assert_eq!(endpoint("http://c:4318"), whole);
        assert_eq!(endpoint("http://c:4318/"), whole);
        assert_eq!(endpoint("http://c:4318/v1/traces"), whole);
        assert_eq!(endpoint("http://c/other"), Some("http://c/other".into()));
        assert_eq!(endpoint(" "), None);
    }

    #[test]
    fn lost_spans_are_counted_and_told_once_a_minute() {
        let (mut losses, now) = (Losses::default(), Instant::now());
        assert_eq!(losses.add(3, now), Some(3));
        assert_eq!(losses.add(4, now + COMPLAIN_EVERY / 2), None);
        assert_eq!(losses.add(5, now + COMPLAIN_EVERY), Some(9));
    }
}
