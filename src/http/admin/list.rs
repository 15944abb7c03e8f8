//! What is published: a page of all, and one with its history.
use super::{conditions::etag, query::query};
use crate::{
    adapter::{
        AdapterEntry, AdapterError, AdapterName, AdapterUsage, Source, VersionEntry, VersionId,
    },
    http::{ApiError, AppState, unix_seconds},
};
use axum::{
    Json,
    extract::{Path, State},
    http::Uri,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

/// Adapters of a page, where the request does not say.
const PAGE: usize = 100;
/// Most adapters of a page.
const MAX_PAGE: usize = 1000;

/// Where a version is that answers the next request soonest.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Tier {
    /// In an adapter slot.
    Device,
    /// In host memory.
    Host,
    /// In the store only.
    Disk,
}

impl Tier {
    fn of(version: VersionId, warm: bool, resident: &[VersionId]) -> Self {
        if resident.contains(&version) {
            Self::Device
        } else if warm {
            Self::Host
        } else {
            Self::Disk
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Host => "host",
            Self::Disk => "disk",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    limit: Option<usize>,
    after: Option<String>,
    prefix: Option<String>,
    tier: Option<Tier>,
}

/// `GET /admin/adapters`: by name, `limit` at a time; `next` is the `after` of the next page.
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let asked: PageQuery = query(&uri)?;
    let limit = asked.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        let message = format!("`limit` must be between 1 and {MAX_PAGE}, not {limit}");
        return Err(ApiError::invalid("limit", message));
    }
    let after = asked.after.map(|name| name.parse::<AdapterName>()).transpose();
    let after = after.map_err(|error| ApiError::from(error).with_param("after"))?;
    let resident = app.generator.snapshot().resident_versions;
    let prefix = asked.prefix.unwrap_or_default();
    let wanted = |entry: &AdapterEntry| {
        let tier =
            asked.tier.is_none_or(|tier| tier == Tier::of(entry.version, entry.warm, &resident));
        tier && entry.name.as_str().starts_with(&prefix)
    };
    let (page, more) = app.registry.page(after.as_ref(), limit, wanted);
    let next = page.last().filter(|_| more).map(|entry| entry.name.as_str().to_owned());
    let adapters: Vec<_> = page.iter().map(|entry| in_tier(entry, &resident)).collect();
    Ok(Json(json!({"adapters": adapters, "next": next, "total": app.registry.len()})))
}

/// `GET /admin/adapters/{name}`: with every version that is kept.
pub(in crate::http) async fn get(
    State(app): State<AppState>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let name: AdapterName = name.parse::<AdapterName>()?;
    let found = app.registry.get(&name);
    let entry = found.ok_or_else(|| AdapterError::NotFound(name.clone()))?;
    let resident = app.generator.snapshot().resident_versions;
    let mut page = in_tier(&entry, &resident);
    let history = app.registry.history(&name);
    let versions: Vec<_> = history.iter().map(|version| versioned(version, &resident)).collect();
    page["versions"] = versions.into();
    Ok((etag(entry.version), Json(page)).into_response())
}

/// An adapter as it stands now.
pub(super) fn described(app: &AppState, entry: &AdapterEntry) -> Value {
    in_tier(entry, &app.generator.snapshot().resident_versions)
}

fn in_tier(entry: &AdapterEntry, resident: &[VersionId]) -> Value {
    let (about, tier) = (&entry.description, Tier::of(entry.version, entry.warm, resident));
    json!({
        "name": entry.name.as_str(),
        "number": entry.number,
        "version": entry.version.to_string(),
        "published_at": unix_seconds(entry.published_at),
        "published_by": entry.published_by,
        "source": entry.source,
        "drop_in": entry.source == Source::DropIn,
        "durable": entry.durable,
        "tier": tier.as_str(),
        "resident": tier == Tier::Device,
        "leases": entry.leases,
        "kept_versions": entry.versions,
        "kind": about.kind,
        "task": about.task,
        "labels": about.labels,
        "head": about.head,
        "rank": about.rank(),
        "alpha": about.alpha,
        "bytes": about.bytes,
        "file_bytes": about.file_bytes,
        "sites": about.sites,
        "layers": about.layers,
        "parameters": about.parameters,
        "target_modules": about.target_modules,
        "terms": &*entry.terms,
        "usage": usage(&entry.usage),
    })
}

fn usage(usage: &AdapterUsage) -> Value {
    json!({
        "requests": usage.requests,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "generated_tokens": usage.generated_tokens,
        "errors": usage.errors,
        "last_used": usage.last_used.map(unix_seconds),
    })
}

fn versioned(entry: &VersionEntry, resident: &[VersionId]) -> Value {
    let tier = Tier::of(entry.version, entry.warm, resident);
    json!({
        "version": entry.version.to_string(),
        "published_at": unix_seconds(entry.published_at),
        "by": entry.published_by,
        "source": entry.source,
        "current": entry.current,
        "tier": tier.as_str(),
        "rank": entry.description.rank(),
        "labels": entry.description.labels,
        "file_bytes": entry.description.file_bytes,
    })
}
