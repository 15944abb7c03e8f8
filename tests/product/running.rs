//! `lorad serve` with given flags, in this process, on a free port.
use clap::Parser;
use lorad::{adapter::AdapterRegistry, app::App, config::ServeConfig, model::BaseWeights};
use reqwest::{
    Client, StatusCode,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use std::{io, net::TcpListener, path::Path};
use tokio::{sync::oneshot, task::JoinHandle};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    serve: ServeConfig,
}

/// A whole server: what `main` would run.
pub(crate) struct Running {
    client: Client,
    pub(crate) url: String,
    pub(crate) base: BaseWeights,
    registry: AdapterRegistry,
    stop: oneshot::Sender<()>,
    server: JoinHandle<io::Result<()>>,
}

impl Running {
    /// Starts it with these flags of `lorad serve`.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        let line = Line::parse_from(["lorad"].iter().chain(flags));
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let built = tokio::task::spawn_blocking(move || App::build(&line.serve));
        let app = built.await.expect("no panic").expect("the server starts");
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let base = app.base().clone();
        let registry = app.state().registry.clone();
        let server = tokio::spawn(app.serve(listener, shutdown));
        Self { client: Client::new(), url, base, registry, stop, server }
    }

    /// For what the other methods do not ask.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Adapter versions that host memory holds.
    pub(crate) fn warm(&self) -> usize {
        self.registry.warm_usage().versions
    }

    /// The assistant's words, greedy.
    pub(crate) async fn chat(&self, model: &str, prompt: &str, max_tokens: u64) -> String {
        let body = json!({
            "model": model, "temperature": 0, "max_tokens": max_tokens,
            "messages": [{"role": "user", "content": prompt}],
        });
        let request = self.client.post(format!("{}/v1/chat/completions", self.url)).json(&body);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{model}");
        let answer: Value = answer.json().await.expect("JSON");
        answer["choices"][0]["message"]["content"].as_str().expect("text").to_owned()
    }

    /// Uploads an adapter; the status and the answer.
    pub(crate) async fn put(
        &self,
        name: &str,
        config: Vec<u8>,
        weights: Vec<u8>,
    ) -> (StatusCode, Value) {
        let part = |bytes: Vec<u8>, name: &'static str| Part::bytes(bytes).file_name(name);
        let form = Form::new()
            .part("config", part(config, "adapter_config.json"))
            .part("weights", part(weights, "adapter_model.safetensors"));
        let request =
            self.client.put(format!("{}/admin/adapters/{name}", self.url)).multipart(form);
        let answer = request.send().await.expect("an answer");
        (answer.status(), answer.json().await.expect("JSON"))
    }

    /// The names under `GET /v1/models`.
    pub(crate) async fn models(&self) -> Vec<String> {
        let answer = self.client.get(format!("{}/v1/models", self.url)).send().await;
        let answer: Value = answer.expect("an answer").json().await.expect("JSON");
        let cards = answer["data"].as_array().expect("a list");
        cards.iter().map(|card| card["id"].as_str().expect("a name").to_owned()).collect()
    }

    pub(crate) async fn delete(&self, name: &str) -> StatusCode {
        let request = self.client.delete(format!("{}/admin/adapters/{name}", self.url));
        request.send().await.expect("an answer").status()
    }

    /// As SIGTERM does; returns when everything is answered.
    pub(crate) async fn stop(self) {
        self.stop.send(()).expect("the server runs");
        self.server.await.expect("no panic").expect("a clean end");
    }
}

/// Config and weights of one of the repository's adapters.
pub(crate) fn adapter(name: &str) -> (Vec<u8>, Vec<u8>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters").join(name);
    let read = |file| std::fs::read(directory.join(file)).expect("a file of the repository");
    (read("adapter_config.json"), read("adapter_model.safetensors"))
}

/// The same adapter, scaled by `alpha`: other content, so another version.
pub(crate) fn rescaled(name: &str, alpha: u64) -> (Vec<u8>, Vec<u8>) {
    let (config, weights) = adapter(name);
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    config["lora_alpha"] = json!(alpha);
    (config.to_string().into_bytes(), weights)
}
