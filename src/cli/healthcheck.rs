//! `lorad healthcheck`: what a container asks itself, without curl.
use reqwest::{Certificate, Client, StatusCode};
use std::{
    error::Error,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Where to ask.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct HealthcheckArgs {
    /// Host of the server.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port of the server.
    #[arg(long, env = "LORAD_PORT", default_value_t = 8000)]
    port: u16,
    /// Seconds to wait for the answer.
    #[arg(long, default_value_t = 2)]
    timeout_seconds: u64,
    /// Speak TLS, as a server does that has `LORAD_TLS_CERT`.
    #[arg(long)]
    tls: bool,
    /// Speak TLS and trust only certificates of these authorities, PEM; without it any certificate will do, since nothing
    /// is told but how the server is.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The server's own setting.
    #[arg(long, env = "LORAD_TLS_CERT", hide = true)]
    tls_cert: Option<PathBuf>,
}

/// Exit status 0 when `GET /health` answers 200.
pub(super) fn run(args: &HealthcheckArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(ask(args)));
    match asked {
        Ok(StatusCode::OK) => ExitCode::SUCCESS,
        Ok(status) => fail(&format!("unhealthy: {status}")),
        Err(error) => {
            let cause = root(error.as_ref());
            fail(&format!("no answer from {}:{}: {cause}", args.host, args.port))
        }
    }
}

fn fail(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "lorad healthcheck: {message}");
    ExitCode::FAILURE
}

fn root(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

async fn ask(args: &HealthcheckArgs) -> Result<StatusCode, Box<dyn Error>> {
    let timeout = Duration::from_secs(args.timeout_seconds.max(1));
    let client = Client::builder().timeout(timeout).no_proxy();
    let client = match &args.ca {
        Some(path) => client.tls_certs_only(authorities(path)?),
        None => client.tls_danger_accept_invalid_certs(true),
    };
    let is_tls = args.tls || args.ca.is_some() || args.tls_cert.is_some();
    let scheme = if is_tls { "https" } else { "http" };
    let host = match args.host.as_str() {
        address if address.contains(':') && !address.starts_with('[') => format!("[{address}]"),
        host => host.to_owned(),
    };
    let url = format!("{scheme}://{host}:{}/health", args.port);
    Ok(client.build()?.get(url).send().await?.status())
}

/// The certificates in a file.
///
/// # Errors
/// When it cannot be read, or holds none.
pub(super) fn authorities(path: &Path) -> Result<Vec<Certificate>, String> {
    let shown = path.display();
    let pem = fs::read(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(format!("{shown} holds no certificate: it must be PEM")),
    }
}
