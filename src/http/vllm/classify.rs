//! `POST /classify` with `input`.
use crate::{
    generation::{EncodeRequest, Labels, Wanted},
    http::{
        ApiError, AppState,
        json::rendered,
        reading::{
            Ask, Call, EntityShown, Head, ReadFields, Scores, best, counted, inputs, read, scores,
        },
        served,
    },
};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What the head says of a text.
#[derive(Debug, Serialize)]
struct Classified {
    index: usize,
    /// The likeliest; none where tokens are labelled.
    label: Option<String>,
    /// Of each label, in the labels' order.
    probs: Vec<f32>,
    num_classes: usize,
    /// Where tokens are labelled: what was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    entities: Option<Vec<EntityShown>>,
}

pub(in crate::http) async fn classify(app: &AppState, call: Call) -> Result<Response, ApiError> {
    const FIELD: &str = "input";
    let fields = ReadFields::read(&call.body)?;
    let inputs = counted(inputs(call.body.get(FIELD), FIELD)?, FIELD, app.config.max_texts)?;
    let (truncation, priority) = (fields.truncation()?, fields.priority()?);
    let chosen = call.chosen(app)?;
    let request = EncodeRequest {
        inputs,
        field: FIELD,
        add_special_tokens: fields.add_special_tokens(),
        adapters: chosen.adapters,
        wanted: Wanted::Labels { raw: fields.use_activation() == Some(false) },
        truncation,
        priority,
    };
    let encoded = read(app, request, chosen.split).await?;
    let head = Head::new("classify", chosen.model, EncodeRequest::cost(&encoded));
    let served = served::header(&encoded.served);
    let (labels, said) = scores(encoded)?;
    let answer = rendered(said.len() * (4 + labels.names.len()), move || {
        let each = said.into_iter().enumerate();
        head.listing(each.map(|(index, said)| Classified::new(index, said, &labels)).collect())
    });
    Ok((served, answer.await?).into_response())
}

impl Classified {
    fn new(index: usize, said: Scores, labels: &Labels) -> Self {
        let num_classes = labels.names.len();
        match said {
            Scores::OfText(probs) => {
                let label = best(&probs).and_then(|at| labels.names.get(at)).cloned();
                Self { index, label, probs, num_classes, entities: None }
            }
            Scores::Found(entities) => {
                let entities = Some(entities);
                Self { index, label: None, probs: Vec::new(), num_classes, entities }
            }
        }
    }
}
