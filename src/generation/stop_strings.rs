//! Finds stop strings in text that arrives in pieces, and holds back what may become one.
use std::sync::Arc;

/// The search over one answer's text. The result does not depend on how the text was cut.
pub(super) struct StopStrings {
    stops: Arc<[String]>,
    /// Whether a found stop string is part of the released text.
    include: bool,
    /// Text that is the beginning of a stop string, and nothing more.
    held: String,
}

/// What a piece of text set free.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Released {
    /// Certain text.
    pub(super) text: String,
    /// The stop string that ended it.
    pub(super) stop: Option<String>,
}

impl StopStrings {
    /// Each of `stops` is not empty.
    pub(super) fn new(stops: Arc<[String]>, include: bool) -> Self {
        Self { stops, include, held: String::new() }
    }

    /// Takes the next piece. Of several stop strings the one that is complete first counts, and of
    /// those that end together the longest.
    pub(super) fn push(&mut self, piece: &str) -> Released {
        self.held.push_str(piece);
        let hits = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, stop))
        });
        if let Some((end, start, stop)) = hits.min_by_key(|(end, start, _)| (*end, *start)) {
            let stop = Some(stop.clone());
            self.held.truncate(if self.include { end } else { start });
            return Released { text: std::mem::take(&mut self.held), stop };
        }
        let held = self.held.split_off(self.held.len() - self.beginning());
        Released { text: std::mem::replace(&mut self.held, held), stop: None }
    }

    /// Takes a piece that is not searched, nor what was held before it.
    pub(super) fn pass(&mut self, piece: &str) -> String {
        let mut text = self.finish();
        text.push_str(piece);
        text
    }

    /// Sets free what was held: no stop string can come of it any more.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes of the longest end of the held text that begins a stop string.
    fn beginning(&self) -> usize {
        let held = self.held.as_bytes();
        let begins = |length: &usize| {
            let end = &held[held.len() - length..];
            self.stops.iter().any(|stop| stop.len() > *length && stop.as_bytes().starts_with(end))
        };
        let longest = self.stops.iter().map(|stop| stop.len() - 1).max().unwrap_or(0);
        (1..=longest.min(held.len())).rev().find(begins).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn search(stops: &[&str], include: bool) -> StopStrings {
        StopStrings::new(stops.iter().map(ToString::to_string).collect(), include)
    }

    fn run(mut search: StopStrings, pieces: &[&str]) -> (String, Option<String>) {
        let mut text = String::new();
        for piece in pieces {
            let released = search.push(piece);
            text.push_str(&released.text);
            if released.stop.is_some() {
                return (text, released.stop);
            }
        }
        text.push_str(&search.finish());
        (text, None)
    }

    #[test]
    fn only_a_possible_beginning_is_held_back() {
        let mut search = search(&["END"], false);
        assert_eq!(search.push("one E").text, "one ");
        assert_eq!(search.push("x").text, "Ex");
        assert_eq!(search.push("EN").text, "");
        assert_eq!(
            search.push("D tail"),
            Released { text: String::new(), stop: Some("END".into()) }
        );
    }

    #[test]
    fn the_stop_string_stays_when_it_is_asked_for() {
        assert_eq!(
            run(search(&["\n\n"], true), &["a\n", "\nb"]),
            ("a\n\n".into(), Some("\n\n".into()))
        );
        assert_eq!(
            run(search(&["\n\n"], false), &["a\n", "\nb"]),
            ("a".into(), Some("\n\n".into()))
        );
        assert_eq!(run(search(&["\n\n"], false), &["a\n", "b\n"]), ("a\nb\n".into(), None));
    }

    #[test]
    fn of_stops_that_end_together_the_longest_counts() {
        assert_eq!(run(search(&["b", "ab"], false), &["xa", "b"]), ("x".into(), Some("ab".into())));
        assert_eq!(run(search(&["abc", "b"], false), &["xabc"]), ("xa".into(), Some("b".into())));
    }

    /// The definition, read one character after the other.
    fn by_definition(text: &str, stops: &[String], include: bool) -> (String, Option<String>) {
        for (at, character) in text.char_indices() {
            let seen = &text[..at + character.len_utf8()];
            let hit =
                stops.iter().filter(|stop| seen.ends_with(*stop)).max_by_key(|stop| stop.len());
            if let Some(stop) = hit {
                let kept = if include { seen } else { &seen[..seen.len() - stop.len()] };
                return (kept.into(), Some(stop.clone()));
            }
        }
        (text.into(), None)
    }

    proptest! {
        #[test]
        fn any_cut_gives_what_the_definition_gives(
            pieces in prop::collection::vec("[abé€]{0,4}", 0..12),
            stops in prop::collection::vec("[abé€]{1,4}", 0..4),
            include: bool,
        ) {
            let wanted = by_definition(&pieces.concat(), &stops, include);
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let got = run(StopStrings::new(stops.into(), include), &pieces);
            prop_assert_eq!(got, wanted);
        }

        #[test]
        fn nothing_is_held_that_cannot_become_a_stop(
            piece in "[abé€]{0,9}",
            stops in prop::collection::vec("[abé€]{1,4}", 1..4),
        ) {
            let mut search = StopStrings::new(stops.clone().into(), false);
            if search.push(&piece).stop.is_none() {
                let held = search.finish();
                prop_assert!(held.is_empty() || stops.iter().any(|stop| stop.starts_with(&held)));
            }
        }
    }
}
