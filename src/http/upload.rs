//! An adapter's two files out of a multipart body. Names in it are labels, never paths.
use super::{ApiError, json::BodyLimit};
use crate::adapter::AdapterFiles;
use axum::{
    body::Bytes,
    extract::{FromRequest, Multipart, Request, multipart::Field},
    http::StatusCode,
};

/// `adapter_config.json` and `adapter_model.safetensors`, whole.
///
/// A part is known by its field name (`config`, `weights`) or by its file name.
pub(super) struct Upload(pub(super) AdapterFiles);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Config,
    Weights,
}

impl<S: Send + Sync> FromRequest<S> for Upload {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let limit = request.extensions().get::<BodyLimit>().map_or(0, |limit| limit.0);
        let mut parts = Multipart::from_request(request, state).await.map_err(|_| {
            let message = "the body must be multipart/form-data with the parts `config` \
                           (adapter_config.json) and `weights` (adapter_model.safetensors)";
            ApiError::malformed("body", message)
        })?;
        let (mut config, mut weights) = (None, None);
        while let Some(field) = parts.next_field().await.map_err(|error| broken(&error, limit))? {
            let part = part_of(&field)?;
            let bytes = field.bytes().await.map_err(|error| broken(&error, limit))?;
            let (slot, name) = match part {
                Part::Config => (&mut config, "config"),
                Part::Weights => (&mut weights, "weights"),
            };
            if slot.replace(bytes).is_some() {
                return Err(ApiError::malformed(name, format!("the part `{name}` comes twice")));
            }
        }
        let whole = |bytes: Option<Bytes>, name: &str| {
            bytes.ok_or_else(|| ApiError::malformed(name, format!("the part `{name}` is missing")))
        };
        let (config, weights) = (whole(config, "config")?, whole(weights, "weights")?);
        Ok(Self(AdapterFiles { config, weights }))
    }
}

fn part_of(field: &Field<'_>) -> Result<Part, ApiError> {
    match (field.name(), field.file_name()) {
        (Some("config"), _) | (_, Some("adapter_config.json")) => Ok(Part::Config),
        (Some("weights"), _) | (_, Some("adapter_model.safetensors")) => Ok(Part::Weights),
        (name, _) => {
            let name: String = name.unwrap_or_default().chars().take(40).collect();
            let message = format!(
                "the part `{}` is neither `config` nor `weights`, and its file is neither \
                 adapter_config.json nor adapter_model.safetensors",
                name.escape_debug()
            );
            Err(ApiError::malformed("body", message))
        }
    }
}

fn broken(error: &axum::extract::multipart::MultipartError, limit: usize) -> ApiError {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(limit),
        _ => ApiError::malformed("body", "the multipart body ends too early or has broken parts"),
    }
}
