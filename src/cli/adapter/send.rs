//! Files on their way to the server: read piece by piece while they are sent.
use super::{
    error::CommandError,
    source::{LocalFile, PushSource},
};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{
    Body, RequestBuilder,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
    multipart::{Form, Part},
};
use serde_json::json;
use std::io;
use tokio::{fs::File, io::AsyncReadExt};

/// What is read and sent at once.
const PIECE: usize = 256 << 10;

/// The request with the adapter as its body.
///
/// # Errors
/// When a file cannot be opened.
pub(super) async fn with_body(
    request: RequestBuilder,
    source: &PushSource,
    bar: &ProgressBar,
) -> Result<RequestBuilder, CommandError> {
    match source {
        PushSource::Reference(reference) => Ok(request.json(&json!({"source": reference}))),
        PushSource::Whole(file) => Ok(request
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, file.bytes)
            .body(body(file, bar).await?)),
        PushSource::Parts(parts) => {
            let mut form = Form::new();
            for (name, file) in parts {
                let file_name = file.path.file_name().unwrap_or_default().to_string_lossy();
                let part = Part::stream_with_length(body(file, bar).await?, file.bytes);
                form = form.part(*name, part.file_name(file_name.into_owned()));
            }
            Ok(request.multipart(form))
        }
    }
}

/// A bar of bytes on a terminal, and nothing elsewhere: indicatif looks where it draws.
pub(super) fn bar(bytes: Option<u64>, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let known = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let (bar, form) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), known),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec}"),
    };
    // A form that indicatif does not take is ours to fix; its own will do.
    match ProgressStyle::with_template(form) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

async fn body(file: &LocalFile, bar: &ProgressBar) -> Result<Body, CommandError> {
    let opened = File::open(&file.path).await;
    let opened = opened
        .map_err(|error| CommandError::failed(format!("{}: {error}", file.path.display())))?;
    Ok(Body::wrap_stream(pieces(opened, file.bytes, bar.clone())))
}

/// So many bytes of a file: what it grows by meanwhile was not announced.
fn pieces(
    file: File,
    bytes: u64,
    bar: ProgressBar,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold((file, bytes, bar), |(mut file, left, bar)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
        let read = file.read(&mut piece).await?;
        if read == 0 {
            return Err(io::Error::other("the file became shorter while it was sent"));
        }
        piece.truncate(read);
        bar.inc(read as u64);
        Ok(Some((Bytes::from(piece), (file, left - read as u64, bar))))
    })
}
