//! When an alias goes back by itself.
use super::AliasError;
use serde::{Deserialize, Serialize};

/// Limits of what a new target may do. At least one of the two is set.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Failed requests among all of the window, 0 to 1: the server's failures, never a client's mistakes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_error_rate: Option<f64>,
    /// Answers of the window that ended because the model's output was not finite. A count, so it needs no minimum
    /// of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_non_finite: Option<u64>,
    /// Requests of the window below which a rate says nothing.
    #[serde(default = "min_requests")]
    pub min_requests: u64,
    /// What is longer ago than this does not count.
    #[serde(default = "window_seconds")]
    pub window_seconds: u64,
}

fn min_requests() -> u64 {
    20
}

fn window_seconds() -> u64 {
    300
}

impl Guard {
    pub(super) fn check(&self) -> Result<(), AliasError> {
        if self.max_error_rate.is_none() && self.max_non_finite.is_none() {
            let message = "`guard` needs `max_error_rate` or `max_non_finite`, or both";
            return Err(AliasError::invalid("guard", message));
        }
        if self.max_error_rate.is_some_and(|rate| !(0.0..=1.0).contains(&rate)) {
            let message = "`guard.max_error_rate` must be between 0 and 1";
            return Err(AliasError::invalid("guard.max_error_rate", message));
        }
        for (field, value, most) in [
            ("guard.min_requests", self.min_requests, 1_000_000),
            ("guard.window_seconds", self.window_seconds, 86_400),
        ] {
            if !(1..=most).contains(&value) {
                let message = format!("`{field}` must be between 1 and {most}");
                return Err(AliasError::invalid(field, message));
            }
        }
        Ok(())
    }
}
