//! Tokens at their places in a text, and texts of tokens.
use super::{
    GenerateError, Generator,
    generator::CONTEXTS,
    tokenizer::{Bos, Tokenizer},
};
use std::ops::Range;

/// A token at its place in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedToken {
    /// Its id.
    pub id: u32,
    /// What it stands for in the text; of a special token, how the vocabulary spells it.
    pub text: String,
    /// Characters of the text; `None` for a special token, which stands for none.
    pub characters: Option<Range<usize>>,
}

impl Generator {
    /// The tokens of `text` with their places.
    ///
    /// # Errors
    /// When the text is longer than any the model is given, or the tokenizer's own rules fail.
    pub async fn places(
        &self,
        text: String,
        add_special_tokens: bool,
    ) -> Result<Vec<PlacedToken>, GenerateError> {
        let context = self.model().max_context;
        let place = move |tokenizer: &Tokenizer| {
            let least = tokenizer.least(&text);
            if least > context.saturating_mul(CONTEXTS) {
                return Err(GenerateError::TextTooLong { context, least });
            }
            tokenizer.places(&text, add_special_tokens)
        };
        self.on_tokenizer(place).await
    }

    /// The text of `ids`, without special tokens where they are to be skipped.
    ///
    /// # Errors
    /// When the tokenizer has no such token, or there are more than any answer has.
    pub async fn text_of(
        &self,
        ids: Vec<u32>,
        skip_special_tokens: bool,
    ) -> Result<String, GenerateError> {
        let ids = if skip_special_tokens { self.without_special(ids) } else { ids };
        self.detokenize(ids).await
    }
}

impl Tokenizer {
    fn places(&self, text: &str, add_special: bool) -> Result<Vec<PlacedToken>, GenerateError> {
        let by_rules = add_special && self.bos != Bos::None;
        // The cause may quote the text.
        let encoding = self.inner.encode_char_offsets(text, by_rules).map_err(|_| {
            let message = "the tokenizer cannot encode this text".into();
            GenerateError::Invalid { field: "inputs", message }
        })?;
        // Where each character begins, and the text's end.
        let mut bytes: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
        bytes.push(text.len());
        let of_text = |(start, end): (usize, usize)| {
            bytes.get(start).zip(bytes.get(end)).and_then(|(from, to)| text.get(*from..*to))
        };
        let special = |id: u32| PlacedToken {
            id,
            text: self.inner.id_to_token(id).unwrap_or_default(),
            characters: None,
        };
        let offsets = encoding.get_offsets().iter().zip(encoding.get_special_tokens_mask());
        let mut places: Vec<_> = std::iter::zip(encoding.get_ids(), offsets)
            .map(|(&id, (&offsets, &is_special))| match is_special {
                0 => PlacedToken {
                    id,
                    text: of_text(offsets).unwrap_or_default().to_owned(),
                    characters: Some(offsets.0..offsets.1),
                },
                _ => special(id),
            })
            .collect();
        match self.bos {
            Bos::Token(id) if add_special && places.first().is_none_or(|first| first.id != id) => {
                places.insert(0, special(id));
            }
            _ => {}
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};

    #[test]
    fn a_token_is_placed_by_characters_and_a_special_one_nowhere() {
        let tokenizer = Tokenizer::new(testing::sentence_piece(), Some(true), Some("<s>"));
        let tokenizer = tokenizer.expect("a tokenizer");
        let places = tokenizer.places("\u{e9} a", true).expect("places");
        let (first, others) = places.split_first().expect("tokens");
        assert_eq!((first.text.as_str(), &first.characters), ("<s>", &None));
        let last = others.last().expect("a token");
        assert_eq!(last.characters.as_ref().map(|at| at.end), Some(3), "{places:?}");
        assert!(others.iter().all(|token| token.characters.is_some()));
        assert!(
            tokenizer.places("a", false).expect("places").iter().all(|token| token.text != "<s>")
        );
    }
}
