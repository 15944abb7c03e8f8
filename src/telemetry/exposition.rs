//! The two text formats of metrics.
use super::metrics::{METRICS, MetricKind};

/// Which of the two text formats to write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exposition {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Exposition {
    /// The library's text in this format.
    pub(super) fn of(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Prometheus => as_prometheus(&open_metrics),
        }
    }
}

/// The older format names a counter's family with its `_total`, and knows no end mark.
fn as_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let family = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        match family.and_then(|family| family.split_once(' ')) {
            Some((name, rest)) if is_counter(name) => {
                text.push_str(&line[..7]);
                text.push_str(name);
                text.push_str("_total ");
                text.push_str(rest);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

fn is_counter(name: &str) -> bool {
    METRICS.iter().any(|info| info.name == name && info.kind == MetricKind::Counter)
}
