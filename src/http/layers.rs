//! What every request passes on its way to a handler.
use super::{
    ApiError, AppState,
    connections::seated,
    error::in_form_of,
    orca, request_id,
    router::{dialect, is_told_of},
};
use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, Response as HttpResponse, StatusCode, Version, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use std::{
    any::Any,
    time::{Duration, Instant},
};
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer, sensitive_headers::SetSensitiveRequestHeadersLayer,
    timeout::RequestBodyTimeoutLayer, trace::TraceLayer,
};
use tracing::{Span, field::Empty};

/// Asked every few seconds by machines: successes are worth no line of the log.
const PROBES: [&str; 6] = ["/health", "/livez", "/ping", "/v1/health", "/load", "/metrics"];

/// Marks an answer that is worth no line, or has had a better one.
#[derive(Clone, Copy)]
struct Quiet;

/// Wraps all routes; the first layer is the first to see a request.
///
/// They are one stack: as many calls of [`Router::layer`] would each put the ones within in a box, and a request copies
/// all boxes within at each of them.
pub(super) fn wrap(routes: Router<AppState>, app: &AppState) -> Router<AppState> {
    let trace = TraceLayer::new_for_http()
        .make_span_with(span)
        .on_request(())
        .on_response(log_response)
        .on_body_chunk(())
        .on_eos(())
        .on_failure(());
    let layers = ServiceBuilder::new()
        .layer(from_fn(seated))
        .layer(from_fn_with_state(app.clone(), say_good_bye))
        .layer(SetSensitiveRequestHeadersLayer::new([header::AUTHORIZATION]))
        .layer(from_fn(request_id::settle))
        .layer(trace)
        .layer(from_fn_with_state(app.clone(), measure))
        .layer(from_fn_with_state(app.clone(), orca::report))
        .layer(from_fn(in_dialect))
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(from_fn_with_state(app.clone(), deadline))
        .layer(RequestBodyTimeoutLayer::new(app.config.read_timeout()));
    routes.layer(layers)
}

fn span(request: &Request<Body>) -> Span {
    let id = request_id::of(request.headers());
    let (method, route) = (method(request.method()), route(request));
    tracing::info_span!("request", %method, route, id, adapter = Empty, status = Empty)
}

fn log_response(response: &HttpResponse<Body>, latency: Duration, span: &Span) {
    let status = response.status().as_u16();
    span.record("status", status);
    let latency_ms = latency.as_secs_f64() * 1e3;
    if response.extensions().get::<Quiet>().is_some() {
        tracing::debug!(status, latency_ms, "answered");
    } else {
        tracing::info!(status, latency_ms, "answered");
    }
}

/// Whatever fails behind this layer, however deep, fails in the words of its route's dialect.
async fn in_dialect(request: Request, next: Next) -> Response {
    let dialect = dialect(route(&request));
    in_form_of(dialect, next.run(request).await)
}

/// While the server drains, no connection is good for another request; nor is one on which the rest of a body lies that
/// nobody will read. Told so, a client does not send its next request into a connection that closes.
async fn say_good_bye(State(app): State<AppState>, request: Request, next: Next) -> Response {
    // HTTP/2 has a frame for that, and forbids the header.
    let has_header = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    let is_cut = [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::REQUEST_TIMEOUT];
    if has_header && (app.drain.has_begun() || is_cut.contains(&response.status())) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Counts every response by its route.
async fn measure(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let (method, route) = (method(request.method()), route(&request).to_owned());
    let begun = Instant::now();
    let mut response = next.run(request).await;
    app.metrics.responded(&route, method, response.status().as_u16(), begun.elapsed());
    if let Some(error) = response.extensions().get::<ApiError>().filter(|error| error.is_refusal())
    {
        app.metrics.refused(error.reason());
    }
    let is_probe = PROBES.contains(&route.as_str()) && response.status().is_success();
    if is_probe || is_told_of(method, &route) {
        response.extensions_mut().insert(Quiet);
    }
    response
}

/// The time until the head of a response. Dropping the handler cancels what it started.
async fn deadline(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let limit = app.config.request_timeout();
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::too_slow(limit.as_secs()).into_response(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the layer hands the cause over")]
fn answer_panic(cause: Box<dyn Any + Send + 'static>) -> Response {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    let cause = text.or_else(|| cause.downcast_ref::<&str>().copied());
    tracing::error!(cause, "a handler panicked");
    ApiError::internal("panicked").into_response()
}

/// The pattern that matched: paths are the clients', and there is no end to them.
fn route(request: &Request<Body>) -> &str {
    request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str)
}

/// A method is any token a client likes to send; metrics keep to those that routes have.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}
