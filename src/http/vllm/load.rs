//! `POST /v1/load_lora_adapter`
use super::place::{self, Refused};
use crate::{
    adapter::{
        AdapterError, AdapterName, AdapterRef, PublishOptions, PublishOutcome, PublishRule, Source,
        SwapPolicy, hub,
    },
    error::{Classified, ErrorKind},
    http::{
        ApiError, AppState,
        admin::is_allowed,
        auth::Caller,
        json::JsonBody,
        upload::{Came, Upload},
    },
};
use axum::{Extension, extract::State};
use serde::Deserialize;
use std::path::PathBuf;

#[derive(Deserialize)]
struct LoadFields {
    lora_name: Option<String>,
    lora_path: Option<String>,
    load_inplace: Option<bool>,
}

/// 200 with vLLM's text when the name means these files, though it did before.
pub(in crate::http) async fn load(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: JsonBody,
) -> Result<String, ApiError> {
    let LoadFields { lora_name, lora_path, load_inplace } = body.read()?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (Some(name), Some(path)) = (given(lora_name), given(lora_path)) else {
        let message = "Both 'lora_name' and 'lora_path' must be provided.";
        return Err(ApiError::user_input(message));
    };
    let name = checked(&app, &name)?;
    let done = loaded(&app, caller, &name, path, load_inplace.unwrap_or(false)).await;
    let outcome = done.inspect_err(|_| app.metrics.adapter_changed("rejected"))?;
    app.metrics.adapter_changed(outcome);
    tracing::info!(adapter = %name, outcome, "adapter loaded");
    Ok(format!("Success: LoRA adapter '{name}' added successfully."))
}

fn checked(app: &AppState, name: &str) -> Result<AdapterName, ApiError> {
    if app.generator.model().names().any(|base| name.eq_ignore_ascii_case(base)) {
        let message = format!("`{name}` is the base model's name; an adapter needs another");
        return Err(ApiError::user_input(message));
    }
    name.parse().map_err(|error: AdapterError| ApiError::user_input(error.to_string()))
}

/// What became of the name.
async fn loaded(
    app: &AppState,
    caller: Caller,
    name: &AdapterName,
    path: String,
    replace: bool,
) -> Result<&'static str, ApiError> {
    let upload = brought(app, name, path).await?;
    let rule = if replace { PublishRule::Replace } else { PublishRule::Create };
    let (by, source) = (caller.actor(), upload.came.source.clone());
    let options = PublishOptions { rule, policy: SwapPolicy::Pin, by, source };
    let files = upload.came.files.clone();
    match app.registry.publish(name.clone(), files, options).await {
        Ok(published) => Ok(match published.outcome {
            PublishOutcome::Created => "created",
            PublishOutcome::Replaced(_) => "replaced",
            PublishOutcome::Unchanged => "unchanged",
        }),
        Err(AdapterError::Conflict { .. }) => Err(ApiError::user_input(format!(
            "The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set \
             'load_inplace' to True."
        ))),
        Err(error) => Err(failed(name, error)),
    }
}

/// The files that `path` names: a name of the store, a path of this machine or a repository of the hub.
async fn brought(app: &AppState, name: &AdapterName, path: String) -> Result<Upload, ApiError> {
    if let Some(wanted) = in_store(app, &path) {
        let files = app.registry.files(wanted).await.map_err(|error| failed(name, error))?;
        let came = Came { files, warnings: Vec::new(), source: Source::Upload };
        return app.uploads.read_by(move || Ok(came)).await;
    }
    let limits = app.registry.limits().clone();
    let absent = absent(name, &path);
    match hub::reference(&path) {
        Some(reference) if is_allowed(&reference, &app.config.adapter_sources) => {
            let read = app.uploads.read_by(move || {
                let found = hub::fetch(&reference, &limits)?;
                let source = Source::Hub { reference, commit: found.commit };
                Ok(Came { files: found.files, warnings: Vec::new(), source })
            });
            // A repository without an adapter is as good as none.
            read.await.map_err(|error| match error.reason() {
                "invalid_adapter" => absent,
                _ => error,
            })
        }
        Some(_) => Err(ApiError::path_not_allowed()),
        None => {
            let prefixes: Vec<PathBuf> = app.config.lora_path_prefixes.clone();
            let read = move || place::read(path.as_ref(), &prefixes, &limits);
            let read = tokio::task::spawn_blocking(read).await;
            let files = read.map_err(|_| ApiError::internal("adapter_not_read"))?;
            let files = files.map_err(|refused| match refused {
                Refused::NotAllowed => ApiError::path_not_allowed(),
                Refused::Absent => absent,
                Refused::Broken(error) => failed(name, error),
            })?;
            let came = Came { files, warnings: Vec::new(), source: Source::Upload };
            app.uploads.read_by(move || Ok(came)).await
        }
    }
}

/// A published name is no path, and nothing is hidden from who may publish.
fn in_store(app: &AppState, path: &str) -> Option<AdapterRef> {
    path.parse().ok().filter(|wanted| app.registry.contains(wanted))
}

fn absent(name: &AdapterName, path: &str) -> ApiError {
    let shown: String = path.chars().take(200).collect();
    let shown = shown.escape_debug();
    ApiError::no_adapter_files(format!("Loading lora {name} failed: No adapter found for {shown}"))
}

/// What the client can mend is told in vLLM's words; everything else as it is.
fn failed(name: &AdapterName, error: AdapterError) -> ApiError {
    match error.kind() {
        ErrorKind::InvalidRequest => {
            let message = format!("Loading lora {name} failed: {error}");
            ApiError::bad_adapter(error.code(), message)
        }
        _ => error.into(),
    }
}
