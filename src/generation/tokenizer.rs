//! Text to tokens and back.
use super::{GenerateError, Token, density::bytes_per_token, pieces::Pieces, text_stream::Utf8};
use crate::engine::TokenLogprobs;
use tokenizers::DecoderWrapper;

/// A tokenizer and the bytes of each of its tokens.
pub(super) struct Tokenizer {
    pub(super) inner: tokenizers::Tokenizer,
    pieces: Pieces,
    pub(super) bos: Bos,
    bytes_per_token: Option<usize>,
}

/// How a text begins, where special tokens are wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Bos {
    /// As the tokenizer's own rules say.
    Rules,
    /// Without special tokens, whatever the rules say.
    None,
    /// With this token, whether or not the rules say so.
    Token(u32),
}

impl Tokenizer {
    /// `add_bos` is the checkpoint's own word on whether texts begin with the token `bos`.
    ///
    /// # Errors
    /// When the decoder is of a kind that cannot stream, or `bos` is no token.
    pub(super) fn new(
        mut inner: tokenizers::Tokenizer,
        add_bos: Option<bool>,
        bos: Option<&str>,
    ) -> Result<Self, GenerateError> {
        // A training run's padding and cut-off have no business in serving.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| refused("tokenizer", error.to_string()))?;
        let bos = match add_bos {
            None => Bos::Rules,
            Some(false) => Bos::None,
            Some(true) => {
                let id = bos.and_then(|token| inner.token_to_id(token));
                let missing = "prompts begin with `bos_token`, which the tokenizer does not have";
                Bos::Token(id.ok_or_else(|| refused("bos_token", missing.into()))?)
            }
        };
        let pieces = Pieces::new(&inner)?;
        let bytes_per_token = bytes_per_token(&inner, &pieces);
        Ok(Self { inner, pieces, bos, bytes_per_token })
    }

    /// The tokens of `text`; slow for long texts, so those belong on a blocking thread.
    ///
    /// # Errors
    /// When the tokenizer's own rules fail.
    pub(super) fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, GenerateError> {
        let by_rules = add_special && !matches!(self.bos, Bos::None);
        // The cause may quote the text.
        let encoding =
            self.inner.encode_fast(text, by_rules).map_err(|_| GenerateError::Invalid {
                field: "prompt",
                message: "the tokenizer cannot encode this text".into(),
            })?;
        let mut ids = encoding.get_ids().to_vec();
        match self.bos {
            Bos::Token(bos) if add_special && ids.first() != Some(&bos) => ids.insert(0, bos),
            _ => {}
        }
        Ok(ids)
    }

    /// Tokens that `text` has at least; 0 where nothing can be said without counting.
    pub(super) fn least(&self, text: &str) -> usize {
        self.bytes_per_token.map_or(0, |bytes| text.len().div_ceil(bytes))
    }

    /// The text of `ids`; invalid UTF-8 becomes U+FFFD.
    pub(super) fn decode(&self, ids: &[u32]) -> String {
        if let Some(DecoderWrapper::WordPiece(_)) = self.inner.get_decoder() {
            // To it the first token is another matter.
            return self.inner.decode(ids, false).unwrap_or_default();
        }
        let mut dropped = self.pieces.leading_spaces();
        let mut utf8 = Utf8::default();
        let mut text: String = ids
            .iter()
            .map(|id| utf8.push(drop_spaces(self.pieces.bytes(*id), &mut dropped)))
            .collect();
        text.push_str(utf8.finish());
        text
    }

    /// What a client sees of one token, without probabilities.
    pub(super) fn token(&self, id: u32) -> Token {
        let bytes = self.pieces.bytes(id).to_vec();
        Token {
            id,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
            shown: String::new(),
            special: self.pieces.is_special(id),
            logprob: None,
            rank: None,
            top: Vec::new(),
        }
    }

    /// The token that is this text and steers the model.
    pub(super) fn special(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text).filter(|id| self.pieces.is_special(*id))
    }

    /// The same with what the model thought of it.
    pub(super) fn judged(&self, id: u32, logprobs: Option<TokenLogprobs>) -> Token {
        let Some(TokenLogprobs { chosen, rank, top }) = logprobs else { return self.token(id) };
        let alternative = |(id, logprob)| Token { logprob: Some(logprob), ..self.token(id) };
        let top = top.into_iter().map(alternative).collect();
        Token { logprob: Some(chosen), rank: Some(rank), top, ..self.token(id) }
    }

    pub(super) fn pieces(&self) -> &Pieces {
        &self.pieces
    }
}

fn refused(field: &'static str, message: String) -> GenerateError {
    GenerateError::Invalid { field, message }
}

/// `bytes` without the spaces that are still to be dropped; text ends the dropping.
pub(super) fn drop_spaces<'a>(bytes: &'a [u8], dropped: &mut usize) -> &'a [u8] {
    let spaces = bytes.iter().take(*dropped).take_while(|byte| **byte == b' ').count();
    let rest = &bytes[spaces..];
    *dropped = if rest.is_empty() { *dropped - spaces } else { 0 };
    rest
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn plain(inner: tokenizers::Tokenizer) -> Tokenizer {
        Tokenizer::new(inner, None, None).expect("a tokenizer")
    }

    #[test]
    fn a_text_begins_as_the_checkpoint_says() {
        let encode = |add_bos, add_special| {
            let tokenizer = Tokenizer::new(testing::sentence_piece(), add_bos, Some("<s>"));
            tokenizer.expect("a tokenizer").encode("a", add_special).expect("ids")
        };
        let a = encode(None, false);
        assert_eq!(encode(None, true), a, "this tokenizer has no rule");
        assert_eq!(encode(Some(false), true), a);
        assert_eq!(encode(Some(true), false), a);
        assert_eq!(encode(Some(true), true), [&[0], a.as_slice()].concat());
        let again = Tokenizer::new(testing::sentence_piece(), Some(true), Some("<s>"))
            .expect("a tokenizer")
            .encode("<s>a", true)
            .expect("ids");
        assert_eq!(again.iter().filter(|id| **id == 0).count(), 1, "once is enough");
    }

    #[test]
    fn a_begin_that_is_no_token_is_refused() {
        for bos in [None, Some("<bos>")] {
            assert!(Tokenizer::new(testing::sentence_piece(), Some(true), bos).is_err());
        }
    }

    #[test]
    fn a_token_shows_its_bytes_and_its_kind() {
        let tokenizer = plain(testing::sentence_piece());
        let euro = tokenizer.token(2 + 0xe2);
        assert_eq!((euro.text.as_str(), euro.bytes.as_slice()), ("\u{fffd}", &[0xe2][..]));
        assert!(!euro.special && tokenizer.token(0).special);
        let space = tokenizer.inner.token_to_id("\u{2581}a").expect("a token");
        assert_eq!(tokenizer.token(space).text, " a");
        assert_eq!(tokenizer.token(9999).bytes, b"");
    }

    #[test]
    fn words_without_a_decoder_stand_apart() {
        let tokenizer = plain(testing::words(&Value::Null));
        assert_eq!(tokenizer.decode(&[0, 1]), "one two");
    }

    #[test]
    fn metaspace_drops_the_first_space_unless_told_otherwise() {
        let metaspace = |scheme: &str| {
            let decoder = json!({"type": "Metaspace", "replacement": "\u{2581}",
                "prepend_scheme": scheme, "split": true});
            plain(testing::words(&decoder))
        };
        assert_eq!(metaspace("always").decode(&[2, 2]), "three three");
        assert_eq!(metaspace("never").decode(&[2, 2]), " three three");
    }

    #[test]
    fn a_decoder_that_cannot_stream_is_refused_by_name() {
        let decoder = json!({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|",
            "cleanup": true});
        let error = Tokenizer::new(testing::words(&decoder), None, None).err().expect("refused");
        assert!(error.to_string().contains("`CTC`"), "{error}");
    }

    #[test]
    fn pieces_of_words_are_joined_as_the_library_does() {
        let tokenizer = plain(testing::word_piece());
        let spelled = |text: &str| {
            let ids = tokenizer.encode(text, true).expect("ids");
            let wanted = tokenizer.inner.decode(&ids, false).expect("text");
            assert_eq!(tokenizer.decode(&ids), wanted);
            wanted
        };
        assert_eq!(spelled("rating news, isn't it?"), "[CLS] rating news, isn ' t it? [SEP]");
        assert_eq!(spelled("zebra"), "[CLS] [UNK] [SEP]");
        let ids = tokenizer.encode("rating", false).expect("ids");
        assert_eq!(ids.len(), 2);
        assert_eq!(ids.iter().map(|id| tokenizer.token(*id).text).collect::<String>(), " rating");
        assert_eq!(tokenizer.least(&"z".repeat(100_000)), 0, "it may be one token");
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "[ab é€🚀\\n]{0,12}") {
            for tokenizer in [plain(testing::byte_level()), plain(testing::sentence_piece())] {
                let ids = tokenizer.encode(&text, false).expect("ids");
                prop_assert_eq!(tokenizer.decode(&ids), text.as_str());
            }
        }

        #[test]
        fn any_byte_level_tokens_decode_as_in_the_library(
            ids in prop::collection::vec(0u32..520, 0..24),
        ) {
            let tokenizer = plain(testing::byte_level());
            let wanted = tokenizer.inner.decode(&ids, false).expect("text");
            prop_assert_eq!(tokenizer.decode(&ids), wanted);
        }
    }
}
