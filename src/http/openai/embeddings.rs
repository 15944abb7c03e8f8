//! `POST /v1/embeddings`
use crate::{
    generation::{EncodeRequest, Wanted},
    http::{
        ApiError, AppState,
        json::rendered,
        reading::{Ask, Call, Head, ReadFields, base64, counted, inputs, numbers, read, vectors},
        served,
    },
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

/// What only embeddings have.
#[derive(Debug, Deserialize)]
struct EmbeddingFields {
    encoding_format: Option<Format>,
    dimensions: Option<usize>,
    normalize: Option<bool>,
    prompt_name: Option<String>,
}

/// How an embedding is written.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// As numbers.
    Float,
    /// Its bytes: what openai-python asks for unless it is told otherwise.
    Base64,
}

#[derive(Debug, Serialize)]
struct Item {
    index: usize,
    object: &'static str,
    embedding: Written,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Written {
    Numbers(Vec<f32>),
    Text(String),
}

pub(in crate::http) async fn embeddings(
    State(app): State<AppState>,
    call: Call,
) -> Result<Response, ApiError> {
    const FIELD: &str = "input";
    let shared = ReadFields::read(&call.body)?;
    let fields: EmbeddingFields = call.body.read()?;
    let texts = counted(inputs(call.body.get(FIELD), FIELD)?, FIELD, app.config.max_texts)?;
    let (truncation, priority) = (shared.truncation()?, shared.priority()?);
    let chosen = call.chosen(&app)?;
    let request = EncodeRequest {
        inputs: texts,
        field: FIELD,
        add_special_tokens: shared.add_special_tokens(),
        adapters: chosen.adapters,
        wanted: Wanted::Embedding {
            normalize: shared.use_activation().or(fields.normalize),
            dimensions: fields.dimensions,
            prompt: fields.prompt_name,
        },
        truncation,
        priority,
    };
    let encoded = read(&app, request, chosen.split).await?;
    let head = Head::new("embd", chosen.model, EncodeRequest::cost(&encoded));
    let served = served::header(&encoded.served);
    let vectors = vectors(encoded)?;
    let format = fields.encoding_format.unwrap_or(Format::Float);
    let answer = rendered(numbers(&vectors), move || {
        let written = vectors.into_iter().enumerate().map(|(index, vector)| Item {
            index,
            object: "embedding",
            embedding: format.write(vector),
        });
        head.listing(written.collect())
    });
    Ok((served, answer.await?).into_response())
}

impl Format {
    fn write(self, vector: Vec<f32>) -> Written {
        match self {
            Self::Float => Written::Numbers(vector),
            Self::Base64 => Written::Text(base64(&vector)),
        }
    }
}

#[cfg(test)]
pub(in crate::http) fn embedding_fields() -> Vec<&'static str> {
    use crate::http::json::known_fields;
    [known_fields::<ReadFields>(), known_fields::<EmbeddingFields>()].concat()
}
