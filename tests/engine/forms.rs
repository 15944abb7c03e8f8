//! Forms of answers that can be seen through.
use super::stub::VOCAB;
use lorad::engine::{TokenConstraint, TokenMask, Unenforceable};

/// The next token has the remainder of the last one and one more, by `modulus`; the answer may end from `least`
/// tokens on, and must after `most`.
#[derive(Clone, Debug)]
pub(crate) struct Stairs {
    pub(crate) modulus: u32,
    pub(crate) least: usize,
    pub(crate) most: usize,
    taken: Vec<u32>,
}

impl Stairs {
    pub(crate) fn new(modulus: u32, least: usize, most: usize) -> Self {
        Self { modulus, least, most, taken: Vec::new() }
    }

    /// Whether tokens are steps of these stairs.
    pub(crate) fn are_steps(&self, tokens: &[u32]) -> bool {
        let before = std::iter::once(0).chain(tokens.iter().copied());
        before
            .zip(tokens)
            .all(|(before, token)| token % self.modulus == (before + 1) % self.modulus)
    }
}

impl TokenConstraint for Stairs {
    fn allow(&mut self, mask: &mut TokenMask) -> Result<bool, Unenforceable> {
        if self.taken.len() < self.most {
            let last = self.taken.last().copied().unwrap_or(0);
            let is_next = |token: &u32| token % self.modulus == (last + 1) % self.modulus;
            (0..VOCAB as u32).filter(is_next).for_each(|token| mask.allow(token));
        }
        Ok(self.taken.len() >= self.least)
    }

    fn accept(&mut self, token: u32) -> Result<bool, Unenforceable> {
        self.taken.push(token);
        // What was thrown away and computed again must not be taken again.
        if self.are_steps(&self.taken) {
            Ok(self.taken.len() >= self.most)
        } else {
            Err(Unenforceable)
        }
    }
}

/// Fails in one way or another at its third token.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Broken {
    Mask,
    MaskPanics,
    Accept,
    AcceptPanics,
    /// Nothing may follow, not even the end.
    Stuck,
}

/// A broken form and the tokens it has taken.
#[derive(Debug)]
pub(crate) struct Failing(pub(crate) Broken, pub(crate) usize);

impl TokenConstraint for Failing {
    fn allow(&mut self, mask: &mut TokenMask) -> Result<bool, Unenforceable> {
        match (self.1, self.0) {
            (2, Broken::Mask) => return Err(Unenforceable),
            (2, Broken::MaskPanics) => panic!("on purpose"),
            (2, Broken::Stuck) => return Ok(false),
            _ => mask.allow_all(&[u32::MAX; VOCAB / 32]),
        }
        Ok(false)
    }

    fn accept(&mut self, _: u32) -> Result<bool, Unenforceable> {
        self.1 += 1;
        match (self.1, self.0) {
            (3, Broken::Accept) => Err(Unenforceable),
            (3, Broken::AcceptPanics) => panic!("on purpose"),
            _ => Ok(false),
        }
    }
}
