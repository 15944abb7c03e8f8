//! From each token's labels to what is found in a text: `aggregation_strategy="simple"` of transformers'
//! `TokenClassificationPipeline`.
use super::{Entity, text::Span};
use crate::engine::Labels;

/// What stands for nothing found.
const OUTSIDE: &str = "O";

/// A run of tokens with one label.
struct Run<'a> {
    label: &'a str,
    scores: Vec<f32>,
    start: usize,
    end: usize,
}

/// The entities of `text`, of the probabilities of each token's labels, `[tokens, labels]`.
pub(super) fn found(
    labels: &Labels,
    probabilities: &[f32],
    spans: &[Span],
    text: &str,
) -> Vec<Entity> {
    let mut runs: Vec<Run> = Vec::new();
    let tokens = probabilities.chunks(labels.names.len().max(1)).zip(spans);
    for (probabilities, span) in tokens {
        let Some(span) = span else { continue };
        let Some((best, score)) = best(probabilities) else { continue };
        let (begins, label) = parted(&labels.names[best]);
        match runs.last_mut() {
            Some(run) if run.label == label && !begins => {
                run.scores.push(score);
                run.end = span.end;
            }
            _ => runs.push(Run { label, scores: vec![score], start: span.start, end: span.end }),
        }
    }
    let mut chars = Chars { text, byte: 0, count: 0 };
    let found = runs.into_iter().filter(|run| run.label != OUTSIDE);
    found
        .map(|run| Entity {
            label: run.label.to_owned(),
            score: run.scores.iter().sum::<f32>() / run.scores.len() as f32,
            text: text.get(run.start..run.end).unwrap_or_default().to_owned(),
            start: chars.at(run.start),
            end: chars.at(run.end),
        })
        .collect()
}

/// The first of the most likely ones.
fn best(probabilities: &[f32]) -> Option<(usize, f32)> {
    let all = probabilities.iter().copied().enumerate();
    all.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

/// A label without its mark, and whether the mark begins something new. One without a mark goes on.
fn parted(label: &str) -> (bool, &str) {
    match label.split_once('-') {
        Some(("B", label)) => (true, label),
        Some(("I", label)) => (false, label),
        _ => (false, label),
    }
}

/// Counts characters up to bytes of a text, mostly ascending.
struct Chars<'a> {
    text: &'a str,
    byte: usize,
    count: usize,
}

impl Chars<'_> {
    fn at(&mut self, byte: usize) -> usize {
        if byte < self.byte {
            (self.byte, self.count) = (0, 0);
        }
        let more = self.text.get(self.byte..byte).unwrap_or_default();
        self.count += more.chars().count();
        self.byte = byte;
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{HeadKind, Reading};

    /// The best label of each token, all as likely, and where it stands.
    fn entities(names: &[&str], tokens: &[(&str, Span)], text: &str) -> Vec<Entity> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let rest = 0.2 / (names.len() - 1) as f32;
        let probabilities: Vec<f32> = tokens
            .iter()
            .flat_map(|(best, _)| {
                names.iter().map(move |name| if name == best { 0.8 } else { rest })
            })
            .collect();
        let spans: Vec<Span> = tokens.iter().map(|(_, span)| span.clone()).collect();
        let labels = Labels { kind: HeadKind::Token, names: names.into(), reading: Reading::OneOf };
        found(&labels, &probabilities, &spans, text)
    }

    fn seen(entities: &[Entity]) -> Vec<(&str, &str, usize, usize)> {
        let seen = |e: &Entity| e.label.len();
        assert!(entities.iter().all(|entity| seen(entity) > 0));
        entities.iter().map(|e| (e.label.as_str(), e.text.as_str(), e.start, e.end)).collect()
    }

    #[test]
    fn neighbours_with_one_label_are_one_entity_until_another_begins() {
        let text = "Änna lives in San Francisco";
        let names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];
        let tokens = [
            ("B-PER", None),
            ("B-PER", Some(0..3)),
            ("I-PER", Some(3..5)),
            ("O", Some(6..11)),
            ("O", Some(12..14)),
            ("B-LOC", Some(15..18)),
            ("I-LOC", Some(19..28)),
            ("I-LOC", None),
        ];
        let all = entities(&names, &tokens, text);
        assert_eq!(seen(&all), [("PER", "Änna", 0, 4), ("LOC", "San Francisco", 14, 27)]);
        assert!(all.iter().all(|entity| (entity.score - 0.8).abs() < 1e-6));
        let two = [("B-LOC", Some(15..18)), ("B-LOC", Some(19..28))];
        assert_eq!(entities(&names, &two, text).len(), 2, "each begins");
        let parted = [("I-LOC", Some(15..18)), ("O", Some(18..19)), ("I-LOC", Some(19..28))];
        assert_eq!(entities(&names, &parted, text).len(), 2, "something lies between");
        let mixed = [("B-PER", Some(15..18)), ("I-LOC", Some(19..28))];
        assert_eq!(entities(&names, &mixed, text).len(), 2, "another label");
    }

    #[test]
    fn labels_without_marks_are_names_too() {
        let names = ["LABEL_0", "LABEL_1"];
        let tokens = [("LABEL_1", Some(0..1)), ("LABEL_1", Some(1..2)), ("LABEL_0", Some(2..3))];
        let all = entities(&names, &tokens, "abc");
        assert_eq!(seen(&all), [("LABEL_1", "ab", 0, 2), ("LABEL_0", "c", 2, 3)]);
    }
}
