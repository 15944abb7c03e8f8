//! The words of llama.cpp's grammars.
use serde_json::Value;
use std::{fmt, iter::Peekable, str::Chars};

/// One word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Word {
    /// `name ::=`
    Defined(String),
    /// A rule's name within another.
    Name(String),
    /// A literal, as JSON writes it.
    Text(String),
    /// One of some characters, as a regular expression writes it.
    Class(String),
    /// `|`
    Or,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `*`, `+`, `?`, `{m}`, `{m,}`, `{m,n}`
    Repeat(u32, Option<u32>),
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defined(name) | Self::Name(name) => write!(f, "`{name}`"),
            Self::Text(text) => write!(f, "`{text}`"),
            Self::Class(_) => f.write_str("a character class"),
            Self::Or => f.write_str("`|`"),
            Self::Open => f.write_str("`(`"),
            Self::Close => f.write_str("`)`"),
            Self::Repeat(..) => f.write_str("a repetition"),
        }
    }
}

/// The words of `grammar`, in order. New lines mean nothing: a rule begins where a name is defined.
///
/// # Errors
/// What is no word, in a sentence.
pub(super) fn words(grammar: &str) -> Result<Vec<Word>, String> {
    let mut rest = Reader(grammar.chars().peekable());
    let mut words = Vec::new();
    while let Some(character) = rest.0.next() {
        let word = match character {
            ' ' | '\t' | '\r' | '\n' => continue,
            '#' => {
                rest.0.by_ref().find(|c| *c == '\n');
                continue;
            }
            ':' => {
                let (second, third) = (rest.0.next(), rest.0.next());
                let Some(Word::Name(name)) = words.pop() else {
                    return Err("a `::=` has no name before it".into());
                };
                if (second, third) != (Some(':'), Some('=')) {
                    return Err(format!("expected `::=` after `{name}`"));
                }
                Word::Defined(name)
            }
            '|' => Word::Or,
            '(' => Word::Open,
            ')' => Word::Close,
            '*' => Word::Repeat(0, None),
            '+' => Word::Repeat(1, None),
            '?' => Word::Repeat(0, Some(1)),
            '{' => rest.repeat()?,
            '"' => rest.text()?,
            '[' => rest.class()?,
            '.' => Word::Class(r"[\x{0}-\x{10FFFF}]".into()),
            first if is_of_name(first) => {
                let mut name = String::from(first);
                while let Some(more) = rest.0.next_if(|c| is_of_name(*c)) {
                    name.push(more);
                }
                Word::Name(name)
            }
            other => return Err(format!("`{}` means nothing here", other.escape_debug())),
        };
        words.push(word);
    }
    Ok(words)
}

fn is_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '-' || character == '_'
}

struct Reader<'a>(Peekable<Chars<'a>>);

impl Reader<'_> {
    /// After `{`.
    fn repeat(&mut self) -> Result<Word, String> {
        let inside: String = self.0.by_ref().take_while(|c| *c != '}').collect();
        let number = |text: &str| {
            let number = text.trim().parse::<u32>();
            number.map_err(|_| format!("`{{{}}}` is no repetition", inside.escape_debug()))
        };
        match inside.split_once(',') {
            None => number(&inside).map(|times| Word::Repeat(times, Some(times))),
            Some((least, most)) if most.trim().is_empty() => Ok(Word::Repeat(number(least)?, None)),
            Some((least, most)) => Ok(Word::Repeat(number(least)?, Some(number(most)?))),
        }
    }

    /// After `"`.
    fn text(&mut self) -> Result<Word, String> {
        let mut text = String::new();
        loop {
            match self.0.next().ok_or("a string is never closed")? {
                '"' => return Ok(Word::Text(Value::from(text).to_string())),
                '\\' => text.push(self.escaped()?),
                plain => text.push(plain),
            }
        }
    }

    /// After `[`.
    fn class(&mut self) -> Result<Word, String> {
        let mut class = String::from("[");
        if self.0.next_if_eq(&'^').is_some() {
            class.push('^');
        }
        let opened = class.len();
        while let Some(first) = self.of_class()? {
            class.push_str(&in_class(first));
            if self.0.peek() == Some(&'-') {
                self.0.next();
                match self.of_class()? {
                    Some(last) if last < first => {
                        return Err(format!("`{first}-{last}` is no range")
                            .escape_debug()
                            .to_string());
                    }
                    Some(last) => {
                        class.push('-');
                        class.push_str(&in_class(last));
                    }
                    None => {
                        class.push_str(&in_class('-'));
                        break;
                    }
                }
            }
        }
        if class.len() == opened {
            return Err("a character class is empty".into());
        }
        class.push(']');
        Ok(Word::Class(class))
    }

    /// The next character of a class; `None` at its end.
    fn of_class(&mut self) -> Result<Option<char>, String> {
        match self.0.next().ok_or("a character class is never closed")? {
            ']' => Ok(None),
            '\\' => self.escaped().map(Some),
            plain => Ok(Some(plain)),
        }
    }

    /// After a backslash.
    fn escaped(&mut self) -> Result<char, String> {
        let digits = match self.0.next().ok_or("the grammar ends within an escape")? {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            plain if plain.is_ascii_punctuation() => return Ok(plain),
            other => return Err(format!("`\\{}` is no escape", other.escape_debug())),
        };
        let code: String = self.0.by_ref().take(digits).collect();
        let character = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
        character.ok_or_else(|| format!("`{}` is no character's number", code.escape_debug()))
    }
}

fn in_class(character: char) -> String {
    if character.is_ascii_alphanumeric() {
        return character.into();
    }
    format!("\\x{{{:X}}}", u32::from(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Word {
        let mut words = words(text).expect("words");
        assert_eq!(words.len(), 1, "{words:?}");
        words.remove(0)
    }

    #[test]
    fn strings_and_classes_are_read_with_their_escapes() {
        assert_eq!(only(r#""a\"\\\n\x41\u00e9""#), Word::Text(r#""a\"\\\nAé""#.into()));
        assert_eq!(only("[a-z_]"), Word::Class(r"[a-z\x{5F}]".into()));
        assert_eq!(
            only(r#"[^"\\\x7F\x00-\x1F]"#),
            Word::Class(r"[^\x{22}\x{5C}\x{7F}\x{0}-\x{1F}]".into())
        );
        assert_eq!(only(r"[\[\]-]"), Word::Class(r"[\x{5B}\x{5D}\x{2D}]".into()));
        assert_eq!(only("{2}"), Word::Repeat(2, Some(2)));
        assert_eq!(only("{2,}"), Word::Repeat(2, None));
        assert_eq!(only("{ 2 , 5 }"), Word::Repeat(2, Some(5)));
    }

    #[test]
    fn what_is_no_word_is_told() {
        for text in [
            "\"a",
            "[a",
            "[]",
            "[z-a]",
            "\"\\q\"",
            "\"\\xZZ\"",
            "{a}",
            "{",
            "::=",
            "a := b",
            "!",
            "\\",
        ] {
            assert!(words(text).is_err(), "{text}");
        }
    }
}
