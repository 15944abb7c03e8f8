//! What the server says about itself: logs and metrics.
//!
//! Knows numbers and label texts. Knows nothing of any other room.
mod log;
mod metrics;
mod recorder;

pub use log::{LogConfig, LogError, LogFormat};
pub use metrics::{METRICS, MetricInfo, MetricKind};
pub use recorder::{EngineFigures, Exposition, Metrics, Outcome};
