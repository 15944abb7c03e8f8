//! An adapter's files, as they were uploaded.
use super::{conditions::etag, query::query};
use crate::{
    adapter::{AdapterError, AdapterName, AdapterRef, VersionId, upload::packed},
    http::{ApiError, AppState},
};
use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, Uri, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use std::convert::Infallible;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilesQuery {
    version: Option<String>,
}

/// `GET /admin/adapters/{name}/files`: a tar that can be uploaded again.
pub(in crate::http) async fn files(
    State(app): State<AppState>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let name: AdapterName = name.parse::<AdapterName>()?;
    let asked: FilesQuery = query(&uri)?;
    let asked = asked.version.map(|version| version.parse::<VersionId>()).transpose();
    let asked = asked.map_err(|error| ApiError::from(error).with_param("version"))?;
    let current = app.registry.get(&name).map(|entry| entry.version);
    let current = current.ok_or_else(|| AdapterError::NotFound(name.clone()))?;
    let version = asked.unwrap_or(current);
    let wanted = AdapterRef { name: name.clone(), version: Some(version) };
    let (pieces, bytes) = packed(&app.registry.files(wanted).await?)?;
    let body = Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)));
    let mut response = (etag(version), body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    headers.insert(header::CONTENT_LENGTH, bytes.into());
    // A checked name needs no quoting.
    let disposition = format!("attachment; filename=\"{name}.tar\"");
    if let Ok(disposition) = disposition.parse() {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}
