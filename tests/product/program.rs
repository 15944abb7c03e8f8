//! The program itself, on a port of its own.
use reqwest::Client;
use std::{
    net::TcpListener,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

/// `lorad serve`, killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) url: String,
}

impl Program {
    /// Starts it with more flags and a place for its log, and waits until it is ready.
    pub(crate) async fn start(flags: &[&str], log: Stdio) -> Self {
        let program = Self::begin(flags, log, "http");
        program.wait(&Client::new()).await;
        program
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn begin(flags: &[&str], log: Stdio, scheme: &str) -> Self {
        Self::begin_with(flags, &[], log, scheme)
    }

    /// The same with more variables.
    pub(crate) fn begin_with(
        flags: &[&str],
        variables: &[(&str, &str)],
        log: Stdio,
        scheme: &str,
    ) -> Self {
        let free = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_lorad"))
            .args(["serve", "--host", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .args(flags)
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("started");
        Self { child, url: format!("{scheme}://127.0.0.1:{port}") }
    }

    /// Until `/health` is 200.
    pub(crate) async fn wait(&self, client: &Client) {
        for _ in 0..600 {
            let answer = client.get(format!("{}/health", self.url)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not start");
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let process = self.child.id().to_string();
        let sent = Command::new("kill").args([format!("-{name}"), process]).status();
        assert!(sent.expect("kill").success());
    }

    /// Until it has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        for _ in 0..1200 {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("it does not end");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
