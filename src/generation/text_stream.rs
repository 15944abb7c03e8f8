//! One answer's tokens to text, as early as the text is certain.
use super::{
    stop_strings::{Released, StopStrings},
    tokenizer::{Tokenizer, drop_spaces},
};
use std::sync::Arc;

/// Joins token bytes to characters, leaves out special tokens, and ends at a stop string.
pub(super) struct TextStream {
    tokenizer: Arc<Tokenizer>,
    options: TextOptions,
    stops: StopStrings,
    utf8: Utf8,
    /// Spaces still to be dropped at the start of the text.
    leading_spaces: usize,
    /// Tokens taken.
    taken: usize,
}

/// How a request wants its text.
#[derive(Clone, Debug)]
pub(super) struct TextOptions {
    /// Strings that end the answer, each not empty.
    pub(super) stop: Arc<[String]>,
    /// Whether the stop string stays in the text.
    pub(super) include_stop: bool,
    /// Whether special tokens are left out.
    pub(super) skip_special_tokens: bool,
    /// Special tokens that are not left out all the same.
    pub(super) shown_tokens: Vec<u32>,
    /// Stop strings are not looked for in the text of this many first tokens.
    pub(super) min_tokens: usize,
}

/// What one token brings.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    /// What it adds to the text, whether or not a stop string begins in it.
    pub(super) shown: String,
    /// What is certain now.
    pub(super) released: Released,
}

impl TextStream {
    /// For an answer to `prompt`. The answer is what comes after the prompt's text, so a decoder
    /// that drops a leading space drops it only where the prompt has no text.
    pub(super) fn new(tokenizer: Arc<Tokenizer>, options: TextOptions, prompt: &[u32]) -> Self {
        let shows =
            |id: &u32| shown(&tokenizer, &options, *id).is_some_and(|text| !text.is_empty());
        let leading_spaces =
            if prompt.iter().any(shows) { 0 } else { tokenizer.pieces().leading_spaces() };
        let stops = StopStrings::new(options.stop.clone(), options.include_stop);
        Self { tokenizer, options, stops, utf8: Utf8::default(), leading_spaces, taken: 0 }
    }

    /// The text that `id` adds and makes certain. After a stop string nothing more may be pushed.
    pub(super) fn push(&mut self, id: u32) -> Pushed {
        self.taken += 1;
        let Some(bytes) = shown(&self.tokenizer, &self.options, id) else {
            return Pushed::default();
        };
        let shown = self.utf8.push(drop_spaces(bytes, &mut self.leading_spaces));
        let released = if self.taken <= self.options.min_tokens {
            Released { text: self.stops.pass(&shown), stop: None }
        } else {
            self.stops.push(&shown)
        };
        Pushed { shown, released }
    }

    /// The text that the end of the answer makes certain.
    pub(super) fn finish(&mut self) -> Released {
        let cut = self.utf8.finish();
        let mut released = self.stops.push(cut);
        if released.stop.is_none() {
            released.text.push_str(&self.stops.finish());
        }
        released
    }
}

fn shown<'a>(tokenizer: &'a Tokenizer, options: &TextOptions, id: u32) -> Option<&'a [u8]> {
    let hidden = options.skip_special_tokens
        && tokenizer.pieces().is_special(id)
        && !options.shown_tokens.contains(&id);
    (!hidden).then(|| tokenizer.pieces().bytes(id))
}

/// UTF-8 in pieces: what [`String::from_utf8_lossy`] makes of the whole, for any cut.
#[derive(Default)]
pub(super) struct Utf8 {
    /// The beginning of a character, at most 3 bytes.
    begun: Vec<u8>,
}

impl Utf8 {
    /// All characters that are certain now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.begun.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.begun.len());
        let mut certain = 0;
        for chunk in self.begun.utf8_chunks() {
            let rest = self.begun.len() - certain - chunk.valid().len();
            certain += chunk.valid().len();
            text.push_str(chunk.valid());
            // An invalid end may only lack its last bytes; every other one is wrong for good.
            let unfinished = rest == chunk.invalid().len() && is_beginning(chunk.invalid());
            if !chunk.invalid().is_empty() && !unfinished {
                text.push(char::REPLACEMENT_CHARACTER);
                certain += chunk.invalid().len();
            }
        }
        self.begun.drain(..certain);
        text
    }

    /// What stands for a character that was never finished.
    pub(super) fn finish(&mut self) -> &'static str {
        if std::mem::take(&mut self.begun).is_empty() { "" } else { "\u{fffd}" }
    }
}

fn is_beginning(bytes: &[u8]) -> bool {
    str::from_utf8(bytes)
        .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use proptest::prelude::*;

    fn stream(inner: tokenizers::Tokenizer, stop: &[&str], prompt: &[u32]) -> TextStream {
        let options = TextOptions {
            stop: stop.iter().map(ToString::to_string).collect(),
            include_stop: false,
            skip_special_tokens: true,
            shown_tokens: Vec::new(),
            min_tokens: 0,
        };
        let tokenizer = Tokenizer::new(inner, None, None).expect("a tokenizer");
        TextStream::new(Arc::new(tokenizer), options, prompt)
    }

    fn all(mut stream: TextStream, ids: &[u32]) -> String {
        let mut text: String = ids.iter().map(|id| stream.push(*id).released.text).collect();
        text.push_str(&stream.finish().text);
        text
    }

    fn joined(pieces: &[Vec<u8>]) -> String {
        let mut utf8 = Utf8::default();
        let mut text: String = pieces.iter().map(|piece| utf8.push(piece)).collect();
        text.push_str(utf8.finish());
        text
    }

    #[test]
    fn a_character_comes_whole_and_a_wrong_byte_at_once() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.push(b"a\xe2\x82"), "a");
        assert_eq!(utf8.push(b"\xac"), "€");
        assert_eq!(utf8.push(b"\xe2\x82x"), "\u{fffd}x");
        assert_eq!(utf8.push(b"\xff"), "\u{fffd}");
        assert_eq!(utf8.push(b"\xf0\x9f"), "");
        assert_eq!(utf8.finish(), "\u{fffd}");
        assert_eq!(utf8.finish(), "");
    }

    #[test]
    fn the_first_space_is_dropped_only_where_the_text_begins() {
        let tokenizer = testing::sentence_piece();
        let id = |token| tokenizer.token_to_id(token).expect("a token");
        let ids = [id("\u{2581}a"), id("\u{2581}b")];
        for (prompt, text) in [(vec![], "a b"), (vec![id("<s>")], "a b"), (vec![id("a")], " a b")] {
            assert_eq!(all(stream(tokenizer.clone(), &[], &prompt), &ids), text, "{prompt:?}");
        }
        let spaces = [id("\u{2581}"), id("\u{2581}a")];
        assert_eq!(all(stream(tokenizer, &[], &[]), &spaces), " a", "one space and no more");
    }

    #[test]
    fn a_wrong_byte_does_not_take_back_what_was_sent() {
        let ids: Vec<u32> = b"\xe2\x82\xac\xff".iter().map(|byte| 2 + u32::from(*byte)).collect();
        assert_eq!(all(stream(testing::sentence_piece(), &[], &[]), &ids), "€\u{fffd}");
    }

    #[test]
    fn special_tokens_are_silent() {
        let tokenizer = testing::sentence_piece();
        let id = |token| tokenizer.token_to_id(token).expect("a token");
        let ids = [id("<s>"), id("\u{2581}a"), id("</s>"), id("b")];
        assert_eq!(all(stream(tokenizer.clone(), &[], &[]), &ids), "ab");
    }

    #[test]
    fn a_character_over_several_tokens_is_shown_with_the_last() {
        let tokenizer = testing::sentence_piece();
        let a = tokenizer.token_to_id("\u{2581}a").expect("a token");
        let mut stream = stream(tokenizer, &["🚀!"], &[]);
        let rocket = "🚀".bytes().map(|byte| 2 + u32::from(byte));
        let shown: Vec<_> = [a].into_iter().chain(rocket).map(|id| stream.push(id).shown).collect();
        assert_eq!(shown, ["a", "", "", "", "🚀"], "though all of it is held back");
    }

    #[test]
    fn a_stop_string_may_begin_within_a_character_s_bytes() {
        let mut stream = stream(testing::sentence_piece(), &["€"], &[]);
        let bytes = "b€".bytes().map(|byte| 2 + u32::from(byte));
        let mut released: Vec<Released> = bytes.map(|id| stream.push(id).released).collect();
        assert_eq!(released.pop().expect("the last").stop.as_deref(), Some("€"));
        assert_eq!(released.into_iter().map(|r| r.text).collect::<String>(), "b");
    }

    proptest! {
        #[test]
        fn streamed_text_is_the_text_decoded_whole(
            ids in prop::collection::vec(0u32..520, 0..24),
            text in "[ab é€🚀]{0,12}",
        ) {
            let byte_level = testing::byte_level();
            let whole = byte_level.decode(&ids, true).expect("text");
            prop_assert_eq!(all(stream(byte_level, &[], &[]), &ids), whole);
            let pieces = testing::sentence_piece();
            let ids = pieces.encode_fast(text.as_str(), false).expect("ids").get_ids().to_vec();
            let whole = pieces.decode(&ids, true).expect("text");
            prop_assert_eq!(all(stream(pieces, &[], &[]), &ids), whole);
        }

        #[test]
        fn any_tokens_stop_where_their_whole_text_first_has_the_stop_string(
            ids in prop::collection::vec(3u32..520, 0..24),
            stop in "[a-e ]{1,2}",
        ) {
            let byte_level = testing::byte_level();
            let whole = byte_level.decode(&ids, true).expect("text");
            let mut stream = stream(byte_level, &[&stop], &[]);
            let mut text = String::new();
            let mut stopped = false;
            for id in ids {
                let released = stream.push(id).released;
                text.push_str(&released.text);
                if released.stop.is_some() {
                    stopped = true;
                    break;
                }
            }
            if !stopped {
                text.push_str(&stream.finish().text);
            }
            prop_assert_eq!(stopped, whole.contains(&stop));
            prop_assert_eq!(text, whole.split(&stop).next().unwrap_or_default());
        }

        #[test]
        fn any_cut_of_any_bytes_gives_the_lossy_whole(
            pieces in prop::collection::vec(
                prop::collection::vec(
                    prop_oneof![any::<u8>(), prop::sample::select(b"\xe2\x82\xac\xf0\x9f\x98\x80\xc3a".to_vec())],
                    0..5,
                ),
                0..12,
            ),
        ) {
            let whole = pieces.concat();
            prop_assert_eq!(joined(&pieces), String::from_utf8_lossy(&whole));
        }

        #[test]
        fn any_cut_of_any_text_gives_the_text(text: String, size in 1usize..4) {
            let pieces: Vec<Vec<u8>> = text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(joined(&pieces), text);
        }
    }
}
