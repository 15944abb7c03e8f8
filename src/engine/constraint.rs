//! What an answer's tokens must be: the seam to whoever knows the form of a whole answer.
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
};

/// Bits of a word of a mask.
const BITS: usize = u32::BITS as usize;

/// Follows one answer, and says at each place which tokens may come next.
pub trait TokenConstraint: fmt::Debug + Send {
    /// Allows in `mask`, which allows nothing yet, every token that may come next. Whether the answer may end here.
    ///
    /// Called on the kernels' threads, for many answers at once.
    ///
    /// # Errors
    /// When it cannot tell; the answer fails.
    fn allow(&mut self, mask: &mut TokenMask) -> Result<bool, Unenforceable>;

    /// Takes the token that came, one of those that were allowed. Whether nothing but the end can follow.
    ///
    /// # Errors
    /// When it cannot go on; the answer fails.
    fn accept(&mut self, token: u32) -> Result<bool, Unenforceable>;
}

/// A form that cannot be followed any further. It does not say why: reasons may quote the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the answer's form cannot be enforced any further")]
pub struct Unenforceable;

/// A set of tokens.
#[derive(Debug, Default)]
pub struct TokenMask {
    words: Vec<u32>,
    vocab: usize,
}

impl TokenMask {
    /// None of the tokens below `vocab`.
    pub fn new(vocab: usize) -> Self {
        let mut mask = Self::default();
        mask.reset(vocab);
        mask
    }

    /// Empties it, for tokens below `vocab`.
    pub(super) fn reset(&mut self, vocab: usize) {
        self.vocab = vocab;
        self.words.clear();
        self.words.resize(vocab.div_ceil(BITS), 0);
    }

    /// Adds a token; one that is not in the vocabulary changes nothing.
    pub fn allow(&mut self, token: u32) {
        if let Some((word, bit)) = self.place(token) {
            self.words[word] |= bit;
        }
    }

    /// Adds every token whose bit is set: token `t` is bit `t % 32` of word `t / 32`. Bits beyond the vocabulary
    /// change nothing.
    pub fn allow_all(&mut self, words: &[u32]) {
        for (own, more) in self.words.iter_mut().zip(words) {
            *own |= more;
        }
        let rest = self.vocab % BITS;
        if let (Some(last), 1..) = (self.words.last_mut(), rest) {
            *last &= (1 << rest) - 1;
        }
    }

    /// Whether a token is in it.
    pub fn is_allowed(&self, token: u32) -> bool {
        self.place(token).is_some_and(|(word, bit)| self.words[word] & bit != 0)
    }

    fn forbid(&mut self, token: u32) {
        if let Some((word, bit)) = self.place(token) {
            self.words[word] &= !bit;
        }
    }

    fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    fn place(&self, token: u32) -> Option<(usize, u32)> {
        let token = token as usize;
        (token < self.vocab).then_some((token / BITS, 1 << (token % BITS)))
    }

    /// Takes every token that is not allowed out of the running.
    pub(super) fn apply(&self, logits: &mut [f32]) {
        for (word, logits) in self.words.iter().zip(logits.chunks_mut(BITS)) {
            match *word {
                0 => logits.fill(f32::NEG_INFINITY),
                u32::MAX => {}
                word => {
                    for (bit, logit) in logits.iter_mut().enumerate() {
                        if word >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
    }
}

/// One sequence's constraint. A panic of it is its own failure, and nobody else's.
#[derive(Debug)]
pub(super) struct Constrained(Mutex<Box<dyn TokenConstraint>>);

/// What may come at a place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// The tokens of the mask.
    Tokens,
    /// Nothing: the answer is complete.
    End,
}

impl Constrained {
    pub(super) fn new(constraint: Box<dyn TokenConstraint>) -> Self {
        Self(Mutex::new(constraint))
    }

    /// Fills `mask`. The tokens of `ends` are in it where, and only where, the answer may end; those of `stops` there too.
    pub(super) fn next(
        &self,
        mask: &mut TokenMask,
        ends: &[u32],
        stops: &[u32],
    ) -> Result<Next, Unenforceable> {
        let may_end = self.guarded(|constraint| constraint.allow(mask))?;
        for end in ends {
            mask.forbid(*end);
        }
        match (may_end, mask.is_empty()) {
            (true, true) => return Ok(Next::End),
            (true, false) => {
                for token in ends.iter().chain(stops) {
                    mask.allow(*token);
                }
            }
            (false, true) => return Err(Unenforceable),
            (false, false) => {}
        }
        Ok(Next::Tokens)
    }

    /// Whether nothing but the end can follow `token`.
    pub(super) fn accept(&self, token: u32) -> Result<bool, Unenforceable> {
        self.guarded(|constraint| constraint.accept(token))
    }

    /// After a panic nothing is known any more: the lock stays poisoned.
    fn guarded<T>(
        &self,
        work: impl FnOnce(&mut dyn TokenConstraint) -> Result<T, Unenforceable>,
    ) -> Result<T, Unenforceable> {
        let worked = catch_unwind(AssertUnwindSafe(|| {
            let mut constraint = self.0.lock().map_err(|_| Unenforceable)?;
            work(constraint.as_mut())
        }));
        worked.unwrap_or(Err(Unenforceable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Allows some tokens, perhaps the end; panics when it is given 9.
    #[derive(Debug)]
    struct Allows(Vec<u32>, bool);

    impl TokenConstraint for Allows {
        fn allow(&mut self, mask: &mut TokenMask) -> Result<bool, Unenforceable> {
            self.0.iter().for_each(|token| mask.allow(*token));
            Ok(self.1)
        }

        fn accept(&mut self, token: u32) -> Result<bool, Unenforceable> {
            assert_ne!(token, 9, "on purpose");
            Ok(self.1)
        }
    }

    fn next(allowed: &[u32], may_end: bool) -> (Result<Next, Unenforceable>, Vec<usize>) {
        let mut mask = TokenMask::new(70);
        let constrained = Constrained::new(Box::new(Allows(allowed.to_vec(), may_end)));
        let next = constrained.next(&mut mask, &[2], &[3, 999]);
        let mut logits = [0.0; 70];
        mask.apply(&mut logits);
        (next, (0..70).filter(|id| logits[*id] == 0.0).collect())
    }

    #[test]
    fn tokens_that_end_the_answer_come_only_where_it_may_end() {
        assert_eq!(next(&[1, 2, 69, 70], false), (Ok(Next::Tokens), vec![1, 69]));
        assert_eq!(next(&[1, 69], true), (Ok(Next::Tokens), vec![1, 2, 3, 69]));
        assert_eq!(next(&[1, 3], false).1, [1, 3], "a stop token may be text");
        assert_eq!(next(&[], true).0, Ok(Next::End));
        assert_eq!(next(&[2], true).0, Ok(Next::End), "the end is no text");
        assert_eq!(next(&[], false).0, Err(Unenforceable));
    }

    #[test]
    fn words_of_bits_beyond_the_vocabulary_change_nothing() {
        let mut mask = TokenMask::default();
        for (vocab, all) in [(40, 40), (32, 32), (64, 64)] {
            mask.reset(vocab);
            mask.allow_all(&[u32::MAX; 3]);
            assert_eq!(mask.words.iter().map(|word| word.count_ones()).sum::<u32>(), all);
        }
        mask.reset(40);
        mask.allow_all(&[0b101]);
        let mut logits = [1.0; 40];
        mask.apply(&mut logits);
        assert_eq!(logits.iter().filter(|logit| **logit > 0.0).count(), 2);
    }

    #[test]
    fn a_panic_fails_the_answer_for_good() {
        let constrained = Constrained::new(Box::new(Allows(vec![1], false)));
        assert_eq!(constrained.accept(1), Ok(false));
        assert_eq!(constrained.accept(9), Err(Unenforceable));
        assert_eq!(constrained.accept(1), Err(Unenforceable));
        assert_eq!(constrained.next(&mut TokenMask::default(), &[], &[]), Err(Unenforceable));
    }
}
