//! `GET /docs`: Swagger UI, from this binary and without the network.
use crate::http::ApiError;
use axum::{
    extract::Path,
    http::header,
    response::{IntoResponse, Redirect, Response},
};
use std::sync::{Arc, LazyLock};
use utoipa_swagger_ui::{Config, serve};

static CONFIG: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("/openapi.json")));

/// Where the page is.
pub(in crate::http) async fn page() -> Redirect {
    Redirect::temporary("/docs/index.html")
}

/// The page's files.
pub(in crate::http) async fn file(Path(path): Path<String>) -> Result<Response, ApiError> {
    let found =
        serve(&path, Arc::clone(&CONFIG)).map_err(|_| ApiError::internal("page_not_read"))?;
    let found = found.ok_or_else(ApiError::no_route)?;
    let bytes = found.bytes.into_owned();
    let kind = [(header::CONTENT_TYPE, found.content_type)];
    if found.gzpipped {
        return Ok((kind, [(header::CONTENT_ENCODING, "gzip")], bytes).into_response());
    }
    Ok((kind, bytes).into_response())
}
