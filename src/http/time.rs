//! Times as clients read them.
use std::time::{SystemTime, UNIX_EPOCH};

/// Whole seconds since 1970; 0 for a clock that stands before.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
