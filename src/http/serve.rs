//! Listening, and ending without losing an answer.
use super::{AppState, connections::LimitedAcceptor, router};
use axum_server::Handle;
use hyper_util::rt::TokioTimer;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

/// Largest head of a request, bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Most header fields of a request.
const MAX_HEADERS: usize = 100;
/// Most requests side by side on one HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// How often an HTTP/2 connection must show that somebody is there.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to show it.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until `shutdown` completes, then lets running requests finish for `--drain-timeout`.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve(
    listener: TcpListener,
    app: AppState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let handle = Handle::<SocketAddr>::new();
    tokio::spawn(drain_after(shutdown, app.clone(), handle.clone()));
    tokio::spawn(app.keys.clone().follow_files());
    if !app.keys.has_admin() {
        tracing::warn!(
            "without an admin key the admin routes answer to this machine alone: set --admin-key or \
             --admin-key-file"
        );
    }
    let config = app.config.clone();
    let mut server = axum_server::from_tcp(listener)?
        .acceptor(LimitedAcceptor::new(config.max_connections, config.write_timeout()))
        .first_request_timeout(config.read_timeout())
        .handle(handle);
    let mut http = server.http_builder().http1();
    // Without a timer hyper reads heads for ever.
    http.timer(TokioTimer::new())
        .header_read_timeout(config.read_timeout())
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    server.serve(router(app).into_make_service_with_connect_info::<SocketAddr>()).await
}

async fn drain_after(
    shutdown: impl Future<Output = ()>,
    app: AppState,
    handle: Handle<SocketAddr>,
) {
    shutdown.await;
    app.drain();
    let most = app.config.drain_timeout();
    tracing::info!(connections = handle.connection_count(), "draining for at most {most:?}");
    handle.graceful_shutdown(Some(most));
}
