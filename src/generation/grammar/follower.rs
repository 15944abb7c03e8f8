//! One answer's place in its grammar.
use super::compiler::Compiled;
use crate::engine::{TokenConstraint, TokenMask, Unenforceable};
use llguidance::Matcher;
use std::{fmt, sync::Arc};

/// Follows an answer, in a copy of the grammar that is its own: answers share nothing that changes, so none depends on
/// another, and none waits for another.
pub(super) struct Follower {
    grammar: Arc<Compiled>,
    /// Made for the first token, on the thread that chooses it.
    own: Option<Matcher>,
}

impl Follower {
    pub(super) fn new(grammar: Arc<Compiled>) -> Self {
        Self { grammar, own: None }
    }

    fn matcher(&mut self) -> &mut Matcher {
        self.own.get_or_insert_with(|| self.grammar.start.deep_clone())
    }
}

impl TokenConstraint for Follower {
    fn allow(&mut self, mask: &mut TokenMask) -> Result<bool, Unenforceable> {
        let end = self.grammar.end;
        let allowed = self.matcher().compute_mask_or_eos().map_err(|_| Unenforceable)?;
        mask.allow_all(allowed.as_slice());
        Ok(allowed.is_allowed(end))
    }

    fn accept(&mut self, token: u32) -> Result<bool, Unenforceable> {
        let matcher = self.matcher();
        matcher.consume_token(token).map_err(|_| Unenforceable)?;
        Ok(matcher.is_stopped())
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}
