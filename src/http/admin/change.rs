//! What becomes of a published adapter: retired, rolled back, served on other terms.
use super::{
    conditions::{etag, expected, under_condition},
    list::described,
    query::{PolicyQuery, Retirement},
};
use crate::{
    adapter::{AdapterError, AdapterName, AdapterTerms, PublishOutcome, VersionId},
    http::{
        ApiError, AppState,
        auth::Caller,
        json::{JsonBody, read_bytes},
    },
};
use axum::{
    Extension, Json,
    extract::{Path, Request, State},
    http::{HeaderMap, Uri},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// `DELETE /admin/adapters/{name}`: running requests finish on what they began with, unless the policy says otherwise.
pub(in crate::http) async fn retire(
    State(app): State<AppState>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let name: AdapterName = name.parse::<AdapterName>()?;
    let (expected, asked) = (expected(&headers)?, Retirement::of(&uri)?);
    if !asked.force {
        app.aliases.check_unused(&name)?;
    }
    let retired = app.registry.retire(name.clone(), expected, (caller.actor(), asked.policy)).await;
    let version = retired.map_err(|error| under_condition(error, expected))?;
    app.metrics.adapter_changed("retired");
    app.metrics.adapter_gone(name.as_str());
    tracing::info!(adapter = %name, %version, "adapter retired");
    Ok(Json(json!({"name": name.as_str(), "version": version.to_string(), "outcome": "retired"})))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RollBackBody {
    version: Option<String>,
}

/// `POST /admin/adapters/{name}/rollback`: to the version before the current one, or to the one that the body names.
pub(in crate::http) async fn roll_back(
    State(app): State<AppState>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let name: AdapterName = name.parse::<AdapterName>()?;
    let expected = expected(request.headers())?;
    let policy = PolicyQuery::of(request.uri())?;
    let body = read_bytes(request, &app).await?;
    let body: RollBackBody =
        if body.is_empty() { RollBackBody::default() } else { JsonBody::parse(&body)?.read()? };
    let to = body.version.map(|version| version.parse::<VersionId>()).transpose();
    let to = to.map_err(|error| ApiError::from(error).with_param("version"))?;
    let done = app.registry.roll_back(name.clone(), to, expected, (caller.actor(), policy)).await;
    let done = done.map_err(|error| under_condition(error, expected))?;
    let (outcome, previous) = match done.outcome {
        PublishOutcome::Replaced(previous) => ("rolled_back", Some(previous)),
        PublishOutcome::Created | PublishOutcome::Unchanged => ("unchanged", None),
    };
    app.metrics.adapter_changed(outcome);
    tracing::info!(adapter = %name, version = %done.version, outcome, "adapter rolled back");
    let told = json!({
        "name": name.as_str(),
        "version": done.version.to_string(),
        "previous": previous.map(|version| version.to_string()),
        "outcome": outcome,
    });
    Ok((etag(done.version), Json(told)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TermsBody {
    terms: Map<String, Value>,
}

/// `PATCH /admin/adapters/{name}`: changes the terms that the body names; `null` makes one the usual again.
pub(in crate::http) async fn set_terms(
    State(app): State<AppState>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let name: AdapterName = name.parse::<AdapterName>()?;
    let body: TermsBody = body.read()?;
    let found = || app.registry.get(&name).ok_or_else(|| AdapterError::NotFound(name.clone()));
    let terms = changed(&found()?.terms, body.terms)?;
    terms.check()?;
    app.registry.set_terms(name.clone(), terms, caller.actor()).await?;
    let entry = found()?;
    Ok((etag(entry.version), Json(described(&app, &entry))).into_response())
}

fn changed(terms: &AdapterTerms, changes: Map<String, Value>) -> Result<AdapterTerms, ApiError> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(terms) else {
        return Err(ApiError::internal("terms_not_read"));
    };
    for (field, value) in changes {
        if value.is_null() && AdapterTerms::FIELDS.contains(&field.as_str()) {
            fields.remove(&field);
        } else {
            fields.insert(field, value);
        }
    }
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let path = format!("terms.{}", error.path());
        ApiError::malformed(&path, format!("`{path}`: {}", error.inner()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(terms: &AdapterTerms, changes: Value) -> Result<AdapterTerms, ApiError> {
        let Value::Object(changes) = changes else { panic!("an object") };
        changed(terms, changes)
    }

    #[test]
    fn terms_change_one_by_one_and_null_is_the_usual_one() {
        let usual = AdapterTerms::default();
        let pinned = patched(&usual, json!({"pin": true, "max_requests": 4})).expect("terms");
        assert!(pinned.pin && pinned.max_requests == Some(4));
        let more = patched(&pinned, json!({"share": 2.0})).expect("terms");
        assert!(more.pin && more.share == 2.0);
        let nulls: Map<_, _> =
            AdapterTerms::FIELDS.iter().map(|field| ((*field).to_owned(), Value::Null)).collect();
        assert_eq!(changed(&more, nulls).expect("terms"), usual);
        for wrong in [json!({"pinn": true}), json!({"pinn": null}), json!({"pin": "yes"})] {
            let refused = patched(&usual, wrong).expect_err("refused").openai();
            assert!(refused["error"]["param"].as_str().expect("text").starts_with("terms."));
        }
    }
}
