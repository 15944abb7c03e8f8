//! Merges of a `SentencePiece` vocabulary, which has scores in their place.
use std::{cmp::Ordering, collections::HashMap};

/// A token that two others may be joined to.
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    pub(super) score: f64,
}

/// Every way to put a piece together from two others, best piece first and the longer left part first: the order
/// in which `transformers`' conversion of a `SentencePiece` model has them.
pub(super) fn merges<'a>(pieces: &[Piece<'a>]) -> Vec<(&'a str, &'a str)> {
    let scores: HashMap<&str, f64> = pieces.iter().map(|piece| (piece.text, piece.score)).collect();
    let mut merges: Vec<(f64, &str, &str)> = Vec::new();
    for piece in pieces {
        let cuts = piece.text.char_indices().map(|(at, _)| at).skip(1);
        let halves = cuts.map(|cut| piece.text.split_at(cut));
        let known = halves.filter(|(a, b)| scores.contains_key(a) && scores.contains_key(b));
        merges.extend(known.map(|(a, b)| (piece.score, a, b)));
    }
    merges.sort_by(|x, y| before(y, x));
    merges.into_iter().map(|(_, a, b)| (a, b)).collect()
}

fn before(x: &(f64, &str, &str), y: &(f64, &str, &str)) -> Ordering {
    let chars = |text: &str| text.chars().count();
    x.0.total_cmp(&y.0)
        .then_with(|| chars(x.1).cmp(&chars(y.1)))
        .then_with(|| chars(x.2).cmp(&chars(y.2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_pieces_come_first_and_unknown_halves_not_at_all() {
        let piece = |(text, score)| Piece { text, score };
        let pieces =
            [("a", -9.0), ("b", -8.0), ("ab", -2.0), ("ba", -1.0), ("aba", -3.0), ("cab", 0.0)];
        let merges = merges(&pieces.map(piece));
        assert_eq!(merges, [("b", "a"), ("a", "b"), ("ab", "a"), ("a", "ba")]);
    }
}
