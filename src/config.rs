//! Every setting of `lorad serve`: each room's own, side by side, and what holds between them.
use crate::{
    adapter::AdapterConfig,
    engine::EngineConfig,
    http::HttpConfig,
    kernel::KernelConfig,
    model::ModelConfig,
    telemetry::{LogConfig, MetricsConfig},
};

/// Flags and `LORAD_*` variables of `lorad serve`; a flag wins over its variable.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeConfig {
    /// The base model.
    #[command(flatten, next_help_heading = "Base model")]
    pub model: ModelConfig,
    /// The device.
    #[command(flatten, next_help_heading = "Device")]
    pub kernel: KernelConfig,
    /// The adapters.
    #[command(flatten, next_help_heading = "Adapters")]
    pub adapter: AdapterConfig,
    /// The batch and the KV cache.
    #[command(flatten, next_help_heading = "Batching and memory")]
    pub engine: EngineConfig,
    /// The listener.
    #[command(flatten, next_help_heading = "HTTP")]
    pub http: HttpConfig,
    /// The metrics.
    #[command(flatten, next_help_heading = "Metrics")]
    pub metrics: MetricsConfig,
    /// The log.
    #[command(flatten, next_help_heading = "Log")]
    pub log: LogConfig,
}
