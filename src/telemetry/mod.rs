//! What the server says about itself: logs, metrics and traces.
//!
//! Knows numbers and label texts. Knows nothing of any other room.
mod adapters;
mod aliases;
mod config;
mod exposition;
mod figures;
mod grammars;
mod log;
mod metrics;
mod recorder;
mod series;
mod steps;
mod traces;

pub use adapters::AdapterCounts;
pub use config::MetricsConfig;
pub use exposition::Exposition;
pub use figures::{EngineFigures, Milestones, Outcome};
pub use log::{LogConfig, LogError, LogFormat};
pub use metrics::{METRICS, MetricInfo, MetricKind};
pub use recorder::Metrics;
pub use steps::StepTokens;
pub use traces::{
    FinishedSpan, TraceAttribute, TraceId, TraceParent, Traces, TracesConfig, TracesError,
    attribute, texts,
};
