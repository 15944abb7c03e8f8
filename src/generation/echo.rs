//! A prompt on its way back to the client, piece by piece.
use super::{
    GenerateEvent, Token,
    text_stream::Utf8,
    tokenizer::{Tokenizer, drop_spaces},
};
use crate::engine::TokenLogprobs;
use std::{collections::VecDeque, sync::Arc};

/// Tokens and alternatives in one event: half a millisecond's work, for all answers together.
const PIECE: usize = 512;

/// What is still to be told of a prompt.
pub(super) struct Echo {
    tokenizer: Arc<Tokenizer>,
    prompt: Vec<u32>,
    /// Tokens told.
    told: usize,
    /// Tokens that are no part of the prompt's text, but were put around it.
    added: Added,
    /// Of the tokens after those told, as far as they are known; `None` where nobody wants them.
    logprobs: Option<VecDeque<TokenLogprobs>>,
    utf8: Utf8,
    leading_spaces: usize,
    answers: usize,
    /// Tokens in one event.
    piece: usize,
}

/// Which tokens a tokenizer put around a text.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Added {
    first: bool,
    last: bool,
}

impl Added {
    /// Special tokens that `text` does not spell itself.
    pub(super) fn around(tokenizer: &Tokenizer, text: &str, ids: &[u32]) -> Self {
        let spelled = |id: u32| tokenizer.token(id).text;
        let is_special = |id: &&u32| tokenizer.pieces().is_special(**id);
        let first = ids.first().filter(is_special);
        let last = ids.last().filter(|_| ids.len() > 1).filter(is_special);
        Self {
            first: first.is_some_and(|id| !text.starts_with(&spelled(*id))),
            last: last.is_some_and(|id| !text.ends_with(&spelled(*id))),
        }
    }
}

impl Echo {
    /// The prompt of `answers` answers; `alternatives` to each token are on their way, if its log-probabilities are.
    pub(super) fn new(
        tokenizer: Arc<Tokenizer>,
        prompt: Vec<u32>,
        added: Added,
        alternatives: Option<usize>,
        answers: usize,
    ) -> Self {
        let leading_spaces = tokenizer.pieces().leading_spaces();
        let entries = (1 + alternatives.unwrap_or(0)) * answers.max(1);
        Self {
            tokenizer,
            prompt,
            told: 0,
            added,
            logprobs: alternatives.map(|_| VecDeque::new()),
            utf8: Utf8::default(),
            leading_spaces,
            answers,
            piece: (PIECE / entries).max(1),
        }
    }

    /// More log-probabilities are there.
    pub(super) fn take(&mut self, logprobs: Vec<TokenLogprobs>) {
        if let Some(known) = &mut self.logprobs {
            known.extend(logprobs);
        }
    }

    /// Whether everything is told.
    pub(super) fn is_done(&self) -> bool {
        self.told == self.prompt.len()
    }

    /// The next piece; `None` while its log-probabilities are not there.
    pub(super) fn next(&mut self) -> Option<GenerateEvent> {
        let left = self.prompt.len() - self.told;
        let known = match &self.logprobs {
            None => left,
            // Nothing judges the first token.
            Some(known) => known.len() + usize::from(self.told == 0),
        };
        if left == 0 || known == 0 {
            return None;
        }
        let tokens: Vec<_> = (0..known.min(left).min(self.piece)).map(|_| self.token()).collect();
        let mut text: String = tokens.iter().map(|token| token.shown.as_str()).collect();
        if self.is_done() {
            text.push_str(self.utf8.finish());
        }
        Some(GenerateEvent::Prompt { answers: 0..self.answers, text, tokens })
    }

    fn token(&mut self) -> Token {
        let (at, id) = (self.told, self.prompt[self.told]);
        self.told += 1;
        let is_added = (at == 0 && self.added.first) || (self.is_done() && self.added.last);
        let shown = if is_added {
            String::new()
        } else {
            let bytes = self.tokenizer.pieces().bytes(id);
            self.utf8.push(drop_spaces(bytes, &mut self.leading_spaces))
        };
        let judged =
            if at == 0 { None } else { self.logprobs.as_mut().and_then(VecDeque::pop_front) };
        Token { shown, ..self.tokenizer.judged(id, judged) }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};

    fn tokenizer() -> Arc<Tokenizer> {
        let tokenizer = Tokenizer::new(testing::sentence_piece(), Some(true), Some("<s>"));
        Arc::new(tokenizer.expect("a tokenizer"))
    }

    fn told(echo: &mut Echo) -> (String, Vec<Token>) {
        let (mut all, mut list) = (String::new(), Vec::new());
        while let Some(GenerateEvent::Prompt { text, tokens, .. }) = echo.next() {
            all.push_str(&text);
            list.extend(tokens);
        }
        (all, list)
    }

    #[test]
    fn the_text_is_the_prompt_s_own_without_what_the_tokenizer_put_before_it() {
        let tokenizer = tokenizer();
        for text in ["ab é", "a  b", "🚀"] {
            let ids = tokenizer.encode(text, true).expect("ids");
            let added = Added::around(&tokenizer, text, &ids);
            let mut echo = Echo::new(tokenizer.clone(), ids.clone(), added, None, 1);
            let (shown, tokens) = told(&mut echo);
            assert_eq!(shown, text);
            assert_eq!(tokens.iter().map(|token| token.id).collect::<Vec<_>>(), ids);
            assert!(echo.is_done());
        }
        let spelled = tokenizer.encode("<s>ab", true).expect("ids");
        assert_eq!(Added::around(&tokenizer, "<s>ab", &spelled), Added::default());
        let ids = vec![0, 2 + u32::from(b'x')];
        let mut bare = Echo::new(tokenizer, ids, Added::default(), None, 1);
        assert_eq!(told(&mut bare).0, "<s>x", "token ids are shown as they are");
    }

    #[test]
    fn a_token_is_told_when_it_is_judged_and_the_first_at_once() {
        let logprobs = |chosen| TokenLogprobs { chosen, rank: 3, top: vec![(4, -0.5)] };
        let mut echo = Echo::new(tokenizer(), vec![260, 261, 262], Added::default(), Some(1), 1);
        let (_, first) = told(&mut echo);
        assert_eq!(first.len(), 1);
        assert_eq!((first[0].logprob, first[0].rank), (None, None));
        echo.take(vec![logprobs(-1.0)]);
        let (_, second) = told(&mut echo);
        assert_eq!((second[0].logprob, second[0].rank), (Some(-1.0), Some(3)));
        assert_eq!((second[0].top[0].id, second[0].top[0].logprob), (4, Some(-0.5)));
        assert!(!echo.is_done());
        echo.take(vec![logprobs(-2.0)]);
        assert_eq!(told(&mut echo).1.len(), 1);
        assert!(echo.is_done());
    }

    #[test]
    fn a_long_prompt_comes_in_pieces_that_are_smaller_for_more_answers() {
        let pieces = |answers| {
            let mut echo = Echo::new(tokenizer(), vec![260; 1000], Added::default(), None, answers);
            std::iter::from_fn(|| echo.next()).count()
        };
        assert_eq!((pieces(1), pieces(64), pieces(1000)), (2, 125, 1000));
    }
}
