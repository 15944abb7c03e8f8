//! Publishing: from a body, or from where the body says, to what a name means.
use super::{
    conditions::{etag, expected_by, publish_rule, under_condition},
    probe::{self, Asked},
    query::{Policy, query, swap_policy},
    reference,
    report::Report,
};
use crate::{
    adapter::{
        AdapterError, AdapterName, Candidate, Publication, PublishOptions, PublishOutcome,
        PublishRule, SwapPolicy, format::split_labels,
    },
    http::{ApiError, AppState, auth::Caller, json::declares_json, upload::Upload},
};
use axum::{
    Extension, Json,
    extract::{Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishQuery {
    #[serde(default)]
    dry_run: bool,
    probe: Option<bool>,
    probe_prompt: Option<String>,
    probe_expect: Option<String>,
    policy: Option<Policy>,
    drain_seconds: Option<u64>,
    labels: Option<String>,
}

/// How a request wants its adapter published.
struct How {
    rule: PublishRule,
    policy: SwapPolicy,
    dry_run: bool,
    probe: Option<Asked>,
    by: String,
    /// Names of the labels, whatever the upload has.
    labels: Option<Vec<String>>,
}

impl How {
    fn of(request: &Request, caller: Caller) -> Result<Self, ApiError> {
        let rule = publish_rule(request.headers())?;
        let read: PublishQuery = query(request.uri())?;
        let policy = swap_policy(read.policy, read.drain_seconds)?;
        let probe = Asked::of(read.probe, read.probe_prompt, read.probe_expect)?;
        let labels = read.labels.as_deref().map(split_labels);
        Ok(Self { rule, policy, dry_run: read.dry_run, probe, by: caller.actor(), labels })
    }
}

/// `PUT /admin/adapters/{name}`: 201 for a new name, 200 for a new or the same content, or when nothing was to be done.
pub(in crate::http) async fn publish(
    State(app): State<AppState>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    // Before the upload is read: it may be large, and for nothing.
    let name = adapter_name(&app, &name)?;
    let how = How::of(&request, caller)?;
    let done = brought(&app, &name, &how, request).await;
    let (status, report) = done.inspect_err(|_| app.metrics.adapter_changed("rejected"))?;
    app.metrics.adapter_changed(report.outcome);
    tracing::info!(adapter = %name, version = %report.version, outcome = report.outcome, "adapter published");
    Ok((status, etag(report.version), Json(report.json())).into_response())
}

async fn brought(
    app: &AppState,
    name: &AdapterName,
    how: &How,
    request: Request,
) -> Result<(StatusCode, Report), ApiError> {
    let upload = if declares_json(request.headers()) {
        reference::fetched(app, request).await?
    } else {
        let staged = app.uploads.receive(request).await?;
        app.uploads.read(staged, app.registry.limits().clone()).await?
    };
    let upload = match &how.labels {
        Some(names) => upload.labelled(names)?,
        None => upload,
    };
    published(app, name, how, upload).await
}

/// Checks, tries and publishes, as far as `how` says.
async fn published(
    app: &AppState,
    name: &AdapterName,
    how: &How,
    upload: Upload,
) -> Result<(StatusCode, Report), ApiError> {
    let (by, source) = (how.by.clone(), upload.came.source.clone());
    let options = PublishOptions { rule: how.rule, policy: how.policy, by, source };
    let failed = |error| under_condition(error, expected_by(how.rule));
    let files = upload.came.files.clone();
    if !how.dry_run && how.probe.is_none() {
        let published = app.registry.publish(name.clone(), files, options).await;
        return Ok(done(app, name, &published.map_err(failed)?, &upload));
    }
    let candidate = app.registry.examine(name.clone(), files).await?;
    let probe = match &how.probe {
        Some(asked) => {
            refuse_unless_it_answers(app, &candidate)?;
            Some(probe::tried(app, candidate.lease(), asked).await?)
        }
        None => None,
    };
    let (status, report) = if how.dry_run {
        (StatusCode::OK, valid(app, name, &candidate, how, &upload)?)
    } else {
        let published = app.registry.commit(candidate, options).await.map_err(failed)?;
        done(app, name, &published, &upload)
    };
    Ok((status, Report { probe, ..report }))
}

/// A probe is a prompt that base and adapter continue.
fn refuse_unless_it_answers(app: &AppState, candidate: &Candidate) -> Result<(), ApiError> {
    let task = candidate.description.task.as_deref();
    if app.registry.layout().generates() && matches!(task, None | Some("CAUSAL_LM")) {
        return Ok(());
    }
    let message = "a probe continues a text, and this adapter does not: publish it without `probe`";
    Err(ApiError::invalid("probe", message))
}

fn done(
    app: &AppState,
    name: &AdapterName,
    published: &Publication,
    upload: &Upload,
) -> (StatusCode, Report) {
    let (status, outcome, previous) = match published.outcome {
        PublishOutcome::Created => (StatusCode::CREATED, "created", None),
        PublishOutcome::Replaced(previous) => (StatusCode::OK, "replaced", Some(previous)),
        PublishOutcome::Unchanged => (StatusCode::OK, "unchanged", None),
    };
    let report = Report::new(app, name, published.version, &published.description);
    let report = report.with_warnings(&upload.came.warnings);
    (status, Report { outcome, previous, durable: published.durable, ..report })
}

/// What would happen, without that it does.
fn valid(
    app: &AppState,
    name: &AdapterName,
    candidate: &Candidate,
    how: &How,
    upload: &Upload,
) -> Result<Report, ApiError> {
    let current = app.registry.get(name).map(|entry| entry.version);
    let lost = match (how.rule, current) {
        (_, Some(current)) if current == candidate.version() => None,
        (PublishRule::Create, Some(current)) => {
            Some(AdapterError::Conflict { name: name.clone(), current })
        }
        (PublishRule::ReplaceIf(wanted), Some(current)) if wanted != current => {
            Some(AdapterError::Conflict { name: name.clone(), current })
        }
        (PublishRule::ReplaceIf(_), None) => Some(AdapterError::NotFound(name.clone())),
        _ => None,
    };
    if let Some(lost) = lost {
        return Err(under_condition(lost, expected_by(how.rule)));
    }
    let report = Report::new(app, name, candidate.version(), &candidate.description);
    let report = report.with_warnings(&upload.came.warnings);
    Ok(Report { outcome: "valid", previous: current, ..report })
}

/// The base's name stays the base's.
pub(super) fn adapter_name(app: &AppState, name: &str) -> Result<AdapterName, ApiError> {
    let base = &app.generator.model().name;
    if name.eq_ignore_ascii_case(base) {
        let message = format!("`{base}` is the base model's name; an adapter needs another");
        return Err(ApiError::invalid("name", message));
    }
    let name = name.parse::<AdapterName>();
    let name = name.and_then(|name| app.aliases.check_free(&name).map(|()| name));
    name.map_err(|error| ApiError::from(error).with_param("name"))
}
