//! `If-Match`, `If-None-Match` and `ETag`: nobody overwrites what they have not seen.
use crate::{
    adapter::{AdapterError, PublishRule, VersionId},
    http::ApiError,
};
use axum::http::{HeaderMap, HeaderName, header};
use serde_json::Value;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Condition {
    /// `*`
    Any,
    /// One version, as `ETag` gave it.
    Version(VersionId),
}

/// `If-None-Match: *` creates only; `If-Match: "version"` replaces that version only.
pub(super) fn publish_rule(headers: &HeaderMap) -> Result<PublishRule, ApiError> {
    let must = condition(headers, &header::IF_MATCH)?;
    let must_not = condition(headers, &header::IF_NONE_MATCH)?;
    match (must, must_not) {
        (None, None) => Ok(PublishRule::Replace),
        (None, Some(Condition::Any)) => Ok(PublishRule::Create),
        (Some(Condition::Version(version)), None) => Ok(PublishRule::ReplaceIf(version)),
        _ => {
            let message = "use `If-None-Match: *` to create, or `If-Match: \"VERSION\"` to replace";
            Err(ApiError::invalid("if-match", message))
        }
    }
}

/// The version that a change of an existing name expects, if any.
pub(super) fn expected(headers: &HeaderMap) -> Result<Option<VersionId>, ApiError> {
    match condition(headers, &header::IF_MATCH)? {
        None | Some(Condition::Any) => Ok(None),
        Some(Condition::Version(version)) => Ok(Some(version)),
    }
}

fn condition(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Condition>, ApiError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let value = value.to_str().unwrap_or_default().trim();
    if value == "*" {
        return Ok(Some(Condition::Any));
    }
    let version = value.trim_matches('"').parse().map_err(|_| {
        let message = format!("`{name}` must be `*` or a version as `ETag` gives it");
        ApiError::invalid(name.as_str(), message)
    })?;
    Ok(Some(Condition::Version(version)))
}

/// A conflict with the client's own condition is HTTP's 412; the message and the field `current` name the version
/// that is current.
pub(super) fn under_condition(error: AdapterError, expected: Option<VersionId>) -> ApiError {
    match (&error, expected) {
        (AdapterError::Conflict { current, .. }, _) => {
            let message = format!("{error}; `If-Match: \"{current}\"` replaces that");
            ApiError::precondition(message).with_detail("current", current.to_string())
        }
        (AdapterError::NotFound(_), Some(_)) => {
            ApiError::precondition(error.to_string()).with_detail("current", Value::Null)
        }
        _ => error.into(),
    }
}

/// The version that a rule expects.
pub(super) fn expected_by(rule: PublishRule) -> Option<VersionId> {
    match rule {
        PublishRule::ReplaceIf(version) => Some(version),
        PublishRule::Create | PublishRule::Replace => None,
    }
}

pub(super) fn etag(version: VersionId) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::AdapterName;
    use axum::http::StatusCode;

    fn rule(headers: &[(HeaderName, &str)]) -> Result<PublishRule, ApiError> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().expect("a header value")));
        publish_rule(&headers.collect())
    }

    #[test]
    fn conditions_become_rules() {
        let version = VersionId([7; 32]);
        let quoted = format!("\"{version}\"");
        assert_eq!(rule(&[]).expect("valid"), PublishRule::Replace);
        assert_eq!(rule(&[(header::IF_NONE_MATCH, "*")]).expect("valid"), PublishRule::Create);
        let matched = rule(&[(header::IF_MATCH, &quoted)]).expect("valid");
        assert_eq!(matched, PublishRule::ReplaceIf(version));
        for wrong in [
            vec![(header::IF_MATCH, "\"12\"")],
            vec![(header::IF_MATCH, "*")],
            vec![(header::IF_NONE_MATCH, quoted.as_str())],
            vec![(header::IF_MATCH, quoted.as_str()), (header::IF_NONE_MATCH, "*")],
        ] {
            assert_eq!(rule(&wrong).expect_err("refused").status(), StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn a_lost_condition_is_a_failed_precondition_that_says_what_is_current() {
        let name: AdapterName = "rate".parse().expect("a name");
        let current = VersionId([1; 32]);
        let conflict = AdapterError::Conflict { name: name.clone(), current };
        let lost = under_condition(conflict, None);
        assert_eq!(lost.status(), StatusCode::PRECONDITION_FAILED);
        assert!(lost.message().contains(&current.to_string()));
        assert_eq!(lost.openai()["error"]["current"], current.to_string());
        let gone = under_condition(AdapterError::NotFound(name), Some(current));
        assert_eq!(gone.status(), StatusCode::PRECONDITION_FAILED);
        assert!(gone.openai()["error"]["current"].is_null());
    }
}
