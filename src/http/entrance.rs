//! What stands at the door from the first moment on: the server, or the news that it is still loading.
use super::{
    ApiError, AppState,
    error::in_form_of,
    request_id,
    router::{dialect, router},
};
use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, StatusCode, Version, header},
    middleware::from_fn,
    response::{IntoResponse, Response},
};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;
use tower::ServiceExt;

/// A door that is opened once. Clones are the same door.
#[derive(Clone, Default)]
pub struct Entrance(Arc<Inner>);

#[derive(Default)]
struct Inner {
    inside: OnceLock<(AppState, Router)>,
    closing: Notify,
}

impl Entrance {
    /// From here on the server answers. Only the first call counts; it needs a runtime.
    pub fn open(&self, app: AppState) {
        self.0.inside.get_or_init(|| {
            if !app.keys.has_admin() {
                tracing::warn!(
                    "without an admin key the admin routes answer to this machine alone: set --admin-key or \
                     --admin-key-file"
                );
            }
            tokio::spawn(app.keys.clone().follow_files());
            (app.clone(), router(app))
        });
    }

    /// Begins the end, as a signal does.
    pub fn close(&self) {
        self.0.closing.notify_one();
    }

    /// Until somebody wants the end.
    pub(super) async fn closing(&self) {
        self.0.closing.notified().await;
    }

    /// The server, when it is there.
    pub(super) fn app(&self) -> Option<&AppState> {
        self.0.inside.get().map(|(app, _)| app)
    }

    /// Everything that is asked, whether the server is there or not.
    pub(super) fn service(&self) -> Router {
        let entrance = self.clone();
        Router::new().fallback(move |request: Request| entrance.answer(request))
    }

    async fn answer(self, request: Request) -> Response {
        let inside = match self.0.inside.get() {
            _ if !has_one_address(&request) => {
                let refuse = || async { ApiError::no_host() };
                Router::new().fallback(refuse).layer(from_fn(request_id::settle))
            }
            Some((_, router)) => router.clone(),
            None => Router::new().fallback(still_loading).layer(from_fn(request_id::settle)),
        };
        match inside.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// HTTP/1.1 wants one host, there or in the address: with several, others may have read another one.
fn has_one_address(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let is_host = |host: &HeaderValue| host.as_bytes().iter().all(|c| is_of_host(*c));
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_host(host),
        (None, _) => request.version() < Version::HTTP_11 || request.uri().host().is_some(),
        (Some(_), Some(_)) => false,
    }
}

fn is_of_host(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&c)
}

/// The process lives, and cannot do more yet.
async fn still_loading(request: Request) -> Response {
    let path = request.uri().path();
    if path == "/livez" {
        return StatusCode::OK.into_response();
    }
    in_form_of(dialect(path), ApiError::loading().into_response())
}
