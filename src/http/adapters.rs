//! Adapters while serving: publish, replace, retire, list.
use super::{ApiError, AppState, unix_seconds};
use crate::adapter::{
    AdapterEntry, AdapterError, AdapterName, Publication, PublishOutcome, PublishRule, SwapPolicy,
    VersionId,
};
use axum::{
    Json,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// `PUT /admin/adapters/{name}`: 201 for a new name, 200 for a new or the same content.
pub(super) async fn publish(
    State(app): State<AppState>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    // Before the upload is read: it may be large, and for nothing.
    let name = adapter_name(&app, &name)?;
    let rule = publish_rule(request.headers())?;
    let done = upload(&app, &name, rule, request).await;
    let (published, warnings) = done.inspect_err(|_| app.metrics.adapter_changed("rejected"))?;
    let (status, outcome) = match published.outcome {
        PublishOutcome::Created => (StatusCode::CREATED, "created"),
        PublishOutcome::Replaced(_) => (StatusCode::OK, "replaced"),
        PublishOutcome::Unchanged => (StatusCode::OK, "unchanged"),
    };
    app.metrics.adapter_changed(outcome);
    tracing::info!(adapter = %name, version = %published.version, outcome, "adapter published");
    let mut answer = publication(&name, &published, outcome);
    answer["warnings"] = warnings.into();
    Ok((status, etag(published.version), Json(answer)).into_response())
}

async fn upload(
    app: &AppState,
    name: &AdapterName,
    rule: PublishRule,
    request: Request,
) -> Result<(Publication, Vec<String>), ApiError> {
    let staged = app.uploads.receive(request).await?;
    let upload = app.uploads.read(staged, app.registry.limits().clone()).await?;
    let published = app.registry.publish(name.clone(), upload.files.clone(), rule).await;
    let published = published.map_err(|error| under_condition(error, rule))?;
    Ok((published, upload.warnings))
}

/// `DELETE /admin/adapters/{name}`: running requests finish on what they began with.
pub(super) async fn retire(
    State(app): State<AppState>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let name: AdapterName = name.parse::<AdapterName>()?;
    let expected = match condition(&headers, &header::IF_MATCH)? {
        None | Some(Condition::Any) => None,
        Some(Condition::Version(version)) => Some(version),
    };
    let retired = app.registry.retire(name.clone(), expected, SwapPolicy::Pin).await;
    let version = retired.map_err(|error| match expected {
        Some(version) => under_condition(error, PublishRule::ReplaceIf(version)),
        None => error.into(),
    })?;
    app.metrics.adapter_changed("retired");
    tracing::info!(adapter = %name, %version, "adapter retired");
    Ok(Json(json!({"name": name.as_str(), "version": version.to_string(), "outcome": "retired"})))
}

/// `GET /admin/adapters`
pub(super) async fn list(State(app): State<AppState>) -> Json<Value> {
    let resident = app.generator.snapshot().resident_adapters;
    let entries = app.registry.list();
    let adapters: Vec<_> = entries.iter().map(|entry| described(entry, &resident)).collect();
    Json(json!({"adapters": adapters}))
}

/// `GET /lora-adapters`: the form of llama.cpp, whose paths are names here. Unnamed adapters are not applied.
pub(super) async fn numbered(State(app): State<AppState>) -> Json<Value> {
    let mut entries = app.registry.list();
    entries.sort_by_key(|entry| entry.number);
    let described = |entry: &AdapterEntry| json!({"id": entry.number, "path": entry.name.as_str(), "scale": 0.0});
    Json(entries.iter().map(described).collect())
}

/// `GET /admin/adapters/{name}`
pub(super) async fn get(
    State(app): State<AppState>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let name: AdapterName = name.parse::<AdapterName>()?;
    let entry = app.registry.get(&name).ok_or(AdapterError::NotFound(name))?;
    let resident = app.generator.snapshot().resident_adapters;
    Ok((etag(entry.version), Json(described(&entry, &resident))).into_response())
}

/// The base's name stays the base's.
fn adapter_name(app: &AppState, name: &str) -> Result<AdapterName, ApiError> {
    let base = &app.generator.model().name;
    if name.eq_ignore_ascii_case(base) {
        let message = format!("`{base}` is the base model's name; an adapter needs another");
        return Err(ApiError::invalid("name", message));
    }
    name.parse::<AdapterName>().map_err(|error| ApiError::from(error).with_param("name"))
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Condition {
    /// `*`
    Any,
    /// One version, as `ETag` gave it.
    Version(VersionId),
}

/// `If-None-Match: *` creates only; `If-Match: "version"` replaces that version only.
fn publish_rule(headers: &HeaderMap) -> Result<PublishRule, ApiError> {
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

/// A conflict with the client's own condition is HTTP's 412; the message names the current version.
fn under_condition(error: AdapterError, rule: PublishRule) -> ApiError {
    match (&error, rule) {
        (AdapterError::Conflict { .. }, _)
        | (AdapterError::NotFound(_), PublishRule::ReplaceIf(_)) => {
            ApiError::precondition(error.to_string())
        }
        _ => error.into(),
    }
}

fn etag(version: VersionId) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}

fn publication(name: &AdapterName, published: &Publication, outcome: &str) -> Value {
    let description = &published.description;
    json!({
        "name": name.as_str(),
        "version": published.version.to_string(),
        "outcome": outcome,
        "durable": published.durable,
        "rank": description.ranks.last(),
        "bytes": description.bytes,
        "sites": description.sites,
        "ignored_fields": description.ignored_fields,
    })
}

fn described(entry: &AdapterEntry, resident: &[String]) -> Value {
    let description = &entry.description;
    json!({
        "name": entry.name.as_str(),
        "version": entry.version.to_string(),
        "published_at": unix_seconds(entry.published_at),
        "durable": entry.durable,
        "resident": resident.iter().any(|name| name == entry.name.as_str()),
        "leases": entry.leases,
        "kind": description.kind,
        "rank": description.ranks.last(),
        "alpha": description.alpha,
        "bytes": description.bytes,
        "sites": description.sites,
        "layers": description.layers,
        "parameters": description.parameters,
        "target_modules": description.target_modules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_lost_condition_is_a_failed_precondition() {
        let name: AdapterName = "rate".parse().expect("a name");
        let current = VersionId([1; 32]);
        let conflict = AdapterError::Conflict { name: name.clone(), current };
        let lost = under_condition(conflict, PublishRule::Create);
        assert_eq!(lost.status(), StatusCode::PRECONDITION_FAILED);
        assert!(lost.message().contains(&current.to_string()));
        let gone = under_condition(AdapterError::NotFound(name), PublishRule::ReplaceIf(current));
        assert_eq!(gone.status(), StatusCode::PRECONDITION_FAILED);
    }
}
