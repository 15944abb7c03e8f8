//! Server-sent events: one task a stream, which stops when the client leaves or stalls.
use super::{ApiError, fan_out::Answers};
use crate::generation::GenerateEvent;
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use std::{pin::pin, time::Duration};
use tokio::{sync::mpsc, time::sleep};
use tracing::{Instrument, Span};

/// A comment this often keeps proxies from closing a stream that waits for its turn.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Pieces that may lie between the generation and the connection.
const BUFFERED: usize = 32;

/// How a dialect writes a stream.
pub(super) trait StreamDialect: Send + 'static {
    /// Before the first token.
    fn open(&mut self, _out: &mut SseBuffer) {}
    /// What happened to one answer.
    fn event(&mut self, event: GenerateEvent, out: &mut SseBuffer);
    /// After the last answer.
    fn close(&mut self, _out: &mut SseBuffer) {}
    /// Instead of the rest: the status line is long gone.
    fn fail(&mut self, error: &ApiError, out: &mut SseBuffer);
}

/// Events not yet sent. JSON holds no line break, so an event is always one `data` line.
#[derive(Debug, Default)]
pub(super) struct SseBuffer(String);

impl SseBuffer {
    /// An event: `data: {…}`.
    pub(super) fn json(&mut self, value: &impl Serialize) {
        self.data("data: ", value);
    }

    /// An event without the blank after the colon, as TGI writes it.
    pub(super) fn tight_json(&mut self, value: &impl Serialize) {
        self.data("data:", value);
    }

    /// OpenAI's end mark.
    pub(super) fn done(&mut self) {
        self.0.push_str("data: [DONE]\n\n");
    }

    fn data(&mut self, prefix: &str, value: &impl Serialize) {
        // Maps with string keys and numbers cannot fail to be written.
        let Ok(json) = serde_json::to_string(value) else { return };
        self.0.push_str(prefix);
        self.0.push_str(&json);
        self.0.push_str("\n\n");
    }

    fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.0))
    }

    #[cfg(test)]
    pub(super) fn text(&mut self) -> String {
        std::mem::take(&mut self.0)
    }
}

/// Answers with a stream. Dropping the body cancels the generation.
pub(super) fn respond(
    answers: Answers,
    dialect: impl StreamDialect,
    write_timeout: Duration,
) -> Response {
    let (sender, receiver) = mpsc::channel(BUFFERED);
    let pump = Pump { sender, write_timeout }.run(answers, dialect);
    tokio::spawn(pump.instrument(Span::current()));
    let mut response = body(receiver).into_response();
    let headers = response.headers_mut();
    let event_stream = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, event_stream);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// What goes from the generation to the connection.
#[derive(Debug)]
enum Piece {
    /// More of the stream.
    Text(Bytes),
    /// All of it was sent.
    End,
}

/// Breaks the connection off: a client must not take what it has for the whole stream.
#[derive(Debug, thiserror::Error)]
#[error("the stream was cut short")]
struct CutShort;

fn body(receiver: mpsc::Receiver<Piece>) -> Body {
    Body::from_stream(stream::unfold(Some(receiver), async |receiver| {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Piece::Text(text)) => Some((Ok(text), Some(receiver))),
            Some(Piece::End) => None,
            None => Some((Err(CutShort), None)),
        }
    }))
}

struct Pump {
    sender: mpsc::Sender<Piece>,
    write_timeout: Duration,
}

impl Pump {
    async fn run(self, mut answers: Answers, mut dialect: impl StreamDialect) {
        let mut out = SseBuffer::default();
        dialect.open(&mut out);
        let mut ending = pin!(answers.ending());
        loop {
            if !self.send_text(&mut out).await {
                return;
            }
            let event = tokio::select! {
                () = self.sender.closed() => return,
                event = answers.next() => event.map(|event| event.map_err(ApiError::from)),
                () = &mut ending => Some(Err(ApiError::cut_off())),
                () = sleep(KEEP_ALIVE) => {
                    out.0.push_str(": keep-alive\n\n");
                    continue;
                }
            };
            match event {
                Some(Ok(event)) => dialect.event(event, &mut out),
                Some(Err(error)) => {
                    answers.failed(&error);
                    dialect.fail(&error, &mut out);
                    break;
                }
                None => {
                    dialect.close(&mut out);
                    break;
                }
            }
        }
        if self.send_text(&mut out).await {
            self.send(Piece::End).await;
        }
    }

    /// Whether the stream goes on.
    async fn send_text(&self, out: &mut SseBuffer) -> bool {
        let text = out.take();
        text.is_empty() || self.send(Piece::Text(text)).await
    }

    async fn send(&self, piece: Piece) -> bool {
        match self.sender.send_timeout(piece, self.write_timeout).await {
            Ok(()) => true,
            Err(mpsc::error::SendTimeoutError::Closed(_)) => false,
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                tracing::info!("a client stopped reading its stream");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use serde_json::json;

    #[tokio::test]
    async fn only_a_stream_that_was_sent_whole_ends_well() {
        let (sender, receiver) = mpsc::channel(2);
        sender.send(Piece::Text("a".into())).await.expect("room");
        sender.send(Piece::End).await.expect("room");
        assert_eq!(to_bytes(body(receiver), 9).await.expect("an end"), "a");
        let (sender, receiver) = mpsc::channel(1);
        sender.send(Piece::Text("a".into())).await.expect("room");
        drop(sender);
        assert!(to_bytes(body(receiver), 9).await.is_err());
    }

    #[test]
    fn an_event_is_one_line_whatever_the_text() {
        let mut out = SseBuffer::default();
        out.json(&json!({"text": "a\nb\r\nc\u{2028}"}));
        out.tight_json(&json!({"index": 1}));
        out.done();
        let text = out.text();
        let lines: Vec<_> = text.split('\n').filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("data: {") && lines[1].starts_with("data:{"));
        assert_eq!(lines[2], "data: [DONE]");
    }
}
