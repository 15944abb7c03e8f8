//! Server-sent events out of a body that comes in pieces.

/// Bytes not yet made into events.
#[derive(Debug, Default)]
pub(super) struct SseParser {
    /// The line that has no end yet.
    line: Vec<u8>,
    /// The data of the event that has no end yet.
    data: Option<String>,
}

impl SseParser {
    /// The data of every event that ends in `piece`. Comments and other fields are passed over.
    pub(super) fn push(&mut self, piece: &[u8]) -> Vec<String> {
        let mut events = Vec::new();
        for &byte in piece {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                events.extend(self.line(line.strip_suffix(b"\r").unwrap_or(&line)));
            } else {
                self.line.push(byte);
            }
        }
        events
    }

    /// One line; an empty one ends an event.
    fn line(&mut self, line: &[u8]) -> Option<String> {
        if line.is_empty() {
            return self.data.take();
        }
        let value = line.strip_prefix(b"data:")?;
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match &mut self.data {
            Some(data) => {
                data.push('\n');
                data.push_str(&value);
            }
            none => *none = Some(value.into_owned()),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        ": hello\n\ndata: {\"é\":1}\r\n\r\nevent: x\ndata:a\ndata: b\n\ndata: [DONE]\n\ndata: cut"
            .as_bytes();

    #[test]
    fn events_are_the_same_however_the_body_is_cut() {
        let expected = ["{\"é\":1}", "a\nb", "[DONE]"];
        for size in 1..STREAM.len() {
            let mut parser = SseParser::default();
            let events: Vec<_> = STREAM.chunks(size).flat_map(|piece| parser.push(piece)).collect();
            assert_eq!(events, expected, "in pieces of {size}");
        }
    }
}
