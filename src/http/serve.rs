//! Listening from the first moment, and ending without losing an answer.
use super::{
    AppState, Entrance, HttpConfig,
    connections::{Acceptor, Patience},
    tls::Tls,
};
use axum_server::Handle;
use hyper_util::rt::TokioTimer;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};
use tokio::time::{sleep, timeout};

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
/// Whoever has a connection learns within this time that it is no use any more; a closed one would tell less.
const FAREWELL: Duration = Duration::from_millis(500);
/// The time to send what has been said.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Serves until `shutdown` completes, then lets running requests finish for `--drain-timeout`.
///
/// # Errors
/// When the listener or the TLS files cannot be used.
pub async fn serve(
    listener: TcpListener,
    app: AppState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (config, entrance) = (app.config.clone(), Entrance::default());
    entrance.open(app);
    listen(listener, &config, entrance, shutdown).await
}

/// The same, before there is a server: until `entrance` is open everybody is told that it is loading.
///
/// # Errors
/// As [`serve`].
pub async fn listen(
    listener: TcpListener,
    config: &HttpConfig,
    entrance: Entrance,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let tls = Tls::open(config)?;
    let follow = tls.clone().map(|tls| tokio::spawn(tls.follow_files()));
    let handle = Handle::<SocketAddr>::new();
    tokio::spawn(end_after(shutdown, entrance.clone(), handle.clone()));
    let patience = Patience {
        handshake: config.read_timeout(),
        write: config.write_timeout(),
        idle: config.idle_timeout(),
    };
    let mut server = axum_server::from_tcp(listener)?
        .acceptor(Acceptor::new(config.max_connections, patience, tls))
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
    let service = entrance.service().into_make_service_with_connect_info::<SocketAddr>();
    let served = server.serve(service).await;
    follow.inspect(tokio::task::JoinHandle::abort);
    served
}

/// The listener stays until the end: a closed port tells a gateway less than a 503 does.
async fn end_after(
    shutdown: impl Future<Output = ()>,
    entrance: Entrance,
    handle: Handle<SocketAddr>,
) {
    tokio::select! {
        () = shutdown => {}
        () = entrance.closing() => {}
    }
    if let Some(app) = entrance.app() {
        drain(app).await;
    }
    handle.graceful_shutdown(Some(LAST_WORDS));
}

async fn drain(app: &AppState) {
    let most = app.config.drain_timeout();
    app.drain();
    tracing::info!(requests = app.drain.running(), "draining for at most {most:?}");
    if timeout(most, app.drain.idle()).await.is_err() {
        tracing::warn!(requests = app.drain.running(), "these have taken too long and end now");
        app.drain.end();
        // What does not hear of it loses its connection.
        let _ = timeout(LAST_WORDS, app.drain.idle()).await;
    }
    sleep(FAREWELL.min(most)).await;
}
