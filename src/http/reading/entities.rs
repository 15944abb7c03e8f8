//! What was found in a text, as LoRAX lists it.
use crate::generation::Entity;
use serde::Serialize;

/// One finding: neighbouring words with one label, or a whole text with its.
#[derive(Debug, PartialEq, Serialize)]
pub(in crate::http) struct EntityShown {
    entity_group: String,
    score: f32,
    word: String,
    start: usize,
    end: usize,
}

/// The findings of a text.
pub(in crate::http) fn shown_entities(entities: Vec<Entity>) -> Vec<EntityShown> {
    let shown = |entity: Entity| EntityShown {
        entity_group: entity.label,
        score: entity.score,
        word: entity.text,
        start: entity.start,
        end: entity.end,
    };
    entities.into_iter().map(shown).collect()
}

/// A whole text with its best label as one finding; characters are counted, as in all findings.
pub(in crate::http) fn whole_text(label: String, score: f32, text: String) -> EntityShown {
    let end = text.chars().count();
    EntityShown { entity_group: label, score, word: text, start: 0, end }
}

/// The place of the highest score, the first of equals.
pub(in crate::http) fn best(scores: &[f32]) -> Option<usize> {
    let places = scores.iter().enumerate().rev();
    places.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_highest_is_the_best() {
        assert_eq!(best(&[0.1, 0.6, 0.6, 0.2]), Some(1));
        assert_eq!(best(&[-3.0]), Some(0));
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn a_whole_text_ends_at_its_last_character() {
        let found = whole_text("news".into(), 0.5, "Grüße".into());
        assert_eq!((found.start, found.end), (0, 5));
    }
}
