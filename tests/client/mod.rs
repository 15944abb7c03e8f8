//! A real server on a free port and a client for it, for every test that speaks HTTP.
mod rooms;
mod scripted;

pub(crate) use rooms::{Case, adapter_files, adapters, cases, directory};
pub(crate) use scripted::{Script, scripted, tokens, with_tools};

use axum::{Extension, Router, extract::ConnectInfo};
use lorad::http::{AppState, router, serve};
use reqwest::{Client, RequestBuilder, Response, StatusCode, header::HeaderMap};
use serde_json::Value;
use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    pin::Pin,
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

/// A server that runs until it is dropped or stopped.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) client: Client,
    stop: oneshot::Sender<()>,
    running: JoinHandle<std::io::Result<()>>,
    store: Option<TempDir>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

/// The server without a socket, for callers on its own machine.
pub(crate) fn on_this_machine(app: AppState) -> Router {
    router(app).layer(Extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 9)))))
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, text: response.text().await.expect("a body") }
    }

    /// The body, which must be JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The body of a success.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()
    }

    /// The error object of a failure with this status.
    pub(crate) fn error(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json()["error"].clone()
    }

    /// The payloads of a stream.
    pub(crate) fn events(&self) -> Vec<String> {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        let payload = |line: &str| line.strip_prefix("data:").map(|text| text.trim().to_owned());
        self.text.lines().filter_map(payload).collect()
    }
}

impl Server {
    /// A server of these parts.
    pub(crate) fn start(app: AppState) -> Self {
        Self::run(None, |listener, shutdown| serve(listener, app, shutdown))
    }

    /// The whole server with a base of `tests/golden` and its adapters.
    pub(crate) fn golden(base: &str) -> Self {
        Self::of(&directory(base))
    }

    /// The same with more flags of `lorad serve`.
    pub(crate) fn golden_with(base: &str, flags: &[&str]) -> Self {
        let (app, store) = rooms::serving(&directory(base), flags);
        Self::run(Some(store), |listener, shutdown| app.serve(listener, shutdown))
    }

    /// The whole server with the base in `directory`, and the adapters beside it.
    pub(crate) fn of(directory: &Path) -> Self {
        let (app, store) = rooms::serving(directory, &[]);
        Self::run(Some(store), |listener, shutdown| app.serve(listener, shutdown))
    }

    /// The whole server with a base of `tests/golden`, the adapters of a directory and more flags; and its state.
    pub(crate) fn over(base: &str, store: &Path, flags: &[&str]) -> (Self, AppState) {
        let app = rooms::over(base, store, flags);
        let state = app.state().clone();
        (Self::run(None, |listener, shutdown| app.serve(listener, shutdown)), state)
    }

    fn run<F>(
        store: Option<TempDir>,
        serve: impl FnOnce(TcpListener, Pin<Box<dyn Future<Output = ()> + Send>>) -> F,
    ) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (stop, stopped) = oneshot::channel();
        let shutdown = Box::pin(async {
            let _ = stopped.await;
        });
        let running = tokio::spawn(serve(listener, shutdown));
        Self { url, client: Client::new(), stop, running, store }
    }

    /// Where a golden server keeps its adapters.
    pub(crate) fn store(&self) -> &Path {
        self.store.as_ref().expect("a golden server").path()
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = method.parse().expect("a method");
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request("GET", path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request("POST", path).json(body)).await
    }

    /// The head of an answer, its body still to come.
    pub(crate) async fn open(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path).json(body).send().await.expect("an answer")
    }

    /// Begins the shutdown; the task ends when the server has drained.
    pub(crate) fn stop(self) -> JoinHandle<std::io::Result<()>> {
        self.stop.send(()).expect("the server runs");
        self.running
    }
}
