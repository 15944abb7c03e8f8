//! `lorad healthcheck`: what a container asks itself, without curl.
use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
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
}

/// Exit status 0 when `GET /health` answers 200.
pub(super) fn run(args: &HealthcheckArgs) -> ExitCode {
    match ask(args) {
        Ok(status) if status.contains(" 200 ") => ExitCode::SUCCESS,
        Ok(status) => fail(&format!("unhealthy: {status}")),
        Err(error) => fail(&format!("no answer from {}:{}: {error}", args.host, args.port)),
    }
}

fn fail(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "lorad healthcheck: {message}");
    ExitCode::FAILURE
}

/// The status line of the answer.
fn ask(args: &HealthcheckArgs) -> io::Result<String> {
    let timeout = Duration::from_secs(args.timeout_seconds.max(1));
    let address = (args.host.as_str(), args.port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::other("the host has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET /health HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", args.host)?;
    // The status line is all that counts; a server that sends no line end is no server of ours.
    let mut answer = Vec::new();
    stream.take(512).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}
