//! A request to a route that reads, whole.
use super::named::chosen;
use crate::http::{ApiError, AppState, auth::Caller, json::JsonBody, split::Asker, state::Chosen};
use axum::{
    extract::{FromRequest, Request},
    http::HeaderMap,
};

/// What every handler of such a route begins with.
#[derive(Debug)]
pub(in crate::http) struct Call {
    pub(in crate::http) caller: Caller,
    pub(in crate::http) headers: HeaderMap,
    pub(in crate::http) body: JsonBody,
}

impl FromRequest<AppState> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, ApiError> {
        let caller = request.extensions().get::<Caller>().copied();
        let caller = caller.ok_or_else(|| ApiError::internal("no_caller"))?;
        let headers = request.headers().clone();
        let body = JsonBody::from_request(request, app).await?;
        Ok(Self { caller, headers, body })
    }
}

impl Call {
    /// Who is to read, however the request names it.
    ///
    /// # Errors
    /// 400 where it names two adapters, 404 for what nobody has published for this caller.
    pub(in crate::http) fn chosen(&self, app: &AppState) -> Result<Chosen, ApiError> {
        let (caller, headers, body) = (self.caller, &self.headers, &self.body);
        chosen(app, Asker { caller, headers, body })
    }
}
