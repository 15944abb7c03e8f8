//! The object that a call is written as, read as it comes.
use super::json::{Mark, Scanner};

/// A call, as far as it was read.
#[derive(Debug)]
pub(super) struct Envelope {
    text: String,
    scanner: Scanner,
    /// Where the key or string that is being read begins.
    begins: usize,
    field: Field,
    name: Option<String>,
    arguments: Option<Arguments>,
}

/// Bytes of the text; the end is known when they are closed.
#[derive(Clone, Copy, Debug)]
struct Arguments {
    begin: usize,
    end: Option<usize>,
}

/// What the value that comes is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Field {
    Name,
    Arguments,
    Other,
}

/// How far an envelope is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// More must come.
    Open,
    /// The object is whole, and it is a call.
    Closed,
    /// No call goes on like this.
    Broken,
}

impl Envelope {
    pub(super) fn new() -> Self {
        Self {
            text: String::new(),
            scanner: Scanner::new(),
            begins: 0,
            field: Field::Other,
            name: None,
            arguments: None,
        }
    }

    /// All that was taken.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The function, if it is known and its arguments have begun.
    pub(super) fn function(&self) -> Option<&str> {
        self.arguments.and(self.name.as_deref())
    }

    /// The function, if it is known.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The arguments from byte `from` of them on, as far as they have come.
    pub(super) fn arguments(&self, from: usize) -> &str {
        let Some(Arguments { begin, end }) = self.arguments else { return "" };
        self.text.get(begin + from..end.unwrap_or(self.text.len())).unwrap_or_default()
    }

    /// What follows the arguments' first `sent` bytes.
    pub(super) fn after(&self, sent: usize) -> &str {
        let begin = self.arguments.map_or(0, |arguments| arguments.begin);
        self.text.get(begin + sent..).unwrap_or_default()
    }

    /// Takes text up to the end of the object, or up to the first byte that is wrong, which is left.
    /// Returns how many bytes it took.
    pub(super) fn read(
        &mut self,
        piece: &str,
        is_known: impl Fn(&str) -> bool,
    ) -> (usize, Progress) {
        let begin = self.text.len();
        self.text.push_str(piece);
        for at in begin..self.text.len() {
            let progress = self.byte(at, &is_known);
            let end = match progress {
                Progress::Open => continue,
                Progress::Closed => at + 1,
                Progress::Broken => at,
            };
            self.text.truncate(end);
            return (end - begin, progress);
        }
        (piece.len(), Progress::Open)
    }

    fn byte(&mut self, at: usize, is_known: &impl Fn(&str) -> bool) -> Progress {
        let byte = self.text.as_bytes()[at];
        let around = self.scanner.depth();
        let Ok(mark) = self.scanner.step(byte) else { return Progress::Broken };
        let depth = self.scanner.depth();
        let fits = match mark {
            Some(Mark::KeyBegins) if depth == 1 => {
                self.begins = at;
                true
            }
            Some(Mark::KeyEnds) if depth == 1 => self.key(at),
            Some(Mark::ValueBegins) if around == 1 => self.value(byte, at),
            Some(Mark::ValueEnds) if depth == 1 => self.value_end(at, is_known),
            Some(Mark::ValueEnds) if depth == 0 => return self.close(),
            _ => true,
        };
        if fits { Progress::Open } else { Progress::Broken }
    }

    fn key(&mut self, at: usize) -> bool {
        let key: String = serde_json::from_str(&self.text[self.begins..=at]).unwrap_or_default();
        self.field = match key.as_str() {
            "name" if self.name.is_none() => Field::Name,
            "arguments" | "parameters" if self.arguments.is_none() => Field::Arguments,
            "id" | "type" => Field::Other,
            _ => return false,
        };
        true
    }

    fn value(&mut self, byte: u8, at: usize) -> bool {
        self.begins = at;
        match self.field {
            Field::Name => byte == b'"',
            Field::Arguments if byte == b'{' => {
                self.arguments = Some(Arguments { begin: at, end: None });
                true
            }
            Field::Arguments => false,
            Field::Other => true,
        }
    }

    fn value_end(&mut self, at: usize, is_known: impl Fn(&str) -> bool) -> bool {
        match self.field {
            Field::Name => {
                let name: Option<String> = serde_json::from_str(&self.text[self.begins..=at]).ok();
                self.name = name.filter(|name| is_known(name));
                self.name.is_some()
            }
            Field::Arguments => {
                let begin = self.begins;
                self.arguments = Some(Arguments { begin, end: Some(at + 1) });
                true
            }
            Field::Other => true,
        }
    }

    /// A call without arguments has none: `{}` then stands for them.
    fn close(&self) -> Progress {
        if self.name.is_some() { Progress::Closed } else { Progress::Broken }
    }
}
