//! Every token's own bytes, worked out once when the tokenizer is loaded.
//!
//! A decoder of the `tokenizers` crate sees a whole list of tokens. The decoders of causal language
//! models nevertheless give each token bytes that do not depend on its neighbours, but for spaces
//! dropped at the very start of a text. With those bytes in a table a stream needs no decoding
//! twice, a character split over tokens is simply joined, and a log-probability's `bytes` are exact.
use super::GenerateError;
use tokenizers::{Decoder, DecoderWrapper, pre_tokenizers::metaspace::PrependScheme};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Absent,
    Text,
    Special,
}

/// The table, and what the decoder drops at the start of a text.
pub(super) struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    kinds: Vec<Kind>,
    longest: usize,
    leading_spaces: usize,
}

impl Pieces {
    /// The pieces of `tokenizer`, one for each id up to its largest.
    ///
    /// # Errors
    /// When the decoder is of a kind whose tokens have no bytes of their own.
    pub(super) fn new(tokenizer: &tokenizers::Tokenizer) -> Result<Self, GenerateError> {
        let steps = Steps::of(tokenizer.get_decoder())?;
        let added = tokenizer.get_added_tokens_decoder();
        let size = tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id + 1);
        let mut pieces = Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(size as usize),
            kinds: Vec::with_capacity(size as usize),
            longest: 1,
            leading_spaces: steps.leading_spaces,
        };
        for id in 0..size {
            let start = pieces.bytes.len();
            let kind = match (tokenizer.id_to_token(id), added.get(&id)) {
                (None, _) => Kind::Absent,
                (Some(token), added) => {
                    pieces.bytes.extend(steps.bytes(token)?);
                    if added.is_some_and(|token| token.special) {
                        Kind::Special
                    } else {
                        Kind::Text
                    }
                }
            };
            pieces.kinds.push(kind);
            pieces.longest = pieces.longest.max(pieces.bytes.len() - start);
            pieces.ends.push(pieces.bytes.len());
        }
        Ok(pieces)
    }

    /// The token's bytes; none for an id without a token, as the decoders have it.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(end) = self.ends.get(id) else { return &[] };
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..*end]
    }

    /// Bytes of the longest token; at least 1.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// Whether every single byte has a token.
    pub(super) fn spell_every_byte(&self) -> bool {
        let mut spelled = [false; 256];
        for id in 0..self.ends.len() as u32 {
            if let [byte] = self.bytes(id) {
                spelled[usize::from(*byte)] = true;
            }
        }
        spelled.iter().all(|spelled| *spelled)
    }

    /// Whether the token steers the model rather than being text.
    pub(super) fn is_special(&self, id: u32) -> bool {
        self.kinds.get(id as usize) == Some(&Kind::Special)
    }

    /// Whether the id has a token.
    pub(super) fn contains(&self, id: u32) -> bool {
        self.kinds.get(id as usize).is_some_and(|kind| *kind != Kind::Absent)
    }

    /// Spaces that the decoder drops at the start of a text.
    pub(super) fn leading_spaces(&self) -> usize {
        self.leading_spaces
    }
}

/// The decoder's steps, as far as they concern one token.
struct Steps<'a> {
    each: Vec<Step<'a>>,
    leading_spaces: usize,
}

enum Step<'a> {
    /// Characters stand for bytes, as in GPT-2.
    ByteLevel,
    /// `<0x0A>` is a byte, as in `SentencePiece`.
    ByteFallback,
    /// A replacement inside the token.
    Replace(&'a DecoderWrapper),
    /// The mark of a word's start becomes a space.
    Metaspace(char),
    /// No decoder: tokens stand apart.
    SpaceBefore,
    /// Tokens stand apart, but for those that go on with a word, and those that follow it without a space.
    WordPiece(&'a DecoderWrapper),
}

impl<'a> Steps<'a> {
    fn of(decoder: Option<&'a DecoderWrapper>) -> Result<Self, GenerateError> {
        let mut steps = Self { each: Vec::new(), leading_spaces: 0 };
        match decoder {
            None => {
                steps.each.push(Step::SpaceBefore);
                steps.leading_spaces = 1;
            }
            Some(decoder) => steps.add(decoder, &mut false)?,
        }
        Ok(steps)
    }

    fn add(&mut self, decoder: &'a DecoderWrapper, fused: &mut bool) -> Result<(), GenerateError> {
        match decoder {
            DecoderWrapper::Sequence(sequence) => {
                for decoder in sequence.get_decoders() {
                    self.add(decoder, fused)?;
                }
            }
            DecoderWrapper::ByteLevel(_) => self.each.push(Step::ByteLevel),
            DecoderWrapper::ByteFallback(_) => self.each.push(Step::ByteFallback),
            DecoderWrapper::Replace(_) => self.each.push(Step::Replace(decoder)),
            DecoderWrapper::Metaspace(space) => {
                self.each.push(Step::Metaspace(space.get_replacement()));
                self.leading_spaces = usize::from(space.prepend_scheme != PrependScheme::Never);
            }
            DecoderWrapper::Fuse(_) => *fused = true,
            DecoderWrapper::Strip(strip) if *fused && strip.content == ' ' && strip.stop == 0 => {
                self.leading_spaces = strip.start;
            }
            DecoderWrapper::Strip(_) => return Err(unsupported("Strip")),
            DecoderWrapper::BPE(_) => return Err(unsupported("BPEDecoder")),
            DecoderWrapper::WordPiece(_) => {
                self.each.push(Step::WordPiece(decoder));
                self.leading_spaces = 1;
            }
            DecoderWrapper::CTC(_) => return Err(unsupported("CTC")),
        }
        Ok(())
    }

    fn bytes(&self, mut token: String) -> Result<Vec<u8>, GenerateError> {
        for step in &self.each {
            match step {
                Step::ByteLevel => return Ok(byte_level(&token)),
                Step::ByteFallback => {
                    if let Some(byte) = fallback_byte(&token) {
                        return Ok(vec![byte]);
                    }
                }
                Step::Replace(decoder) => {
                    let replaced = decoder.decode_chain(vec![token]);
                    token = replaced.map_err(|error| refused(error.to_string()))?.concat();
                }
                Step::Metaspace(mark) => token = token.replace(*mark, " "),
                Step::SpaceBefore => token.insert(0, ' '),
                Step::WordPiece(decoder) => {
                    // It looks at the token alone, but for the first of a text.
                    let joined = decoder.decode_chain(vec![String::new(), token]);
                    token = joined.map_err(|error| refused(error.to_string()))?.concat();
                }
            }
        }
        Ok(token.into_bytes())
    }
}

fn unsupported(decoder: &str) -> GenerateError {
    refused(format!(
        "the tokenizer's decoder `{decoder}` is not supported: use a byte-level, metaspace or \
         byte-fallback tokenizer"
    ))
}

fn refused(message: String) -> GenerateError {
    GenerateError::Invalid { field: "tokenizer", message }
}

/// GPT-2's `bytes_to_unicode` backwards; a token with any other character is taken as it is.
fn byte_level(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// Printable Latin-1 stands for itself; the other 68 bytes, in order, are `U+0100` and on.
fn byte_of(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_level_characters_cover_every_byte_once() {
        let mut bytes: Vec<u8> = ('\0'..'\u{200}').filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_level("ĠĊé"), b" \n\xe9");
        assert_eq!(byte_level("a b"), b"a b", "a space is no byte-level character");
    }

    #[test]
    fn fallback_bytes_have_two_digits() {
        assert_eq!(fallback_byte("<0x0A>"), Some(10));
        for text in ["<0xA>", "<0x0AB>", "0x0A", "<0xG0>"] {
            assert_eq!(fallback_byte(text), None, "{text}");
        }
    }
}
