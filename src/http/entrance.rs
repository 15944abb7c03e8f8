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
    http::StatusCode,
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
            Some((_, router)) => router.clone(),
            None => Router::new().fallback(still_loading).layer(from_fn(request_id::settle)),
        };
        match inside.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// The process lives, and cannot do more yet.
async fn still_loading(request: Request) -> Response {
    let path = request.uri().path();
    if path == "/livez" {
        return StatusCode::OK.into_response();
    }
    in_form_of(dialect(path), ApiError::loading().into_response())
}
