//! TLS: whom clients can be sure to speak with, and certificates that change while the server serves.
use crate::client::{Script, Server, scripted};
use lorad::http::HttpConfig;
use reqwest::{Certificate, Client, ClientBuilder, Response, Version, tls::TlsInfo};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const AUTHORITY: &[u8] = include_bytes!("../tls/ca.pem");

fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// A server whose certificate lies where the test can change it.
struct Secured {
    server: Server,
    files: TempDir,
    url: String,
}

impl Secured {
    fn start() -> Self {
        let files = TempDir::new().expect("a directory");
        let place = |name: &str| files.path().join(name);
        fs::copy(pem("first.pem"), place("cert.pem")).expect("a copy");
        fs::copy(pem("first.key"), place("key.pem")).expect("a copy");
        let config = HttpConfig {
            tls_cert: Some(place("cert.pem")),
            tls_key: Some(place("key.pem")),
            read_timeout: 1,
            ..HttpConfig::default()
        };
        let server = Server::start(scripted(Script::Echo, config));
        let url = server.url.replace("http://127.0.0.1", "https://localhost");
        Self { server, files, url }
    }

    async fn ask(&self, client: ClientBuilder) -> reqwest::Result<Response> {
        client.build()?.get(format!("{}/health", self.url)).send().await
    }
}

fn trusting() -> ClientBuilder {
    let authority = Certificate::from_pem(AUTHORITY).expect("a certificate");
    Client::builder().tls_certs_only([authority]).tls_info(true)
}

fn certificate(answer: &Response) -> Vec<u8> {
    let info = answer.extensions().get::<TlsInfo>().expect("TLS");
    info.peer_certificate().expect("a certificate").to_vec()
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_and_strangers_are_not_believed() {
    let secured = Secured::start();
    let answer = secured.ask(trusting()).await.expect("an answer");
    assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_2, 200));
    let answer = secured.ask(trusting().http1_only()).await.expect("an answer");
    assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_11, 200));
    assert!(secured.ask(Client::builder()).await.is_err(), "the authority is nobody's");
    let plain = Client::new().get(format!("{}/health", secured.server.url)).send().await;
    assert!(plain.is_err(), "no word goes in the open");
}

#[tokio::test]
async fn whoever_does_not_shake_hands_is_not_waited_for() {
    let secured = Secured::start();
    let address = secured.server.url.strip_prefix("http://").expect("an address");
    for sent in [&b""[..], &[22, 3, 1, 2, 0, 1]] {
        let mut connection = TcpStream::connect(address).await.expect("a connection");
        connection.write_all(sent).await.expect("sent");
        let mut answer = Vec::new();
        let ended = connection.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends");
    }
    assert!(secured.ask(trusting()).await.is_ok());
}

#[tokio::test]
async fn a_new_certificate_counts_without_a_restart_and_a_broken_one_does_not() {
    let secured = Secured::start();
    let now = async || certificate(&secured.ask(trusting()).await.expect("an answer"));
    let first = now().await;
    let put = |from: &str, to: &str| {
        let place = secured.files.path().join(to);
        let new = place.with_extension("new");
        fs::copy(pem(from), &new).expect("a copy");
        fs::rename(new, place).expect("renamed");
    };
    // The key is not there yet.
    put("second.pem", "cert.pem");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(now().await, first, "what does not fit together changes nothing");
    put("second.key", "key.pem");
    for _ in 0..200 {
        if now().await != first {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the new certificate is not used");
}

#[tokio::test]
async fn files_that_are_no_certificate_and_its_key_are_refused_at_the_start() {
    for (cert, key, why) in [
        ("ca.pem", "first.key", "--tls-cert with --tls-key cannot be used"),
        ("first.key", "first.key", "--tls-cert cannot be used: it holds no certificate"),
        ("first.pem", "first.pem", "--tls-key cannot be used"),
        ("none.pem", "first.key", "none.pem cannot be read"),
    ] {
        let (tls_cert, tls_key) = (Some(pem(cert)), Some(pem(key)));
        let config = HttpConfig { tls_cert, tls_key, ..HttpConfig::default() };
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let app = scripted(Script::Echo, config);
        let served = lorad::http::serve(listener, app, std::future::pending()).await;
        let error = served.expect_err("refused").to_string();
        assert!(error.contains(why), "{error}");
    }
}
