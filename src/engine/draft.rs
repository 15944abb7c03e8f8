//! Guesses at the next tokens, out of what the sequence has said already.
//!
//! Prompt look-up (Saxena 2023): where the last few tokens stood before, what followed then may follow now. A guess
//! is only a guess: the model computes every guessed position as it would have computed it alone, the sampler
//! chooses there with the draw it would have made alone, and the first guess it does not choose ends the step. So
//! the answer is the same token by token, greedy or drawn; only its speed changes.

/// The most tokens of the end that are looked for; the longest that is found decides.
const LONGEST: usize = 4;
/// The fewest: single tokens occur too often to say anything.
const SHORTEST: usize = 2;

/// The guessed continuation of one sequence, for one step.
#[derive(Debug, Default)]
pub(super) struct Draft {
    tokens: Vec<u32>,
    /// How many were right the last time, and one more: how far it pays to guess.
    reach: usize,
}

impl Draft {
    /// The guessed tokens.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Guesses how `known` goes on, `most` tokens at most. How many it guessed.
    pub(super) fn guess(&mut self, known: &[u32], most: usize) -> usize {
        self.tokens.clear();
        let reach = self.reach.max(1).min(most);
        self.tokens.extend_from_slice(continuation(known, reach));
        self.tokens.len()
    }

    /// No guess.
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
    }

    /// `right` of the guessed tokens were chosen: after a success it reaches further, after a failure less far.
    pub(super) fn judge(&mut self, right: usize) {
        if !self.tokens.is_empty() {
            let all = right == self.tokens.len();
            self.reach = if all { 2 * right.max(1) } else { right + 1 };
        }
        self.tokens.clear();
    }
}

/// What followed the latest earlier occurrence of the end of `known`, `most` tokens of it at most.
fn continuation(known: &[u32], most: usize) -> &[u32] {
    if most == 0 {
        return &[];
    }
    let found = (SHORTEST..=LONGEST).rev().find_map(|len| {
        let end = known.len().checked_sub(len)?;
        let (before, suffix) = (&known[..known.len().saturating_sub(1)], &known[end..]);
        let at = before.windows(len).rposition(|window| window == suffix)?;
        Some(at + len)
    });
    let Some(start) = found else { return &[] };
    &known[start..(start + most).min(known.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_longest_known_end_is_guessed() {
        // `2 3` stood before twice, `1 2 3` once.
        let known = [1, 2, 3, 7, 8, 9, 2, 3, 5, 1, 2, 3];
        assert_eq!(continuation(&known, 3), [7, 8, 9]);
        assert_eq!(continuation(&known[..9], 3), [0; 0], "`3 5` is new");
        assert_eq!(continuation(&[4, 4, 4, 4], 5), [4], "up to the end of what is known");
        assert_eq!(continuation(&known, 0), [0; 0]);
        assert_eq!(continuation(&[1], 3), [0; 0]);
        assert_eq!(continuation(&[], 3), [0; 0]);
    }

    #[test]
    fn the_latest_of_equals_is_taken() {
        assert_eq!(continuation(&[1, 2, 5, 1, 2, 6, 1, 2], 1), [6]);
    }

    #[test]
    fn it_reaches_further_while_it_is_right() {
        let known: Vec<u32> = (0..40).chain(0..10).collect();
        let mut draft = Draft::default();
        let guessed = |draft: &mut Draft| draft.guess(&known, 8);
        assert_eq!(guessed(&mut draft), 1);
        draft.judge(1);
        assert_eq!(guessed(&mut draft), 2);
        draft.judge(2);
        assert_eq!(guessed(&mut draft), 4);
        draft.judge(1);
        assert_eq!(guessed(&mut draft), 2);
        draft.judge(0);
        assert_eq!(guessed(&mut draft), 1);
    }
}
