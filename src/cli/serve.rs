//! `lorad serve`: build, listen, serve, drain.
use super::fail;
use crate::{
    app::{App, AppError},
    config::ServeConfig,
};
use std::{io, net::TcpListener, process::ExitCode};
use tokio::runtime::Runtime;

/// Serves until SIGTERM or Ctrl-C.
pub(super) fn run(config: &ServeConfig) -> ExitCode {
    if let Err(error) = config.log.init() {
        return fail("lorad", &error);
    }
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("lorad", &error),
    }
}

fn serve(config: &ServeConfig) -> Result<(), AppError> {
    // The port first: a second server on it should fail before it has loaded a model.
    let (host, port) = (config.http.host, config.http.port);
    let listener = TcpListener::bind((host, port)).map_err(|error| {
        let detail = format!("cannot listen on {host} port {port}, try another --port: {error}");
        io::Error::new(error.kind(), detail)
    })?;
    listener.set_nonblocking(true)?;
    let app = App::build(config)?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    Runtime::new()?.block_on(app.serve(listener, shutdown()))?;
    tracing::info!("all requests are answered, good bye");
    Ok(())
}

/// The first SIGTERM (or Ctrl-C).
async fn shutdown() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = interrupt => {}
        () = terminate() => {}
    }
    tracing::info!("shutting down: no new requests, running ones finish");
}

#[cfg(unix)]
async fn terminate() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminate() {
    std::future::pending().await
}
