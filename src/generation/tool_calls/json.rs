//! JSON one byte at a time: where keys and values begin and end, and the first byte that is wrong.

/// Deepest nesting; deeper is as good as broken.
const MAX_DEPTH: usize = 64;

/// A byte that cannot stand where it stands (RFC 8259).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Broken;

/// What a byte begins or ends. Numbers end with the byte after them, which ends nothing else here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mark {
    /// The quote that opens a key.
    KeyBegins,
    /// The quote that closes it.
    KeyEnds,
    /// The first byte of a value.
    ValueBegins,
    /// The last byte of a string, an object or a list.
    ValueEnds,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Container {
    Object,
    List,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expected {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Nothing,
    InString { key: bool, escape: Escape },
    InWord(&'static [u8]),
    InNumber(Number),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Escape {
    None,
    Begun,
    /// Hexadecimal digits that are missing.
    Hex(u8),
}

/// What a number has so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// One value, as far as it was read.
#[derive(Debug)]
pub(super) struct Scanner {
    open: Vec<Container>,
    expected: Expected,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self { open: Vec::new(), expected: Expected::Value }
    }

    /// Containers that are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Takes the next byte. A mark's container is the one that is open around what it marks.
    ///
    /// # Errors
    /// When no JSON goes on like this.
    pub(super) fn step(&mut self, byte: u8) -> Result<Option<Mark>, Broken> {
        match self.expected {
            Expected::InString { key, escape } => self.in_string(byte, key, escape),
            Expected::InWord(rest) => self.in_word(byte, rest),
            Expected::InNumber(number) => match number.next(byte) {
                Some(number) => {
                    self.expected = Expected::InNumber(number);
                    Ok(None)
                }
                None if number.is_whole() => {
                    self.after_value();
                    self.step(byte)
                }
                None => Err(Broken),
            },
            _ if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') => Ok(None),
            _ => self.between(byte),
        }
    }

    fn between(&mut self, byte: u8) -> Result<Option<Mark>, Broken> {
        use Expected::{Colon, CommaOrEnd, Key, KeyOrEnd, Value, ValueOrEnd};
        match (self.expected, byte) {
            (Key | KeyOrEnd, b'"') => {
                self.expected = Expected::InString { key: true, escape: Escape::None };
                Ok(Some(Mark::KeyBegins))
            }
            (Colon, b':') => {
                self.expected = Value;
                Ok(None)
            }
            (CommaOrEnd, b',') => {
                self.expected = match self.open.last() {
                    Some(Container::Object) => Key,
                    _ => Value,
                };
                Ok(None)
            }
            (KeyOrEnd | CommaOrEnd, b'}') => self.close(Container::Object),
            (ValueOrEnd | CommaOrEnd, b']') => self.close(Container::List),
            (Value | ValueOrEnd, _) => self.value(byte),
            _ => Err(Broken),
        }
    }

    fn value(&mut self, byte: u8) -> Result<Option<Mark>, Broken> {
        self.expected = match byte {
            b'{' => self.open(Container::Object)?,
            b'[' => self.open(Container::List)?,
            b'"' => Expected::InString { key: false, escape: Escape::None },
            b't' => Expected::InWord(b"rue"),
            b'f' => Expected::InWord(b"alse"),
            b'n' => Expected::InWord(b"ull"),
            b'-' => Expected::InNumber(Number::Minus),
            b'0' => Expected::InNumber(Number::Zero),
            b'1'..=b'9' => Expected::InNumber(Number::Whole),
            _ => return Err(Broken),
        };
        Ok(Some(Mark::ValueBegins))
    }

    fn open(&mut self, container: Container) -> Result<Expected, Broken> {
        if self.open.len() == MAX_DEPTH {
            return Err(Broken);
        }
        self.open.push(container);
        Ok(match container {
            Container::Object => Expected::KeyOrEnd,
            Container::List => Expected::ValueOrEnd,
        })
    }

    fn close(&mut self, container: Container) -> Result<Option<Mark>, Broken> {
        if self.open.last() != Some(&container) {
            return Err(Broken);
        }
        self.open.pop();
        self.after_value();
        Ok(Some(Mark::ValueEnds))
    }

    fn after_value(&mut self) {
        self.expected = if self.open.is_empty() { Expected::Nothing } else { Expected::CommaOrEnd };
    }

    fn in_string(&mut self, byte: u8, key: bool, escape: Escape) -> Result<Option<Mark>, Broken> {
        let escape = match (escape, byte) {
            (Escape::None, b'"') if key => {
                self.expected = Expected::Colon;
                return Ok(Some(Mark::KeyEnds));
            }
            (Escape::None, b'"') => {
                self.after_value();
                return Ok(Some(Mark::ValueEnds));
            }
            (Escape::None, b'\\') => Escape::Begun,
            (Escape::Begun, b'u') => Escape::Hex(4),
            (Escape::None, 0x20..)
            | (Escape::Begun, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                Escape::None
            }
            (Escape::Hex(1), _) if byte.is_ascii_hexdigit() => Escape::None,
            (Escape::Hex(missing), _) if byte.is_ascii_hexdigit() => Escape::Hex(missing - 1),
            _ => return Err(Broken),
        };
        self.expected = Expected::InString { key, escape };
        Ok(None)
    }

    fn in_word(&mut self, byte: u8, rest: &'static [u8]) -> Result<Option<Mark>, Broken> {
        match rest.split_first() {
            Some((next, [])) if *next == byte => self.after_value(),
            Some((next, rest)) if *next == byte => self.expected = Expected::InWord(rest),
            _ => return Err(Broken),
        }
        Ok(None)
    }
}

impl Number {
    fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => Some(Self::Whole),
            (Self::Zero | Self::Whole, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Some(Self::Exponent),
            (Self::Exponent, b'+' | b'-') => Some(Self::ExponentSign),
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => {
                Some(Self::ExponentDigits)
            }
            _ => None,
        }
    }

    fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Whole | Self::Fraction | Self::ExponentDigits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// Whether the whole text is one object or list.
    fn is_json(text: &str) -> bool {
        let mut scanner = Scanner::new();
        let read = text.bytes().try_for_each(|byte| scanner.step(byte).map(|_| ()));
        read.is_ok() && scanner.expected == Expected::Nothing
    }

    #[test]
    fn marks_stand_where_keys_and_values_begin_and_end() {
        use Mark::{KeyBegins, KeyEnds, ValueBegins, ValueEnds};
        let text = r#"{"a": [1, "x"], "b": {}}"#;
        let mut scanner = Scanner::new();
        let mut marks = Vec::new();
        for (at, byte) in text.bytes().enumerate() {
            if let Some(mark) = scanner.step(byte).expect("JSON") {
                marks.push((at, mark, scanner.depth()));
            }
        }
        let expected = [
            (0, ValueBegins, 1),
            (1, KeyBegins, 1),
            (3, KeyEnds, 1),
            (6, ValueBegins, 2),
            (7, ValueBegins, 2),
            (10, ValueBegins, 2),
            (12, ValueEnds, 2),
            (13, ValueEnds, 1),
            (16, KeyBegins, 1),
            (18, KeyEnds, 1),
            (21, ValueBegins, 2),
            (22, ValueEnds, 1),
            (23, ValueEnds, 0),
        ];
        assert_eq!(marks, expected);
    }

    #[test]
    fn what_is_no_json_is_broken() {
        for text in [
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "[1,]",
            "[01]",
            "[1.]",
            "[-]",
            "[1e]",
            "[tru]",
            "{]",
            "[}",
            "[\"\n\"]",
            r#"["\x"]"#,
            r#"["\u12g4"]"#,
            "[] []",
            "{'a':1}",
            "[nulll]",
        ] {
            assert!(!is_json(text), "{text}");
            assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
        }
        assert!(!is_json(&"[".repeat(100)));
    }

    proptest! {
        #[test]
        fn it_agrees_with_serde_json(text in r#"[\[{][\[\]{}":,0-9eE.+\-truefalsn\\ ]{0,12}[\]}]"#) {
            prop_assert_eq!(is_json(&text), serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
        }

        #[test]
        fn values_that_serde_json_writes_are_read(
            keys in prop::collection::vec("\\PC{0,4}", 0..4), number: f64, whole: i64, text in ".{0,6}",
        ) {
            let fields = keys.into_iter().map(|key| (key, serde_json::json!([number, whole, text, null])));
            let value = Value::Object(fields.collect());
            prop_assert!(is_json(&value.to_string()));
        }
    }
}
