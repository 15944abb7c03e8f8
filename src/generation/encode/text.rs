//! A text as the model reads it: tokens with the special ones around them, cut where that is wanted.
use super::{InputError, Keep};
use crate::generation::tokenizer::{Bos, Tokenizer};
use std::ops::Range;
use tokenizers::{Encoding, PostProcessor, TruncationDirection};

/// Tokens to read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text {
    pub(super) ids: Vec<u32>,
    /// Where a second text begins, for models that tell the two apart.
    pub(super) second: Option<usize>,
    /// Which bytes of the text each token stands for; `None` where nobody wants to know.
    pub(super) spans: Option<Vec<Span>>,
}

/// Bytes of the text; `None` of special tokens.
pub(super) type Span = Option<Range<usize>>;

/// One input, and where it stands in its request.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The request's field, with its index.
    pub(super) field: String,
    /// The same in a sentence.
    pub(super) what: String,
}

/// How texts are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// Whether the tokenizer adds its special tokens.
    pub(super) special: bool,
    /// Whether it matters which part of a text a token stands for.
    pub(super) spans: bool,
    /// Tokens there may be.
    pub(super) limit: usize,
    /// Which end of a longer one stays; `None` refuses it.
    pub(super) keep: Option<Keep>,
    /// Tokens of the model's vocabulary.
    pub(super) vocab: usize,
}

impl Place {
    /// Nothing is there.
    pub(super) fn empty(&self) -> InputError {
        InputError::Empty { field: self.field.clone() }
    }

    fn too_long(&self, tokens: usize, limit: usize) -> InputError {
        let (field, what) = (self.field.clone(), self.what.clone());
        InputError::TooLong { field, what, tokens, limit }
    }

    fn far_too_long(&self, least: usize, limit: usize) -> InputError {
        let (field, what) = (self.field.clone(), self.what.clone());
        InputError::FarTooLong { field, what, least, limit }
    }

    pub(super) fn invalid(&self, message: String) -> InputError {
        InputError::Invalid { field: self.field.clone(), message }
    }
}

/// Token ids as they came.
pub(super) fn of_tokens(mut ids: Vec<u32>, form: Form, place: &Place) -> Result<Text, InputError> {
    let Form { limit, keep, vocab, .. } = form;
    if ids.is_empty() {
        return Err(place.empty());
    }
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
        return Err(place.invalid(format!(
            "token {id} of {} is not below the vocabulary's {vocab}",
            place.what
        )));
    }
    match (ids.len().saturating_sub(limit), keep) {
        (0, _) => {}
        (_, None) => return Err(place.too_long(ids.len(), limit)),
        (_, Some(Keep::First)) => ids.truncate(limit),
        (over, Some(Keep::Last)) => drop(ids.drain(..over)),
    }
    Ok(Text { ids, second: None, spans: None })
}

impl Tokenizer {
    /// The tokens of one text, or of two side by side; slow for long texts, so those belong on a blocking thread.
    ///
    /// # Errors
    /// When it is empty, too long, or the tokenizer's own rules fail.
    pub(super) fn read(
        &self,
        (first, second): (&str, Option<&str>),
        form: Form,
        place: &Place,
    ) -> Result<Text, InputError> {
        if first.is_empty() || second.is_some_and(str::is_empty) {
            return Err(place.empty());
        }
        let least = self.least(first) + second.map_or(0, |second| self.least(second));
        if form.keep.is_none() && least > form.limit {
            return Err(place.far_too_long(least, form.limit));
        }
        let cannot = || place.invalid(format!("the tokenizer cannot encode {}", place.what));
        // The cause may quote the text.
        let encode = |text: &str| {
            if form.spans {
                self.inner.encode(text, false)
            } else {
                self.inner.encode_fast(text, false)
            }
        };
        let mut first = encode(first).map_err(|_| cannot())?;
        let mut second = second.map(encode).transpose().map_err(|_| cannot())?;
        self.fit(&mut first, second.as_mut(), form, place)?;
        let offsets = form.spans.then(|| first.get_offsets().to_vec());
        if let Some(second) = &mut second {
            second.set_type_ids(vec![1; second.len()]);
        }
        let by_rules = form.special && self.bos != Bos::None;
        let all = self.inner.post_process(first, second, by_rules).map_err(|_| cannot())?;
        if all.is_empty() {
            return Err(place.empty());
        }
        let mut text = Text {
            ids: all.get_ids().to_vec(),
            second: all.get_type_ids().iter().position(|kind| *kind == 1),
            spans: offsets.map(|offsets| spans(&offsets, all.get_special_tokens_mask())),
        };
        match self.bos {
            Bos::Token(bos) if form.special && text.ids.first() != Some(&bos) => {
                text.ids.insert(0, bos);
                text.second = text.second.map(|second| second + 1);
                text.spans.iter_mut().for_each(|spans| spans.insert(0, None));
            }
            _ => {}
        }
        if let Some(id) = text.ids.iter().find(|id| **id as usize >= form.vocab) {
            return Err(place.invalid(format!(
                "{} has a token that the model does not know: {id}",
                place.what
            )));
        }
        Ok(text)
    }

    /// Cuts what is too long: the longer of two, until both are equally long.
    fn fit(
        &self,
        first: &mut Encoding,
        second: Option<&mut Encoding>,
        form: Form,
        place: &Place,
    ) -> Result<(), InputError> {
        let special = self.special_tokens(first, second.is_some(), form);
        let has = (first.len(), second.as_ref().map_or(0, |second| second.len()));
        let tokens = has.0 + has.1 + special;
        if tokens <= form.limit {
            return Ok(());
        }
        let Some(keep) = form.keep else { return Err(place.too_long(tokens, form.limit)) };
        let texts = 1 + usize::from(second.is_some());
        let room = form.limit.saturating_sub(special);
        if room < texts {
            return Err(place.invalid(format!(
                "{} tokens leave no room beside the {special} special ones of {}; allow more",
                form.limit, place.what
            )));
        }
        let (of_first, of_second) = shares(has, room);
        cut(first, of_first, keep);
        if let Some(second) = second {
            cut(second, of_second, keep);
        }
        Ok(())
    }

    /// Tokens that are put around the texts.
    fn special_tokens(&self, first: &Encoding, is_pair: bool, form: Form) -> usize {
        let rules = self.inner.get_post_processor().filter(|_| self.bos != Bos::None);
        let by_rules = rules.map_or(0, |rules| rules.added_tokens(is_pair));
        match self.bos {
            _ if !form.special => 0,
            Bos::Token(bos) => {
                let begins = |encoding: &Encoding| encoding.get_ids().first() == Some(&bos);
                let by_rule = self.inner.encode_fast("", true).is_ok_and(|empty| begins(&empty));
                by_rules + usize::from(!by_rule && !begins(first))
            }
            Bos::Rules | Bos::None => by_rules,
        }
    }
}

/// Which part of the text each token stands for, of tokens that are special where the mask says so.
fn spans(offsets: &[(usize, usize)], special: &[u32]) -> Vec<Span> {
    let mut offsets = offsets.iter();
    let span = |special: &u32| {
        (*special == 0).then(|| offsets.next().map(|(start, end)| *start..*end)).flatten()
    };
    special.iter().map(span).collect()
}

/// Tokens of each of two texts that are `room` together: only the longer one is cut, until they are equally long.
fn shares((first, second): (usize, usize), room: usize) -> (usize, usize) {
    let half = room / 2;
    if first <= second {
        let first = first.min(half);
        (first, room - first)
    } else {
        let second = second.min(half);
        (room - second, second)
    }
}

fn cut(encoding: &mut Encoding, tokens: usize, keep: Keep) {
    let direction = match keep {
        Keep::First => TruncationDirection::Right,
        Keep::Last => TruncationDirection::Left,
    };
    encoding.truncate(tokens, 0, direction);
    // What was cut off would be finished as well.
    encoding.take_overflowing();
}
