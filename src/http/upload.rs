//! An adapter's files out of a body, by way of the disk. Names in it are labels, never paths.
use super::{ApiError, json::BodyLimit};
use crate::adapter::{
    AdapterError, AdapterFiles, AdapterLimits, Source,
    upload::{Incoming, Part, Staged, Staging},
};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Multipart, Request, multipart::Field},
    http::{HeaderMap, StatusCode, header},
};
use futures_util::StreamExt;
use std::{path::Path, sync::Arc};
use tokio::{
    sync::{OnceCell, OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

/// Adapters whose files may lie in memory at once; others wait on disk.
const READ_AT_ONCE: usize = 2;

/// Where uploads wait, and for what. Clones are handles to the same.
#[derive(Clone, Debug)]
pub(super) struct Uploads {
    staging: Arc<OnceCell<Staging>>,
    turns: Arc<Semaphore>,
}

impl Uploads {
    /// Uploads wait in `staging`, or in the system's directory of temporary files.
    pub(super) fn new(staging: Option<Staging>) -> Self {
        Self {
            staging: Arc::new(OnceCell::new_with(staging)),
            turns: Arc::new(Semaphore::new(READ_AT_ONCE)),
        }
    }

    async fn staging(&self) -> Result<&Staging, ApiError> {
        let open =
            || async { spawn_blocking(Staging::temporary).await.map_err(std::io::Error::other)? };
        let staging = self.staging.get_or_try_init(open).await;
        staging.map_err(|error| AdapterError::Store(error).into())
    }

    /// A request's body, on disk: the parts of a form, or an archive or a GGUF file as the body itself.
    ///
    /// # Errors
    /// 400 for a broken form, 408 when nothing comes any more, 413 over the route's limit.
    pub(super) async fn receive(&self, request: Request) -> Result<Staged, ApiError> {
        let limit = request.extensions().get::<BodyLimit>().map_or(0, |limit| limit.0);
        if declared(request.headers()).is_some_and(|length| length > limit as u64) {
            return Err(ApiError::too_large(limit));
        }
        let mut incoming = self.staging().await?.receive(limit as u64).await?;
        let taken = if is_multipart(request.headers()) {
            take_form(request, &mut incoming, limit).await
        } else {
            take_whole(request.into_body(), &mut incoming, limit).await
        };
        match taken {
            Ok(()) => Ok(incoming.finish().await?),
            Err(error) => {
                incoming.discard().await;
                Err(error)
            }
        }
    }

    /// The adapter in an upload, when it is its turn.
    ///
    /// # Errors
    /// As [`Staged::into_files`].
    pub(super) async fn read(
        &self,
        staged: Staged,
        limits: AdapterLimits,
    ) -> Result<Upload, ApiError> {
        self.read_by(move || {
            let (files, warnings) = staged.into_files(&limits)?;
            Ok(Came { files, warnings, source: Source::Upload })
        })
        .await
    }

    /// What `read` gives, which may block, when it is its turn.
    ///
    /// # Errors
    /// As `read`.
    pub(super) async fn read_by(
        &self,
        read: impl FnOnce() -> Result<Came, AdapterError> + Send + 'static,
    ) -> Result<Upload, ApiError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| ApiError::busy())?;
        // The turn is over when the work is, though the client may have left.
        let read = spawn_blocking(move || Ok(Upload { came: read()?, _turn: turn }));
        let read: Result<Upload, AdapterError> =
            read.await.map_err(|_| ApiError::internal("upload_not_read"))?;
        Ok(read?)
    }
}

/// An adapter that came.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) files: AdapterFiles,
    /// What its uploader should know.
    pub(super) warnings: Vec<String>,
    pub(super) source: Source,
}

/// The same, in memory; while this lives, only one other is.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) came: Came,
    _turn: OwnedSemaphorePermit,
}

impl Upload {
    /// The same, with these names of labels.
    ///
    /// # Errors
    /// 400 for names that are none, and for an adapter that cannot have any.
    pub(super) fn labelled(self, names: &[String]) -> Result<Self, ApiError> {
        let Came { files, warnings, source } = self.came;
        let files = files.with_labels(names);
        let files = files.map_err(|error| ApiError::from(error).with_param("labels"))?;
        Ok(Self { came: Came { files, warnings, source }, ..self })
    }
}

async fn take_whole(body: Body, incoming: &mut Incoming, limit: usize) -> Result<(), ApiError> {
    incoming.begin(Part::Whole).await?;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| ApiError::slow_body())?;
        write(incoming, piece, limit).await?;
    }
    Ok(())
}

async fn take_form(
    request: Request,
    incoming: &mut Incoming,
    limit: usize,
) -> Result<(), ApiError> {
    let mut parts = Multipart::from_request(request, &()).await.map_err(|_| no_form())?;
    let mut came = Vec::new();
    while let Some(mut field) = parts.next_field().await.map_err(|error| broken(&error, limit))? {
        let part = part_of(&field)?;
        refuse_more(part, &came)?;
        came.push(part);
        incoming.begin(part).await?;
        while let Some(piece) = field.chunk().await.map_err(|error| broken(&error, limit))? {
            write(incoming, piece, limit).await?;
        }
    }
    let missing = |part| !came.contains(&part);
    let whole = came.iter().any(|part| matches!(part, Part::Gguf | Part::Whole));
    match [Part::Config, Part::Weights].into_iter().find(|part| !whole && missing(*part)) {
        None => Ok(()),
        Some(part) => {
            let name = field_name(part);
            Err(ApiError::malformed(name, format!("the part `{name}` is missing")))
        }
    }
}

async fn write(incoming: &mut Incoming, piece: Bytes, limit: usize) -> Result<(), ApiError> {
    incoming.write(piece).await.map_err(|error| match error {
        AdapterError::TooLarge { .. } => ApiError::too_large(limit),
        other => other.into(),
    })
}

/// A part that is a whole adapter comes alone, and each at most once.
fn refuse_more(part: Part, came: &[Part]) -> Result<(), ApiError> {
    let is_whole = |part: &Part| matches!(part, Part::Gguf | Part::Whole);
    let name = field_name(part);
    if came.contains(&part) {
        return Err(ApiError::malformed(name, format!("the part `{name}` comes twice")));
    }
    let parts = || came.iter().chain([&part]).filter(|part| **part != Part::Labels);
    match parts().find(|part| is_whole(part)) {
        Some(whole) if parts().count() > 1 => {
            let name = field_name(*whole);
            let message = format!("the part `{name}` is a whole adapter; only `labels` go with it");
            Err(ApiError::malformed(name, message))
        }
        _ => Ok(()),
    }
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_multipart(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/"))
}

fn no_form() -> ApiError {
    let message = "the body is not the multipart/form-data that its content-type says it is; it needs a `boundary`";
    ApiError::malformed("body", message)
}

fn field_name(part: Part) -> &'static str {
    match part {
        Part::Config => "config",
        Part::Weights => "weights",
        Part::ModelConfig => "model_config",
        Part::Labels => "labels",
        Part::Gguf => "gguf",
        Part::Whole => "archive",
    }
}

fn part_of(field: &Field<'_>) -> Result<Part, ApiError> {
    let ends = |file: &str, endings: &[&str]| {
        let ending = Path::new(file).extension().unwrap_or_default();
        endings.iter().any(|known| ending.eq_ignore_ascii_case(known))
    };
    match (field.name(), field.file_name()) {
        (Some("config"), _) | (_, Some("adapter_config.json")) => Ok(Part::Config),
        (Some("weights"), _) | (_, Some("adapter_model.safetensors")) => Ok(Part::Weights),
        (Some("model_config"), _) | (_, Some("config.json")) => Ok(Part::ModelConfig),
        (Some("labels"), _) => Ok(Part::Labels),
        (Some("gguf"), _) => Ok(Part::Gguf),
        (Some("archive"), _) => Ok(Part::Whole),
        (_, Some(file)) if ends(file, &["gguf"]) => Ok(Part::Gguf),
        (_, Some(file)) if ends(file, &["tar", "tgz", "gz", "zip"]) => Ok(Part::Whole),
        (name, _) => {
            let name: String = name.unwrap_or_default().chars().take(40).collect();
            let message = format!(
                "the part `{}` is none of `config`, `weights`, `labels`, `model_config`, `gguf` and `archive`, and its \
                 file is neither adapter_config.json nor adapter_model.safetensors nor a GGUF file nor an archive",
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
