//! `/v1/models`: the base, its adapters and the aliases of both.
use crate::{
    adapter::{AdapterDescription, AdapterEntry, AdapterName, alias::Alias},
    generation::{Abilities, HeadKind},
    http::{ApiError, AppState, admin, auth::Caller, split::is_usable, unix_seconds},
};
use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{HeaderMap, Uri},
};
use serde_json::{Value, json};

/// What the caller may use, and nothing else.
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
) -> Json<Value> {
    let bases = app.generator.model().names().filter(|_| caller.may_use_base());
    let mut cards: Vec<_> = bases.map(|name| base_card(&app, name)).collect();
    let entries = app.registry.list();
    let usable = entries.iter().filter(|entry| caller.may_use(&entry.terms));
    cards.extend(usable.map(|entry| adapter_card(&app, entry)));
    let aliases = app.aliases.list();
    let usable = aliases.iter().filter(|alias| is_for(&app, caller, alias));
    cards.extend(usable.map(|alias| alias_card(&app, alias)));
    Json(json!({"object": "list", "data": cards}))
}

pub(in crate::http) async fn retrieve(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if app.generator.model().is_called(&id) && caller.may_use_base() {
        return Ok(Json(base_card(&app, &id)));
    }
    let alias = app.aliases.named(&id).filter(|alias| is_for(&app, caller, alias));
    if let Some(alias) = alias {
        return Ok(Json(alias_card(&app, &alias)));
    }
    let entry = id.parse().ok().and_then(|name| app.registry.get(&name));
    let entry = entry.filter(|entry| caller.may_use(&entry.terms));
    let entry = entry.ok_or_else(|| ApiError::no_model(&id))?;
    Ok(Json(adapter_card(&app, &entry)))
}

/// OpenAI's delete of a fine-tuned model: takes the adapter out of service, as `DELETE /admin/adapters/{name}` does.
pub(in crate::http) async fn remove(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    if app.generator.model().is_called(&id) {
        let message = "the base model cannot be deleted; adapters can";
        return Err(ApiError::invalid("model", message));
    }
    if app.aliases.named(&id).is_some() {
        let message = "this model is an alias: DELETE /admin/aliases removes it";
        return Err(ApiError::invalid("model", message));
    }
    let name = id.parse::<AdapterName>().map_err(|_| ApiError::no_model(&id))?;
    let name = Path(name.to_string());
    let _told = admin::retire(State(app), name, Extension(caller), uri, headers).await?;
    Ok(Json(json!({"id": id, "object": "model", "deleted": true})))
}

fn base_card(app: &AppState, name: &str) -> Value {
    let model = app.generator.model();
    let mut card = card(name, &model.root, unix_seconds(app.started));
    card["max_model_len"] = model.max_context.into();
    able(card, &model.abilities, None)
}

/// `parent` is what tells an adapter from a base; `root` names the content it has now.
fn adapter_card(app: &AppState, entry: &AdapterEntry) -> Value {
    let root = format!("{}@{}", entry.name, entry.version);
    let mut card = card(entry.name.as_str(), &root, unix_seconds(entry.published_at));
    card["parent"] = app.generator.model().name.as_str().into();
    able(card, &app.generator.model().abilities, Some(&entry.description))
}

/// The card with what can be asked for: an adapter that brings a head answers with its labels instead of the base's, and does
/// not continue texts.
fn able(mut card: Value, base: &Abilities, adapter: Option<&AdapterDescription>) -> Value {
    let own = adapter.filter(|adapter| adapter.head.is_some());
    let labels: Option<(bool, &[String])> = match (own, &base.labels) {
        (Some(own), _) => Some((own.task.as_deref() == Some("TOKEN_CLS"), &own.labels)),
        (None, Some(labels)) => Some((labels.kind == HeadKind::Token, &labels.names)),
        (None, None) => None,
    };
    let embeds = base.embedding.is_some();
    let tasks = [
        ("generate", base.generates && own.is_none()),
        ("embed", embeds),
        ("classify", labels.is_some_and(|(of_tokens, _)| !of_tokens)),
        ("token_classify", labels.is_some_and(|(of_tokens, _)| of_tokens)),
        ("score", labels.map_or(embeds, |(of_tokens, names)| !of_tokens && names.len() == 1)),
    ];
    card["tasks"] = tasks.iter().filter(|(_, can)| *can).map(|(task, _)| *task).collect();
    if let Some((_, names)) = labels {
        card["labels"] = names.into();
    }
    card
}

/// Whether any of its targets is there for the caller.
fn is_for(app: &AppState, caller: Caller, alias: &Alias) -> bool {
    alias.form().targets.iter().any(|target| is_usable(app, caller, &target.target))
}

/// `root` is its first target.
fn alias_card(app: &AppState, alias: &Alias) -> Value {
    let base = &app.generator.model().name;
    let root = alias.form().targets[0].target.shown(base);
    let created = unix_seconds(alias.record().changed_at());
    let mut card = card(alias.name().as_str(), &root, created);
    card["parent"] = base.as_str().into();
    card
}

fn card(id: &str, root: &str, created: u64) -> Value {
    json!({
        "id": id,
        "object": "model",
        "created": created,
        "owned_by": "lorad",
        "root": root,
        "parent": null,
        "max_model_len": null,
    })
}
