//! The connection itself: HTTP/1.1 as bytes, HTTP/2 as frames, and whoever misuses either.
use crate::client::{Answer, Script, Server, scripted};
use lorad::{engine::Event, http::HttpConfig};
use reqwest::{Client, Version};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc::unbounded_channel,
};

fn server(config: HttpConfig) -> Server {
    Server::start(scripted(Script::Echo, config))
}

async fn connect(server: &Server) -> TcpStream {
    let address = server.url.strip_prefix("http://").expect("plain");
    TcpStream::connect(address).await.expect("a connection")
}

/// Everything that comes back until the server closes.
async fn exchange(server: &Server, sent: &str) -> String {
    let mut connection = connect(server).await;
    connection.write_all(sent.as_bytes()).await.expect("sent");
    read_to_end(&mut connection).await
}

async fn read_to_end(connection: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let ended = connection.read_to_end(&mut answer);
    // A connection that is reset has ended too.
    let _ = tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends");
    String::from_utf8_lossy(&answer).into_owned()
}

fn statuses(answer: &str) -> Vec<&str> {
    let heads = answer.match_indices("HTTP/1.").map(|(at, _)| &answer[at + 9..at + 12]);
    heads.collect()
}

async fn still_answers(server: &Server) {
    let body = json!({"prompt": "a", "max_tokens": 2});
    assert_eq!(server.post("/v1/completions", &body).await.ok()["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn http_1_is_read_as_its_standard_has_it() {
    let server = server(HttpConfig { read_timeout: 1, ..HttpConfig::default() });
    let body = "{\"prompt\":\"a\",\"max_tokens\":1}";
    let post = "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let length = body.len();
    let get = "GET /version HTTP/1.1\r\nhost: a\r\n";
    let cases = [
        // Pipelined, absolute, old, and without an end to keep open for.
        (format!("{get}\r\n{get}connection: close\r\n\r\n"), vec!["200", "200"]),
        (
            "GET http://elsewhere/version HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".into(),
            vec!["200"],
        ),
        ("GET /version HTTP/1.0\r\n\r\n".into(), vec!["200"]),
        // Where a message ends is said once, or not at all.
        (format!("{post}content-length: {length}\r\ncontent-length: 5\r\n\r\n{body}"), vec!["400"]),
        (format!("{post}content-length: -1\r\n\r\n{body}"), vec!["400"]),
        (format!("{post}transfer-encoding: gzip\r\n\r\n{body}"), vec!["400"]),
        (format!("{post}content-length: {length}\r\n\r\n{body}rest\r\n\r\n"), vec!["200", "400"]),
        // Chunks win over a length, and nothing behind them is believed.
        (
            format!(
                "{post}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n{get}connection: \
                 close\r\n\r\n"
            ),
            vec!["200"],
        ),
        (
            format!("{post}transfer-encoding: chunked\r\n\r\nxyz\r\n{body}\r\n0\r\n\r\n"),
            vec!["408"],
        ),
        // A request has one address.
        ("GET /version HTTP/1.1\r\nconnection: close\r\n\r\n".into(), vec!["400"]),
        (format!("{get}host: b\r\nconnection: close\r\n\r\n"), vec!["400"]),
        ("GET /version HTTP/1.1\r\nhost: a b/\r\nconnection: close\r\n\r\n".into(), vec!["400"]),
        // No requests at all.
        ("hello\r\n\r\n".into(), vec!["400"]),
        ("GET /version HTTP/9.9\r\nhost: a\r\n\r\n".into(), vec!["400"]),
        ("GET /ver\u{0}sion HTTP/1.1\r\nhost: a\r\n\r\n".into(), vec!["400"]),
    ];
    for (sent, expected) in cases {
        let answer = exchange(&server, &sent).await;
        assert_eq!(statuses(&answer), expected, "{sent}\n{answer}");
    }
    still_answers(&server).await;
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut_off_however_lively_it_is() {
    let server = server(HttpConfig { read_timeout: 1, ..HttpConfig::default() });
    for first in ["", "GET /version HTTP/1.1\r\nhost: a\r\n\r\n"] {
        let mut connection = connect(&server).await;
        connection.write_all(first.as_bytes()).await.expect("sent");
        let begun = Instant::now();
        for byte in "GET / HTTP/1.1\r\nx-long: ".bytes().chain(std::iter::repeat(b'a')) {
            if connection.write_all(&[byte]).await.is_err() {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "it is still waited for");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    still_answers(&server).await;
}

#[tokio::test]
async fn every_route_is_there_over_http_2_too() {
    let server = server(HttpConfig::default());
    let client = Client::builder().http2_prior_knowledge().build().expect("a client");
    let url = |path: &str| format!("{}{path}", server.url);
    for path in ["/health", "/v1/models", "/metrics", "/info"] {
        let answer = client.get(url(path)).send().await.expect("an answer");
        assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_2, 200), "{path}");
    }
    let given = client.get(url("/nowhere")).header("x-request-id", "mine");
    let missing = Answer::of(given).await;
    assert_eq!(missing.headers["x-request-id"], "mine");
    missing.error(404);
    let body = json!({"prompt": "a", "max_tokens": 4, "stream": true});
    // More than a connection may have at one time: they take turns.
    let asked = (0..150).map(|_| Answer::of(client.post(url("/v1/completions")).json(&body)));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.events().last().map(String::as_str), Some("[DONE]"));
    }
    let large = client.post(url("/v1/completions")).header("content-type", "application/json");
    Answer::of(large.body(vec![b' '; 9 << 20])).await.error(413);
    let long = client.get(url("/health")).header("x-long", "a".repeat(100 << 10));
    assert!(long.send().await.is_ok_and(|answer| answer.status().as_u16() == 431));
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: u8 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET /version`, all of it.
fn get_version(stream: u32) -> Vec<u8> {
    let head = [&[0x82, 0x86, 0x44, 8][..], b"/version", &[0x41, 1], b"a"].concat();
    frame(1, 0x5, stream, &head)
}

/// The error code of the first `GOAWAY` until the connection ends; other frames are passed over.
async fn goaway(connection: &mut TcpStream) -> Option<u8> {
    let mut head = [0; 9];
    loop {
        connection.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        connection.read_exact(&mut payload).await.ok()?;
        if head[3] == GOAWAY {
            return payload.get(7).copied();
        }
    }
}

#[tokio::test]
async fn whoever_resets_streams_as_fast_as_it_opens_them_is_sent_away() {
    let server = server(HttpConfig::default());
    let mut connection = connect(&server).await;
    let mut sent = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for stream in (1..4000).step_by(2) {
        sent.extend(get_version(stream));
        sent.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    // The server may well have closed before all of it is sent.
    let _ = connection.write_all(&sent).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), goaway(&mut connection));
    if let Some(code) = ended.await.expect("it ends") {
        assert_eq!(code, ENHANCE_YOUR_CALM);
    }
    still_answers(&server).await;
}

#[tokio::test]
async fn a_client_that_leaves_no_room_for_its_stream_loses_it() {
    let (started, mut running) = unbounded_channel();
    let config = HttpConfig { write_timeout: 1, ..HttpConfig::default() };
    let server = Server::start(scripted(Script::Hold(started), config));
    let mut connection = connect(&server).await;
    let no_room = [&[0, 4][..], &0_u32.to_be_bytes()].concat();
    let head = [
        &[0x83, 0x86, 0x44, 15][..],
        b"/v1/completions",
        &[0x41, 1],
        b"a",
        &[0x5f, 16],
        b"application/json",
    ];
    let body = br#"{"prompt":"a","stream":true,"max_tokens":200}"#;
    let sent = [
        PREFACE,
        &frame(SETTINGS, 0, 0, &no_room),
        &frame(1, 0x4, 1, &head.concat()),
        &frame(0, 0x1, 1, body),
    ];
    connection.write_all(&sent.concat()).await.expect("sent");
    let engine = running.recv().await.expect("a submission");
    let begun = Instant::now();
    // One by one: tokens that come together go out together.
    while engine.send(Event::Token { id: 75, logprobs: None }).is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody reads, and it goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_http_2_connection_without_requests_is_closed() {
    let server = server(HttpConfig { idle_timeout: 1, read_timeout: 30, ..HttpConfig::default() });
    let mut connection = connect(&server).await;
    let sent = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &get_version(1)].concat();
    connection.write_all(&sent).await.expect("sent");
    let begun = Instant::now();
    assert!(!read_to_end(&mut connection).await.is_empty(), "the request was answered");
    assert!(begun.elapsed() >= Duration::from_millis(900), "it had its time");
    still_answers(&server).await;
}

/// What the engine holds, once it holds nothing.
async fn let_go(server: &Server) {
    let gauges = ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"];
    for _ in 0..400 {
        let text = server.get("/metrics").await.text;
        let mut lines = text
            .lines()
            .filter(|line| gauges.iter().any(|gauge| line.starts_with(&format!("vllm:{gauge}{{"))));
        if lines.all(|line| line.ends_with(" 0") || line.ends_with(" 0.0")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("a client that left still has a place");
}

#[tokio::test]
async fn whenever_a_client_leaves_nothing_of_it_stays() {
    let server = Server::golden_with("llama", &["--no-prefix-cache", "--max-sequences=2"]);
    let body = json!({"prompt": [5, 6, 7], "max_tokens": 200, "ignore_eos": true, "n": 4,
        "stream": true, "model": "layers"});
    let body = body.to_string();
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: \
         {}\r\n\r\n{body}",
        body.len()
    );
    // In the head, in the body, before the answer, and at several moments of it.
    let whole = request.len();
    for (sent, read) in
        [(20, 0), (whole - 30, 0), (whole, 0), (whole, 1), (whole, 500), (whole, 5000)]
    {
        let mut connection = connect(&server).await;
        connection.write_all(&request.as_bytes()[..sent]).await.expect("sent");
        let mut answer = vec![0; read];
        connection.read_exact(&mut answer).await.expect("so much of the answer");
        drop(connection);
        let_go(&server).await;
    }
    let body = json!({"prompt": [5], "max_tokens": 2, "model": "layers"});
    server.post("/v1/completions", &body).await.ok();
}

#[tokio::test]
async fn an_id_that_could_do_harm_is_replaced() {
    let server = server(HttpConfig::default());
    for (given, is_kept) in
        [("abc-1", true), (&"a".repeat(128), true), (&"a".repeat(129), false), ("a b", false)]
    {
        for path in ["/health", "/nowhere", "/v1/models"] {
            let request = server.request("GET", path).header("x-request-id", given);
            let answer = Answer::of(request).await;
            assert_eq!(answer.headers["x-request-id"] == given, is_kept, "{given} {path}");
        }
    }
}
