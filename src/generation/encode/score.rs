//! How well texts go together: what a head says of two side by side, or how alike their embeddings are.
use super::{
    EncodeInput, EncodedValue, ScoreRequest, Scored, Wanted,
    encoder::{Read, Texts},
    plan::{self, Part, Plan},
    text::Place,
};
use crate::{
    engine::HeadKind,
    generation::{GenerateError, Generator},
};
use std::collections::HashMap;

impl Generator {
    /// Scores pairs of texts: by a head of one label that reads both side by side, or else by the cosine of their
    /// embeddings.
    ///
    /// # Errors
    /// As [`Generator::encode`].
    pub async fn score(&self, request: ScoreRequest) -> Result<Scored, GenerateError> {
        let ScoreRequest { pairs, field, raw, adapters, truncation, priority } = request;
        if pairs.is_empty() {
            let message = format!("`{field}` has nothing to read; give it at least one text");
            return Err(GenerateError::Invalid { field, message });
        }
        let parts = self.parts(adapters).await?;
        let model = self.model();
        let wanted = if self.reads_pairs(&parts)? {
            Wanted::Labels { raw }
        } else {
            Wanted::Embedding { normalize: Some(true), dimensions: None, prompt: None }
        };
        let plan = Plan::new(&wanted, &model.abilities, model.max_context, &parts)?;
        let (inputs, places) = match wanted {
            Wanted::Labels { .. } => side_by_side(pairs, field),
            Wanted::Embedding { .. } | Wanted::TokenEmbeddings => each_once(pairs, field),
        };
        let texts = Texts { inputs, special: true, truncation, priority };
        let Read { texts, served, queued } = self.read(texts, plan, parts).await?;
        let tokens = texts.iter().map(|text| text.tokens).sum();
        let values: Vec<EncodedValue> = texts.into_iter().map(|text| text.value).collect();
        let score = |(first, second): (usize, usize)| scored(&values[first], &values[second]);
        let scores = places.into_iter().map(score).collect::<Option<_>>();
        let other = || GenerateError::Internal("an output is of another kind than wanted".into());
        Ok(Scored { scores: scores.ok_or_else(other)?, tokens, served, queued })
    }

    /// Whether there is a head that scores pairs; `false` where embeddings do.
    fn reads_pairs(&self, parts: &[Part]) -> Result<bool, GenerateError> {
        let abilities = &self.model().abilities;
        let has_head = parts.iter().any(|part| part.0.weights.class_head().is_some());
        if !has_head && abilities.labels.is_none() {
            if abilities.embedding.is_some() {
                return Ok(false);
            }
            let message = "neither a head of one label nor embeddings can score texts here; name an \
                           adapter that was trained to";
            return Err(plan::unfit("model_does_not_score", "model", message.into()));
        }
        let labels = plan::labels(abilities, parts)?;
        if labels.kind == HeadKind::Sequence && labels.names.len() == 1 {
            return Ok(true);
        }
        let field = parts.first().map_or("model", |part| part.2.as_str());
        let message = format!(
            "pairs are scored by a head of one label for whole texts, and this one has {}{}; ask for its \
             labels instead",
            labels.names.len(),
            if labels.kind == HeadKind::Token { " for each token" } else { "" }
        );
        Err(plan::unfit("head_does_not_score", field, message))
    }
}

/// The texts to read, and for each pair the places of what was read that score it.
type Inputs = (Vec<(EncodeInput, Place)>, Vec<(usize, usize)>);

fn side_by_side(pairs: Vec<(String, String)>, field: &str) -> Inputs {
    let places = (0..pairs.len()).map(|at| (at, at)).collect();
    let input = |(at, (first, second))| {
        let field = format!("{field}[{at}]");
        let what = format!("`{field}` with the text beside it");
        (EncodeInput::Pair(first, second), Place { field, what })
    };
    (pairs.into_iter().enumerate().map(input).collect(), places)
}

/// Each text once, however many pairs it is in.
fn each_once(pairs: Vec<(String, String)>, field: &str) -> Inputs {
    let (mut inputs, mut known): (Vec<(EncodeInput, Place)>, HashMap<String, usize>) =
        Default::default();
    let mut place = |text: String, field: &str, what: String| {
        *known.entry(text).or_insert_with_key(|text| {
            let field = field.to_owned();
            inputs.push((EncodeInput::Text(text.clone()), Place { field, what }));
            inputs.len() - 1
        })
    };
    let places = pairs.into_iter().enumerate().map(|(at, (first, second))| {
        let field = format!("{field}[{at}]");
        let first = place(first, &field, format!("the text that `{field}` is compared with"));
        let what = format!("`{field}`");
        (first, place(second, &field, what))
    });
    let places = places.collect();
    (inputs, places)
}

fn scored(first: &EncodedValue, second: &EncodedValue) -> Option<f32> {
    match (first, second) {
        (EncodedValue::Scores(scores), _) => scores.first().copied(),
        (EncodedValue::Vector(a), EncodedValue::Vector(b)) => {
            Some(a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32)
        }
        _ => None,
    }
}
