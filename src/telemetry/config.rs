//! What the metrics show.

/// How much detail metrics have.
#[derive(Clone, Debug, clap::Args)]
pub struct MetricsConfig {
    /// Adapters with series of their own in the metrics; later ones share the name `_other`
    #[arg(long, env = "LORAD_METRICS_ADAPTERS", value_name = "COUNT", default_value_t = 100)]
    pub metrics_adapters: usize,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { metrics_adapters: 100 }
    }
}
