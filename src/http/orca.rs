//! ORCA: the server's load in the head of an answer, for load balancers that ask for it.
use super::AppState;
use crate::generation::EngineSnapshot;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use serde_json::json;

const ASKED: HeaderName = HeaderName::from_static("endpoint-load-metrics-format");
const REPORT: HeaderName = HeaderName::from_static("endpoint-load-metrics");

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Format {
    Text,
    Json,
}

/// Adds the report when the request asks for one.
pub(super) async fn report(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let format = asked(request.headers());
    let mut response = next.run(request).await;
    if let Some(format) = format
        && let Ok(report) = HeaderValue::try_from(written(&app.generator.snapshot(), format))
    {
        response.headers_mut().insert(REPORT, report);
    }
    response
}

fn asked(headers: &HeaderMap) -> Option<Format> {
    let format = headers.get(&ASKED)?.to_str().ok()?;
    match format {
        _ if format.eq_ignore_ascii_case("text") => Some(Format::Text),
        _ if format.eq_ignore_ascii_case("json") => Some(Format::Json),
        _ => None,
    }
}

/// The names that vLLM sends, and the one that gateways look for.
fn written(now: &EngineSnapshot, format: Format) -> String {
    let usage = now.kv_blocks_used as f64 / now.kv_blocks.max(1) as f64;
    let named = [
        ("kv_cache_usage_perc", usage),
        ("kv_cache_utilization", usage),
        ("num_requests_running", now.running as f64),
        ("num_requests_waiting", now.waiting as f64),
    ];
    match format {
        Format::Text => {
            let each = named.map(|(name, value)| format!("named_metrics.{name}={value}"));
            format!("TEXT {}", each.join(", "))
        }
        Format::Json => {
            let named: serde_json::Map<_, _> =
                named.map(|(name, value)| (name.to_owned(), json!(value))).into_iter().collect();
            format!("JSON {}", json!({"named_metrics": named}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_written_as_it_is_asked_for() {
        let now = EngineSnapshot {
            running: 3,
            waiting: 1,
            kv_blocks: 8,
            kv_blocks_used: 2,
            ..EngineSnapshot::default()
        };
        assert_eq!(
            written(&now, Format::Text),
            "TEXT named_metrics.kv_cache_usage_perc=0.25, named_metrics.kv_cache_utilization=0.25, \
             named_metrics.num_requests_running=3, named_metrics.num_requests_waiting=1"
        );
        let json = written(&now, Format::Json);
        let json: serde_json::Value =
            serde_json::from_str(json.strip_prefix("JSON ").expect("its mark")).expect("JSON");
        assert_eq!(json["named_metrics"]["kv_cache_utilization"], 0.25);
        let asks = |value: &'static str| {
            asked(&HeaderMap::from_iter([(ASKED, HeaderValue::from_static(value))]))
        };
        assert_eq!((asks("TEXT"), asks("json")), (Some(Format::Text), Some(Format::Json)));
        assert_eq!((asks("BIN"), asked(&HeaderMap::new())), (None, None));
    }
}
