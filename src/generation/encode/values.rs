//! From the engine's numbers to embeddings and probabilities.
use super::{EncodedValue, entities, plan::Finish, text::Text};
use crate::engine::Reading;

/// What was wanted of a text, of the numbers that the engine gave; `None` where they are not as many as there should be.
pub(super) fn finish(
    finish: &Finish,
    mut values: Vec<f32>,
    (text, spelled): (&Text, &str),
) -> Option<EncodedValue> {
    match finish {
        Finish::Vector { normalize, dimensions } => {
            if values.len() < *dimensions {
                return None;
            }
            values.truncate(*dimensions);
            if *normalize {
                make_unit(&mut values);
            }
            Some(EncodedValue::Vector(values))
        }
        Finish::Vectors => {
            let width = values.len() / text.ids.len();
            let whole = width > 0 && values.len() == width * text.ids.len();
            whole
                .then(|| EncodedValue::Vectors(values.chunks(width).map(<[f32]>::to_vec).collect()))
        }
        Finish::Scores { labels, raw } => {
            if values.len() != labels.names.len() {
                return None;
            }
            if !raw {
                make_probabilities(&mut values, labels.reading);
            }
            Some(EncodedValue::Scores(values))
        }
        Finish::Entities { labels } => {
            let width = labels.names.len();
            if width == 0 || values.len() != width * text.ids.len() {
                return None;
            }
            // transformers' pipeline shares among a token's labels whatever the head's makers say.
            values.chunks_mut(width).for_each(|scores| make_probabilities(scores, Reading::OneOf));
            let spans = text.spans.as_deref()?;
            Some(EncodedValue::Entities(entities::found(labels, &values, spans, spelled)))
        }
    }
}

/// To length 1; nothing but zeros stays as it is.
pub(super) fn make_unit(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if length > 0.0 {
        for x in vector {
            *x = (f64::from(*x) / length) as f32;
        }
    }
}

/// What the head's scores say: shares of one, or each by itself.
fn make_probabilities(scores: &mut [f32], reading: Reading) {
    match reading {
        Reading::Raw => {}
        Reading::OneOf if scores.len() > 1 => softmax(scores),
        // A single label has nothing to share with.
        Reading::OneOf | Reading::Independent => {
            for score in scores {
                *score = 1.0 / (1.0 + (-*score).exp());
            }
        }
    }
}

fn softmax(scores: &mut [f32]) {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for score in scores.iter_mut() {
        *score = (*score - most).exp();
    }
    let sum: f32 = scores.iter().sum();
    for score in scores {
        *score /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{HeadKind, Labels};

    fn labels(reading: Reading, count: usize) -> Labels {
        let names = (0..count).map(|label| label.to_string()).collect();
        Labels { kind: HeadKind::Sequence, names, reading }
    }

    fn scores(reading: Reading, raw: bool, values: &[f32]) -> Vec<f32> {
        let text = Text { ids: vec![1], second: None, spans: None };
        let how = Finish::Scores { labels: labels(reading, values.len()), raw };
        match finish(&how, values.to_vec(), (&text, "")) {
            Some(EncodedValue::Scores(scores)) => scores,
            other => panic!("{other:?}"),
        }
    }

    fn near(values: &[f32], wanted: &[f32]) -> bool {
        values.len() == wanted.len() && values.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6)
    }

    #[test]
    fn scores_are_read_as_the_head_s_makers_say() {
        let values = [0.0, 2.0_f32.ln()];
        assert!(near(&scores(Reading::OneOf, false, &values), &[1.0 / 3.0, 2.0 / 3.0]));
        assert!(near(&scores(Reading::Independent, false, &values), &[0.5, 2.0 / 3.0]));
        assert!(near(&scores(Reading::Raw, false, &values), &values));
        assert!(near(&scores(Reading::OneOf, true, &values), &values));
        assert!(near(&scores(Reading::OneOf, false, &[0.0]), &[0.5]), "a label alone");
        let far = scores(Reading::OneOf, false, &[1000.0, -1000.0]);
        assert!(near(&far, &[1.0, 0.0]), "{far:?}");
    }

    #[test]
    fn the_labels_of_a_token_share_whatever_their_head_says_of_texts() {
        let text = Text { ids: vec![5], second: None, spans: Some(vec![Some(0..2)]) };
        for reading in [Reading::OneOf, Reading::Independent, Reading::Raw] {
            let how = Finish::Entities { labels: labels(reading, 2) };
            let found = finish(&how, vec![0.0, 3.0_f32.ln()], (&text, "it"));
            let Some(EncodedValue::Entities(found)) = found else { panic!("{found:?}") };
            assert_eq!((found[0].label.as_str(), found[0].text.as_str()), ("1", "it"));
            assert!((found[0].score - 0.75).abs() < 1e-6, "{found:?}");
        }
        let how = Finish::Entities { labels: labels(Reading::OneOf, 2) };
        assert_eq!(finish(&how, vec![0.0; 3], (&text, "it")), None);
    }

    #[test]
    fn a_vector_is_cut_before_it_gets_length_one() {
        let text = Text { ids: vec![1, 2], second: None, spans: None };
        let vector = |normalize, dimensions, values: &[f32]| {
            let how = Finish::Vector { normalize, dimensions };
            finish(&how, values.to_vec(), (&text, ""))
        };
        let of = |values: &[f32]| Some(EncodedValue::Vector(values.to_vec()));
        assert_eq!(vector(true, 2, &[3.0, 4.0, 12.0]), of(&[0.6, 0.8]));
        assert_eq!(vector(false, 2, &[3.0, 4.0, 12.0]), of(&[3.0, 4.0]));
        assert_eq!(vector(true, 2, &[0.0, 0.0]), of(&[0.0, 0.0]));
        assert_eq!(vector(true, 3, &[0.0, 0.0]), None);
        let each = finish(&Finish::Vectors, vec![1.0, 2.0, 3.0, 4.0], (&text, ""));
        assert_eq!(each, Some(EncodedValue::Vectors(vec![vec![1.0, 2.0], vec![3.0, 4.0]])));
        assert_eq!(finish(&Finish::Vectors, vec![1.0; 3], (&text, "")), None);
    }
}
