//! `POST /score`
use crate::{
    generation::ScoreRequest,
    http::{
        ApiError, AppState,
        json::{JsonBody, rendered},
        reading::{Ask, Call, Head, ReadFields, counted, read, texts},
        served,
    },
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// Names of the first texts and of the second.
const SIDES: [&[&str]; 2] =
    [&["text_1", "queries", "data_1"], &["text_2", "documents", "items", "data_2"]];

#[derive(Debug, Serialize)]
struct Item {
    index: usize,
    object: &'static str,
    score: f32,
}

pub(in crate::http) async fn score(
    State(app): State<AppState>,
    call: Call,
) -> Result<Response, ApiError> {
    let fields = ReadFields::read(&call.body)?;
    let (pairs, field) = pairs(&call.body)?;
    let pairs = counted(pairs, field, app.config.max_texts)?;
    let (truncation, priority) = (fields.truncation()?, fields.priority()?);
    let raw = fields.use_activation() == Some(false);
    let chosen = call.chosen(&app)?;
    let adapters = chosen.adapters;
    let request = ScoreRequest { pairs, field, raw, adapters, truncation, priority };
    let scored = read(&app, request, chosen.split).await?;
    let head = Head::new("embd", chosen.model, ScoreRequest::cost(&scored));
    let served = served::header(&scored.served);
    let answer = rendered(scored.scores.len() * 3, move || {
        let scores = scored.scores.into_iter().enumerate();
        head.listing(scores.map(|(index, score)| Item { index, object: "score", score }).collect())
    });
    Ok((served, answer.await?).into_response())
}

/// A text and what it is scored against.
type Pair = (String, String);

/// One text against each, or each against its own; and the field of the second ones.
fn pairs(body: &JsonBody) -> Result<(Vec<Pair>, &'static str), ApiError> {
    let [first, second] = SIDES.map(|names| side(body, names));
    let (first, second) = (first?, second?);
    let [ones, others] = [first, second].map(|field| texts(body.get(field), field));
    let (ones, others) = (ones?, others?);
    if ones.len() != 1 && ones.len() != others.len() {
        let message = format!(
            "`{second}` must have as many texts as `{first}` has ({}), not {}; or `{first}` only one",
            ones.len(),
            others.len()
        );
        return Err(ApiError::invalid(second, message));
    }
    Ok((ones.into_iter().cycle().zip(others).collect(), second))
}

/// The name that the body has of these.
fn side(body: &JsonBody, names: &[&'static str]) -> Result<&'static str, ApiError> {
    let mut given = names.iter().copied().filter(|name| body.get(name).is_some());
    match (given.next(), given.next()) {
        (Some(name), None) => Ok(name),
        (Some(name), Some(other)) => {
            let message = format!("`{other}` is another name of `{name}`; leave one of them out");
            Err(ApiError::invalid(other, message))
        }
        (None, _) => {
            let first = names.first().copied().unwrap_or_default();
            let message = format!("`{first}` is missing; other names of it: {}", names.join(", "));
            Err(ApiError::malformed(first, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(body: &Value) -> Result<Vec<Pair>, ApiError> {
        Ok(pairs(&JsonBody::parse(body.to_string().as_bytes())?)?.0)
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<Pair> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn texts_are_paired_one_with_each_or_each_with_its_own() {
        let one = json!({"text_1": "q", "text_2": ["a", "b"]});
        assert_eq!(read(&one).expect("pairs"), owned(&[("q", "a"), ("q", "b")]));
        let each = json!({"queries": ["q", "r"], "documents": ["a", "b"]});
        assert_eq!(read(&each).expect("pairs"), owned(&[("q", "a"), ("r", "b")]));
        let single = json!({"data_1": "q", "data_2": "a"});
        assert_eq!(read(&single).expect("pairs"), owned(&[("q", "a")]));
    }

    #[test]
    fn sides_that_do_not_fit_are_named() {
        for (body, field) in [
            (json!({"text_1": ["q", "r"], "text_2": ["a", "b", "c"]}), "text_2"),
            (json!({"queries": ["q", "r"], "items": "a"}), "items"),
            (json!({"text_2": "a"}), "text_1"),
            (json!({"text_1": "a"}), "text_2"),
            (json!({"text_1": "a", "queries": "b", "text_2": "c"}), "queries"),
            (json!({"text_1": "a", "text_2": []}), "text_2"),
        ] {
            let error = read(&body).expect_err("refused").openai();
            assert_eq!(error["error"]["param"], field, "{body}");
        }
    }
}
