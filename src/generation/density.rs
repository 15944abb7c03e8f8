//! How much text a token can stand for at most: where that is known, what is far too long is refused uncounted.
use super::pieces::Pieces;
use tokenizers::{
    ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer,
    tokenizer::SplitDelimiterBehavior,
};

/// Unicode's normal forms, and capital letters made small, shorten no text below a quarter of its bytes.
const NORMAL_FORM: usize = 4;

/// Bytes of text that a token stands for at most; `None` where one may stand for any number: where unknown words become
/// one token, or the tokenizer drops characters.
pub(super) fn bytes_per_token(tokenizer: &Tokenizer, pieces: &Pieces) -> Option<usize> {
    let added = tokenizer.get_added_tokens_decoder();
    let takes_spaces = added.values().any(|token| token.lstrip || token.rstrip);
    let is_exact = match tokenizer.get_model() {
        ModelWrapper::BPE(_) | ModelWrapper::Unigram(_) => pieces.spell_every_byte(),
        ModelWrapper::WordPiece(_) | ModelWrapper::WordLevel(_) => false,
    };
    if takes_spaces || !is_exact || !tokenizer.get_pre_tokenizer().is_none_or(keeps_all) {
        return None;
    }
    let shortened = tokenizer.get_normalizer().map_or(Some(1), shortened_by)?;
    Some(pieces.longest() * shortened)
}

/// By which factor it may shorten a text; `None` is any.
fn shortened_by(normalizer: &NormalizerWrapper) -> Option<usize> {
    match normalizer {
        NormalizerWrapper::Sequence(sequence) => {
            sequence.as_ref().iter().map(shortened_by).product()
        }
        NormalizerWrapper::NFC(_)
        | NormalizerWrapper::NFD(_)
        | NormalizerWrapper::NFKC(_)
        | NormalizerWrapper::NFKD(_)
        | NormalizerWrapper::Lowercase(_) => Some(NORMAL_FORM),
        NormalizerWrapper::Prepend(_) | NormalizerWrapper::ByteLevel(_) => Some(1),
        NormalizerWrapper::Replace(replace) => {
            let json = serde_json::to_value(replace).ok()?;
            let pattern = json.get("pattern")?.get("String")?.as_str()?;
            (pattern.len() <= replace.content.len()).then_some(1)
        }
        NormalizerWrapper::BertNormalizer(_)
        | NormalizerWrapper::StripNormalizer(_)
        | NormalizerWrapper::StripAccents(_)
        | NormalizerWrapper::Nmt(_)
        | NormalizerWrapper::Precompiled(_) => None,
    }
}

/// Whether every character of a text is in one of the parts.
fn keeps_all(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    let kept = |behavior| !matches!(behavior, SplitDelimiterBehavior::Removed);
    match pre_tokenizer {
        PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref().iter().all(keeps_all),
        PreTokenizerWrapper::Split(split) => kept(split.behavior),
        PreTokenizerWrapper::Punctuation(punctuation) => kept(punctuation.behavior),
        PreTokenizerWrapper::ByteLevel(_)
        | PreTokenizerWrapper::Metaspace(_)
        | PreTokenizerWrapper::Digits(_)
        | PreTokenizerWrapper::UnicodeScripts(_)
        | PreTokenizerWrapper::FixedLength(_) => true,
        PreTokenizerWrapper::BertPreTokenizer(_)
        | PreTokenizerWrapper::Delimiter(_)
        | PreTokenizerWrapper::Whitespace(_)
        | PreTokenizerWrapper::WhitespaceSplit(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::testing;
    use serde_json::{Value, json};

    fn of(tokenizer: &Tokenizer) -> Option<usize> {
        bytes_per_token(tokenizer, &Pieces::new(tokenizer).expect("pieces"))
    }

    /// A byte-level tokenizer with another normalizer.
    fn normalized(normalizer: &Value) -> Option<usize> {
        let mut json: Value =
            serde_json::from_str(&testing::byte_level().to_string(false).expect("json"))
                .expect("json");
        json["normalizer"] = normalizer.clone();
        of(&Tokenizer::from_bytes(json.to_string()).expect("a tokenizer"))
    }

    #[test]
    fn a_token_that_spells_bytes_stands_for_as_many_as_it_has() {
        let longest = Pieces::new(&testing::byte_level()).expect("pieces").longest();
        assert_eq!(of(&testing::byte_level()), Some(longest));
        assert!(of(&testing::sentence_piece()).is_some(), "a space becomes a longer mark");
        assert_eq!(normalized(&json!({"type": "NFC"})), Some(4 * longest));
        let marks = json!({"type": "Replace", "pattern": {"String": " "}, "content": "__"});
        assert_eq!(normalized(&marks), Some(longest));
    }

    #[test]
    fn an_unknown_word_or_dropped_characters_may_be_of_any_length() {
        assert_eq!(of(&testing::words(&Value::Null)), None);
        for normalizer in [
            json!({"type": "Strip", "strip_left": true, "strip_right": true}),
            json!({"type": "StripAccents"}),
            json!({"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}),
            json!({"type": "Replace", "pattern": {"String": "  "}, "content": " "}),
            json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "StripAccents"}]}),
        ] {
            assert_eq!(normalized(&normalizer), None, "{normalizer}");
        }
    }
}
