//! An adapter's files out of a body. Names in it are labels, never paths.
use super::{
    ApiError,
    json::{BodyLimit, read_bytes},
};
use crate::adapter::AdapterFiles;
use axum::{
    body::Bytes,
    extract::{FromRequest, Multipart, Request, multipart::Field},
    http::{StatusCode, header},
};
use std::path::Path;

/// `adapter_config.json` and `adapter_model.safetensors`, or a GGUF file, whole.
///
/// A part is known by its field name (`config`, `weights`, `gguf`) or by its file name. A GGUF file may also be the
/// body itself.
pub(super) struct Upload(pub(super) AdapterFiles);

/// How a GGUF file begins.
const GGUF_MAGIC: &[u8] = b"GGUF";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Config,
    Weights,
    Gguf,
}

impl<S: Send + Sync> FromRequest<S> for Upload {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_multipart(&request) {
            let bytes = read_bytes(request, state).await?;
            let gguf = bytes.starts_with(GGUF_MAGIC).then(|| AdapterFiles::Gguf(bytes));
            return gguf.map(Self).ok_or_else(neither);
        }
        let limit = request.extensions().get::<BodyLimit>().map_or(0, |limit| limit.0);
        let mut parts = Multipart::from_request(request, state).await.map_err(|_| neither())?;
        let (mut config, mut weights, mut gguf) = (None, None, None);
        while let Some(field) = parts.next_field().await.map_err(|error| broken(&error, limit))? {
            let part = part_of(&field)?;
            let bytes = field.bytes().await.map_err(|error| broken(&error, limit))?;
            let (slot, name) = match part {
                Part::Config => (&mut config, "config"),
                Part::Weights => (&mut weights, "weights"),
                Part::Gguf => (&mut gguf, "gguf"),
            };
            if slot.replace(bytes).is_some() {
                return Err(ApiError::malformed(name, format!("the part `{name}` comes twice")));
            }
        }
        match gguf {
            Some(bytes) if config.is_none() && weights.is_none() => {
                return Ok(Self(AdapterFiles::Gguf(bytes)));
            }
            Some(_) => {
                let message = "the part `gguf` is a whole adapter; send it alone";
                return Err(ApiError::malformed("gguf", message));
            }
            None => {}
        }
        let whole = |bytes: Option<Bytes>, name: &str| {
            bytes.ok_or_else(|| ApiError::malformed(name, format!("the part `{name}` is missing")))
        };
        let (config, weights) = (whole(config, "config")?, whole(weights, "weights")?);
        Ok(Self(AdapterFiles::Peft { config, weights }))
    }
}

fn is_multipart(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/"))
}

fn neither() -> ApiError {
    let message = "the body must be multipart/form-data with the parts `config` \
                   (adapter_config.json) and `weights` (adapter_model.safetensors), or a GGUF file";
    ApiError::malformed("body", message)
}

fn part_of(field: &Field<'_>) -> Result<Part, ApiError> {
    match (field.name(), field.file_name()) {
        (Some("config"), _) | (_, Some("adapter_config.json")) => Ok(Part::Config),
        (Some("weights"), _) | (_, Some("adapter_model.safetensors")) => Ok(Part::Weights),
        (Some("gguf"), _) => Ok(Part::Gguf),
        (_, Some(file)) if Path::new(file).extension().is_some_and(|end| end == "gguf") => {
            Ok(Part::Gguf)
        }
        (name, _) => {
            let name: String = name.unwrap_or_default().chars().take(40).collect();
            let message = format!(
                "the part `{}` is neither `config` nor `weights` nor `gguf`, and its file is neither \
                 adapter_config.json nor adapter_model.safetensors nor a GGUF file",
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
