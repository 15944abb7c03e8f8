//! A real server is killed at every moment of uploads and swaps: the next start serves what was there before, or what was
//! sent, and never less than what its clients were told.
use crate::running::{adapter, rescaled};
use reqwest::{
    Client,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

const PROMPT: &str = "Marta Lindqvist resigned as prime minister in Lisbon on Monday.";

/// The program itself, on a port of its own.
struct Server {
    child: Child,
    url: String,
    client: Client,
}

impl Server {
    async fn start(adapters: &Path) -> Self {
        let free = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_lorad"))
            .args(["serve", "--host", "127.0.0.1", "--log-level", "error", "--port"])
            .arg(port.to_string())
            .arg("--adapters")
            .arg(adapters)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let server = Self { child, url: format!("http://127.0.0.1:{port}"), client: Client::new() };
        for _ in 0..600 {
            let answer = server.client.get(format!("{}/health", server.url)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not start");
    }

    /// Whether the server said that the files are published.
    async fn upload(&self, name: &str, (config, weights): (Vec<u8>, Vec<u8>)) -> bool {
        let part = |bytes: Vec<u8>| Part::bytes(bytes);
        let form = Form::new().part("config", part(config)).part("weights", part(weights));
        let request = self.client.put(format!("{}/admin/adapters/{name}", self.url));
        let answer = request.multipart(form).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    async fn versions(&self) -> HashMap<String, String> {
        let answer = self.client.get(format!("{}/admin/adapters", self.url)).send().await;
        let answer: Value = answer.expect("an answer").json().await.expect("JSON");
        let text = |entry: &Value, field: &str| entry[field].as_str().expect("text").to_owned();
        let entries = answer["adapters"].as_array().expect("a list");
        entries.iter().map(|entry| (text(entry, "name"), text(entry, "version"))).collect()
    }

    async fn says(&self, model: &str) -> String {
        let body = json!({
            "model": model, "temperature": 0, "max_tokens": 12,
            "messages": [{"role": "user", "content": PROMPT}],
        });
        let request = self.client.post(format!("{}/v1/chat/completions", self.url)).json(&body);
        let answer: Value =
            request.send().await.expect("an answer").json().await.expect("an answer's JSON");
        answer["choices"][0]["message"]["content"].as_str().expect("text").to_owned()
    }

    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }
}

impl Drop for Server {
    /// Where a test fails.
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_has_the_old_or_the_new_adapter() {
    let root = TempDir::new().expect("a directory");
    let contents = [rescaled("rate", 16), rescaled("headline", 16), rescaled("extract", 16)];
    // What each version is and says, from a life without death.
    let mut goldens: HashMap<String, String> = HashMap::new();
    let server = Server::start(root.path()).await;
    for files in &contents {
        assert!(server.upload("a", files.clone()).await);
        let version = server.versions().await["a"].clone();
        goldens.insert(version, server.says("a").await);
    }
    assert_eq!(goldens.len(), contents.len());
    assert!(server.upload("plain", adapter("rate")).await);
    let rate = server.says("plain").await;
    let mut now = server.versions().await["a"].clone();
    server.kill();
    let mut changed = 0;
    for round in 0..10_u64 {
        let server = Server::start(root.path()).await;
        let found = server.versions().await;
        assert_eq!(found["a"], now, "round {round}: the start before saw another");
        // A swap of one name and the first upload of another, cut at a later moment each time.
        let (swapped, fresh) = (&contents[round as usize % 3], format!("new{round}"));
        let death = tokio::time::sleep(Duration::from_millis(2 * round * round));
        let told = tokio::select! {
            both = async {
                tokio::join!(
                    server.upload("a", swapped.clone()),
                    server.upload(&fresh, adapter("rate")),
                )
            } => both,
            () = death => (false, false),
        };
        server.kill();
        let server = Server::start(root.path()).await;
        let found = server.versions().await;
        let version = found.get("a").expect("it was never removed");
        assert_eq!(server.says("a").await, goldens[version], "round {round}");
        changed += usize::from(*version != now);
        assert!(!told.1 || found.contains_key(&fresh), "round {round}: a told upload is gone");
        if found.contains_key(&fresh) {
            assert_eq!(server.says(&fresh).await, rate, "round {round}");
        }
        now.clone_from(version);
        server.kill();
    }
    assert!(changed > 0, "no swap came through");
}
