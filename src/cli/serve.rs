//! `lorad serve`: listen, load, serve, drain.
use super::fail;
use crate::{
    app::{App, AppError},
    config::ServeConfig,
    http::{self, Entrance},
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
    let runtime = Runtime::new()?;
    let served = runtime.block_on(load_and_serve(config, listener));
    // A load that nobody waits for any more ends with the process.
    runtime.shutdown_background();
    served
}

/// Whoever asks meanwhile is told that the model is loading.
async fn load_and_serve(config: &ServeConfig, listener: TcpListener) -> Result<(), AppError> {
    tracing::info!(address = %listener.local_addr()?, "listening");
    let (entrance, settings) = (Entrance::default(), config.http.clone());
    let mut listening = tokio::spawn({
        let entrance = entrance.clone();
        async move { http::listen(listener, &settings, entrance, shutdown()).await }
    });
    let config = config.clone();
    let app = tokio::select! {
        app = tokio::task::spawn_blocking(move || App::build(&config)) => {
            app.map_err(io::Error::other)??
        }
        ended = &mut listening => return Ok(ended.map_err(io::Error::other)??),
    };
    tracing::info!("the model is loaded: ready");
    let listening = async { listening.await.map_err(io::Error::other)? };
    app.serve_at(entrance, listening).await?;
    tracing::info!("all requests are answered, good bye");
    Ok(())
}

/// The first SIGTERM or Ctrl-C; a second one ends the process at once.
async fn shutdown() {
    let Ok(mut signals) = Signals::new() else { return std::future::pending().await };
    signals.next().await;
    tracing::info!("shutting down: no new requests, running ones finish");
    tokio::spawn(async move {
        let status = signals.next().await;
        tracing::warn!("told twice: running requests are not waited for");
        std::process::exit(status);
    });
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    /// The next one, and the exit status of a process that it ended.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> i32 {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        130
    }
}
