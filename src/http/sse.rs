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
use std::{convert::Infallible, time::Duration};
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
    let pieces = stream::unfold(receiver, |mut receiver| async {
        let piece: Bytes = receiver.recv().await?;
        Some((Ok::<_, Infallible>(piece), receiver))
    });
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    let event_stream = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, event_stream);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Pump {
    sender: mpsc::Sender<Bytes>,
    write_timeout: Duration,
}

impl Pump {
    async fn run(self, mut answers: Answers, mut dialect: impl StreamDialect) {
        let mut out = SseBuffer::default();
        dialect.open(&mut out);
        loop {
            if !self.send(out.take()).await {
                return;
            }
            let event = tokio::select! {
                () = self.sender.closed() => return,
                event = answers.next() => event,
                () = sleep(KEEP_ALIVE) => {
                    out.0.push_str(": keep-alive\n\n");
                    continue;
                }
            };
            match event {
                Some(Ok(event)) => dialect.event(event, &mut out),
                Some(Err(error)) => {
                    dialect.fail(&ApiError::from(error), &mut out);
                    break;
                }
                None => {
                    dialect.close(&mut out);
                    break;
                }
            }
        }
        self.send(out.take()).await;
    }

    /// Whether the stream goes on.
    async fn send(&self, piece: Bytes) -> bool {
        if piece.is_empty() {
            return true;
        }
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
    use serde_json::json;

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
