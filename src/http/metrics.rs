//! `GET /metrics`
use super::AppState;
use crate::{
    generation::EngineSnapshot,
    telemetry::{EngineFigures, Exposition, StepTokens},
};
use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

/// What the engine and the request counters say, in the format the scraper asks for.
pub(super) async fn scrape(State(app): State<AppState>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = preferred(accepted.unwrap_or_default());
    let content_type = match format {
        Exposition::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        Exposition::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
    };
    let figures = with_tiers(&app, figures(app.generator.snapshot(), app.registry.len()));
    let text = app.metrics.expose(&figures, format);
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// `OpenMetrics` for whoever would rather have it; plain text is what everybody reads.
fn preferred(accepted: &str) -> Exposition {
    let quality = |wanted: &str| {
        accepted.split(',').find_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().filter(|kind| kind.eq_ignore_ascii_case(wanted))?;
            Some(parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0_f32))
        })
    };
    let open = quality("application/openmetrics-text").unwrap_or(0.0);
    if open > 0.0 && open >= quality("text/plain").unwrap_or(0.0) {
        Exposition::OpenMetrics
    } else {
        Exposition::Prometheus
    }
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
        waiting_for_adapters: snapshot.waiting_for_adapters,
        kv_blocks_used: snapshot.kv_blocks_used,
        kv_blocks: snapshot.kv_blocks,
        block_size: snapshot.block_size,
        kv_bytes: snapshot.kv_bytes,
        steps: snapshot.steps,
        step_tokens: StepTokens { counts: snapshot.step_sizes, sum: snapshot.step_tokens },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_the_format_that_it_likes_best() {
        for accepted in [
            "application/openmetrics-text; version=1.0.0",
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "text/plain;q=0.5, application/openmetrics-text",
        ] {
            assert_eq!(preferred(accepted), Exposition::OpenMetrics, "{accepted}");
        }
        for accepted in [
            "",
            "*/*",
            "text/plain",
            "application/json",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.1,text/plain;version=0.0.4",
        ] {
            assert_eq!(preferred(accepted), Exposition::Prometheus, "{accepted}");
        }
    }
}
