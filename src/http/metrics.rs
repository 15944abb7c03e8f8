//! `GET /metrics`
use super::AppState;
use crate::{
    generation::EngineSnapshot,
    telemetry::{EngineFigures, Exposition},
};
use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

/// What the engine and the request counters say, in the format the scraper asks for.
pub(super) async fn scrape(State(app): State<AppState>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let (format, content_type) = match accepted {
        Some(accepted) if accepted.contains("application/openmetrics-text") => {
            (Exposition::OpenMetrics, "application/openmetrics-text; version=1.0.0; charset=utf-8")
        }
        _ => (Exposition::Prometheus, "text/plain; version=0.0.4; charset=utf-8"),
    };
    let figures = with_tiers(&app, figures(app.generator.snapshot(), app.registry.len()));
    let text = app.metrics.expose(&figures, format);
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// With what host memory holds.
fn with_tiers(app: &AppState, figures: EngineFigures) -> EngineFigures {
    let warm = app.registry.warm_usage();
    EngineFigures {
        warm_adapters: warm.versions,
        warm_bytes: warm.bytes,
        adapter_reads: warm.reads,
        warm_evictions: warm.evictions,
        ..figures
    }
}

fn figures(snapshot: EngineSnapshot, adapters: usize) -> EngineFigures {
    EngineFigures {
        running: snapshot.running,
        waiting: snapshot.waiting,
        kv_blocks_used: snapshot.kv_blocks_used,
        kv_blocks: snapshot.kv_blocks,
        block_size: snapshot.block_size,
        kv_bytes: snapshot.kv_bytes,
        steps: snapshot.steps,
        failed_steps: snapshot.failed_steps,
        non_finite_outputs: snapshot.non_finite_outputs,
        preemptions: snapshot.preemptions,
        prompt_tokens: snapshot.prompt_tokens,
        generated_tokens: snapshot.generated_tokens,
        draft_tokens: snapshot.draft_tokens,
        accepted_draft_tokens: snapshot.accepted_draft_tokens,
        prefix_queries: snapshot.prefix_queries,
        prefix_hits: snapshot.prefix_hits,
        resident_adapters: snapshot.resident_adapters,
        waiting_adapters: snapshot.waiting_adapters,
        adapter_slots: snapshot.adapter_slots,
        adapter_slots_used: snapshot.adapter_slots_used,
        adapter_bytes: snapshot.adapter_bytes,
        adapter_loads: snapshot.adapter_loads,
        adapter_prefetches: snapshot.adapter_prefetches,
        failed_adapter_loads: snapshot.failed_adapter_loads,
        adapter_load_seconds: snapshot.adapter_load_time.as_secs_f64(),
        adapter_evictions: snapshot.adapter_evictions,
        adapters,
        ..EngineFigures::default()
    }
}
