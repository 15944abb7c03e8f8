//! Aliases while serving: put, list, roll back, delete.
use crate::{
    adapter::{
        AdapterName,
        alias::{
            Alias, AliasDraft, AliasError, AliasOutcome, AliasRule, Aliases, Author, Revision,
            Target,
        },
    },
    http::{ApiError, AppState, auth::Caller, json::JsonBody, split::is_there, unix_seconds},
};
use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

/// `GET /admin/aliases`
pub(in crate::http) async fn list(State(app): State<AppState>) -> Json<Value> {
    let aliases = app.aliases.list();
    let described: Vec<_> = aliases.iter().map(|alias| described(&app, alias)).collect();
    Json(json!({"aliases": described}))
}

/// `GET /admin/aliases/{alias}`
pub(in crate::http) async fn get(
    State(app): State<AppState>,
    Path(alias): Path<String>,
) -> Result<Response, ApiError> {
    let name = name(&alias)?;
    let alias = app.aliases.get(&name).ok_or(AliasError::NotFound(name))?;
    Ok((etag(&alias), Json(described(&app, &alias))).into_response())
}

/// `PUT /admin/aliases/{alias}`: 201 for a new one, 200 for another or the same form.
pub(in crate::http) async fn put(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(alias): Path<String>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let (name, rule) = (name(&alias)?, rule(&headers)?);
    if app.generator.model().names().any(|base| base.eq_ignore_ascii_case(&alias)) {
        let message = format!("`{name}` is a name of the base model; an alias needs another");
        return Err(AliasError::Taken(message).into());
    }
    let form = body.read::<AliasDraft>()?.check(app.aliases.base())?;
    let put = changed(&app, caller, move |aliases, author, is_there| {
        aliases.put(&name, &form, rule, author, is_there)
    });
    let (alias, outcome) = put.await.map_err(|error| under_condition(error, rule))?;
    let (status, outcome) = match outcome {
        AliasOutcome::Created => (StatusCode::CREATED, "created"),
        AliasOutcome::Replaced => (StatusCode::OK, "replaced"),
        AliasOutcome::Unchanged => (StatusCode::OK, "unchanged"),
    };
    Ok((status, etag(&alias), Json(told(&app, &alias, outcome))).into_response())
}

/// `DELETE /admin/aliases/{alias}`: requests that run go on.
pub(in crate::http) async fn delete(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(alias): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let (name, rule) = (name(&alias)?, existing(&headers)?);
    let deleted = changed(&app, caller, move |aliases, author, _| {
        aliases.delete(&name, expected(rule), author)
    });
    let revision = deleted.await.map_err(|error| under_condition(error, rule))?;
    Ok(Json(json!({"name": alias, "revision": revision.to_string(), "outcome": "deleted"})))
}

/// `POST /admin/aliases/{alias}/rollback`: what the last change did is undone; the same again is to redo it.
pub(in crate::http) async fn roll_back(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(alias): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (name, rule) = (name(&alias)?, existing(&headers)?);
    let back = changed(&app, caller, move |aliases, author, is_there| {
        aliases.roll_back(&name, expected(rule), author, is_there)
    });
    let alias = back.await.map_err(|error| under_condition(error, rule))?;
    Ok((etag(&alias), Json(told(&app, &alias, "rolled_back"))).into_response())
}

/// Changes aliases on the blocking pool, to its end even when the client leaves.
async fn changed<T: Send + 'static>(
    app: &AppState,
    caller: Caller,
    change: impl FnOnce(&Aliases, &Author, &dyn Fn(&Target) -> bool) -> Result<T, AliasError>
    + Send
    + 'static,
) -> Result<T, Failed> {
    let (aliases, registry) = (app.aliases.clone(), app.registry.clone());
    let author = Author { by: caller.actor(), at: SystemTime::now() };
    let done = tokio::task::spawn_blocking(move || {
        change(&aliases, &author, &|target| is_there(&registry, target))
    });
    match done.await {
        Ok(done) => done.map_err(Failed::Alias),
        Err(_) => Err(Failed::Other(ApiError::internal("alias_not_changed"))),
    }
}

enum Failed {
    Alias(AliasError),
    Other(ApiError),
}

fn name(text: &str) -> Result<AdapterName, ApiError> {
    text.parse::<AdapterName>().map_err(|_| {
        let message = "an alias is called 1 to 128 of A-Z, a-z, 0-9, `-`, `_` and `.`, a letter or digit first";
        ApiError::invalid("alias", message)
    })
}

/// `If-None-Match: *` creates only; `If-Match: "revision"` replaces that revision only.
fn rule(headers: &HeaderMap) -> Result<AliasRule, ApiError> {
    match (headers.get(header::IF_MATCH), headers.get(header::IF_NONE_MATCH)) {
        (None, Some(value)) if value == "*" => Ok(AliasRule::Create),
        (_, None) => existing(headers),
        _ => Err(wrong_condition()),
    }
}

/// `If-Match` alone: what is not there can neither go nor go back.
fn existing(headers: &HeaderMap) -> Result<AliasRule, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(AliasRule::Always) };
    let value = value.to_str().unwrap_or_default().trim().trim_matches('"');
    value.parse().map(AliasRule::ReplaceIf).map_err(|_| wrong_condition())
}

fn wrong_condition() -> ApiError {
    let message = "use `If-None-Match: *` to create, or `If-Match: \"REVISION\"`, as `ETag` gives it, \
                   to change what is there";
    ApiError::invalid("if-match", message)
}

fn expected(rule: AliasRule) -> Option<Revision> {
    match rule {
        AliasRule::ReplaceIf(revision) => Some(revision),
        AliasRule::Always | AliasRule::Create => None,
    }
}

/// A conflict with the client's own condition is HTTP's 412; the message names the current revision.
fn under_condition(failed: Failed, rule: AliasRule) -> ApiError {
    match (failed, rule) {
        (Failed::Alias(error @ AliasError::Conflict { .. }), _)
        | (Failed::Alias(error @ AliasError::NotFound(_)), AliasRule::ReplaceIf(_)) => {
            ApiError::precondition(error.to_string())
        }
        (Failed::Alias(error), _) => error.into(),
        (Failed::Other(error), _) => error,
    }
}

fn etag(alias: &Alias) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{}\"", alias.revision()))]
}

fn told(app: &AppState, alias: &Arc<Alias>, outcome: &str) -> Value {
    let mut told = described(app, alias);
    told["outcome"] = outcome.into();
    told
}

fn described(app: &AppState, alias: &Arc<Alias>) -> Value {
    let (base, record) = (app.aliases.base(), alias.record());
    let form = record.form.shown(base);
    json!({
        "name": alias.name().as_str(),
        "revision": alias.revision().to_string(),
        "targets": form.targets,
        "sticky": form.sticky,
        "shadow": form.shadow,
        "guard": form.guard,
        "previous": record.previous.as_ref().map(|previous| previous.shown(base)),
        "action": record.action.as_str(),
        "reason": record.reason,
        "changed_at": unix_seconds(record.changed_at()),
        "changed_by": record.changed_by,
        "durable": alias.is_durable(),
        "observed": observed(base, alias),
    })
}

/// What the requests of the guard's window came to.
fn observed(base: &str, alias: &Arc<Alias>) -> Vec<Value> {
    let counts = alias.counts(Instant::now());
    let targets = alias.form().targets.iter().zip(counts);
    let described = targets.map(|(target, counts)| {
        json!({
            "model": target.target.shown(base),
            "share": alias.form().share(&target.target),
            "requests": counts.requests,
            "errors": counts.errors,
            "non_finite": counts.non_finite,
            "mean_seconds": counts.mean_latency().map(|latency| latency.as_secs_f64()),
        })
    });
    described.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_become_rules() {
        let read = |headers: &[(HeaderName, &str)]| {
            let value = |value: &str| value.parse().expect("a header value");
            rule(&headers.iter().map(|(name, text)| (name.clone(), value(text))).collect())
        };
        assert_eq!(read(&[]).expect("valid"), AliasRule::Always);
        assert_eq!(read(&[(header::IF_NONE_MATCH, "*")]).expect("valid"), AliasRule::Create);
        let revision = "0123456789abcdef";
        let quoted = format!("\"{revision}\"");
        let expected = AliasRule::ReplaceIf(revision.parse().expect("a revision"));
        assert_eq!(read(&[(header::IF_MATCH, &quoted)]).expect("valid"), expected);
        for wrong in [
            vec![(header::IF_MATCH, "\"12\"")],
            vec![(header::IF_MATCH, "*")],
            vec![(header::IF_NONE_MATCH, quoted.as_str())],
            vec![(header::IF_MATCH, quoted.as_str()), (header::IF_NONE_MATCH, "*")],
        ] {
            assert_eq!(read(&wrong).expect_err("refused").status(), StatusCode::BAD_REQUEST);
        }
    }
}
