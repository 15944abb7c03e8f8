//! A hub of one repository on this machine's loopback, for tests.
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    thread,
};
use tokio::{net::TcpListener, runtime::Builder};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Serves `org/name` at revision `main`; remembers the files it was asked for.
pub(crate) struct FakeHub {
    pub(crate) endpoint: String,
    sent: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Repository {
    files: &'static [(&'static str, &'static str)],
    sent: Arc<Mutex<Vec<String>>>,
}

impl FakeHub {
    /// Starts it; it ends with the process.
    pub(crate) fn start(files: &'static [(&'static str, &'static str)]) -> Self {
        let sent = Arc::<Mutex<Vec<String>>>::default();
        let repository = Repository { files, sent: Arc::clone(&sent) };
        let (address, started) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                address.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, routes(repository)).await.unwrap();
            });
        });
        Self { endpoint: format!("http://{}", started.recv().unwrap()), sent }
    }

    /// Names of the files that were sent, sorted.
    pub(crate) fn sent(&self) -> Vec<String> {
        let mut sent = self.sent.lock().unwrap().clone();
        sent.sort_unstable();
        sent
    }
}

fn routes(repository: Repository) -> Router {
    Router::new()
        .route("/api/models/org/name", get(async || revision(Path("main".to_owned())).await))
        .route("/api/models/org/name/revision/{revision}", get(revision))
        .route("/api/models/org/name/tree/{commit}", get(tree))
        .route("/org/name/resolve/{commit}/{*file}", get(file))
        .with_state(repository)
}

async fn revision(Path(revision): Path<String>) -> Response {
    match revision.as_str() {
        "main" => Json(json!({"id": "org/name", "sha": COMMIT})).into_response(),
        _ => (StatusCode::NOT_FOUND, [("x-error-code", "RevisionNotFound")]).into_response(),
    }
}

async fn tree(State(repository): State<Repository>) -> Json<Value> {
    let entry = |(path, content): &(&str, &str)| json!({"type": "file", "oid": path, "size": content.len(), "path": path});
    Json(repository.files.iter().map(entry).collect())
}

async fn file(
    State(repository): State<Repository>,
    Path((_, wanted)): Path<(String, String)>,
    method: Method,
) -> Response {
    let Some((path, content)) = repository.files.iter().find(|(path, _)| *path == wanted) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if method == Method::GET {
        repository.sent.lock().unwrap().push(wanted);
    }
    let tag = format!("\"{}\"", path.replace('/', "-"));
    ([(header::ETAG, tag.as_str()), ("x-repo-commit".parse().unwrap(), COMMIT)], *content)
        .into_response()
}
