//! What a request's query says: known fields only, each of its kind.
use crate::{adapter::SwapPolicy, http::ApiError};
use axum::{extract::Query, http::Uri};
use serde::{Deserialize, de::DeserializeOwned};
use std::time::Duration;

/// What running requests get to finish, seconds, where a drain does not say.
const DRAIN_SECONDS: u64 = 30;
/// Longest drain, seconds.
const MAX_DRAIN_SECONDS: u64 = 24 * 3600;

/// The query of `uri` as `T`.
///
/// # Errors
/// 400 for a field that is not known or not of its kind.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    let read = Query::<T>::try_from_uri(uri);
    read.map(|Query(read)| read).map_err(|error| ApiError::invalid("query", error.body_text()))
}

/// What becomes of running requests, as a query says it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Policy {
    #[default]
    Pin,
    Drain,
    Cancel,
}

/// The policy that the two fields mean together.
pub(super) fn swap_policy(
    policy: Option<Policy>,
    drain_seconds: Option<u64>,
) -> Result<SwapPolicy, ApiError> {
    let wrong = |message: String| Err(ApiError::invalid("drain_seconds", message));
    match (policy.unwrap_or_default(), drain_seconds) {
        (Policy::Drain, seconds) => match seconds.unwrap_or(DRAIN_SECONDS) {
            seconds if seconds <= MAX_DRAIN_SECONDS => {
                Ok(SwapPolicy::Drain(Duration::from_secs(seconds)))
            }
            _ => wrong(format!("`drain_seconds` must be at most {MAX_DRAIN_SECONDS}")),
        },
        (_, Some(_)) => wrong("`drain_seconds` goes with `policy=drain`".into()),
        (Policy::Pin, None) => Ok(SwapPolicy::Pin),
        (Policy::Cancel, None) => Ok(SwapPolicy::Cancel),
    }
}

/// The query of a change that replaces or removes a version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyQuery {
    policy: Option<Policy>,
    drain_seconds: Option<u64>,
}

impl PolicyQuery {
    pub(super) fn of(uri: &Uri) -> Result<SwapPolicy, ApiError> {
        let read: Self = query(uri)?;
        swap_policy(read.policy, read.drain_seconds)
    }
}

/// The query of a retirement: `force` retires even what aliases send requests to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retirement {
    pub(super) policy: SwapPolicy,
    pub(super) force: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetirementQuery {
    policy: Option<Policy>,
    drain_seconds: Option<u64>,
    #[serde(default)]
    force: bool,
}

impl Retirement {
    pub(super) fn of(uri: &Uri) -> Result<Self, ApiError> {
        let RetirementQuery { policy, drain_seconds, force } = query(uri)?;
        Ok(Self { policy: swap_policy(policy, drain_seconds)?, force })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_with_their_time() {
        let of = |text: &str| PolicyQuery::of(&format!("/a?{text}").parse().expect("a path"));
        for (text, policy) in [
            ("", SwapPolicy::Pin),
            ("policy=pin", SwapPolicy::Pin),
            ("policy=cancel", SwapPolicy::Cancel),
            ("policy=drain", SwapPolicy::Drain(Duration::from_secs(30))),
            ("policy=drain&drain_seconds=5", SwapPolicy::Drain(Duration::from_secs(5))),
        ] {
            assert_eq!(of(text).expect(text), policy);
        }
        for text in [
            "policy=kill",
            "drain_seconds=5",
            "policy=drain&drain_seconds=-1",
            "polcy=pin",
            "policy=drain&drain_seconds=1000000",
        ] {
            of(text).expect_err(text);
        }
    }
}
