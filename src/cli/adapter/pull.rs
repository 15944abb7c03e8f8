//! `lorad adapter pull`: a version's files from a running server.
use super::{client::Server, error::CommandError, output::Output, send, versions, words::short};
use crate::adapter::{
    self, AdapterError, AdapterFiles, AdapterLimits, GGUF_FILE, VersionId,
    upload::{Part, Staging},
};
use futures_util::StreamExt;
use reqwest::{Method, Response};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// More than any adapter has; what the server sends is bounded by what it took.
const MOST: u64 = 1 << 40;

/// What to get, and where to put it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PullArgs {
    /// Which adapter; of its versions the current one, or the one that begins with these 8 or more digits
    #[arg(value_name = "NAME[@VERSION]")]
    name: String,
    /// Directory for its files, new or empty
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Downloads, compares and writes; all of it, or nothing.
pub(super) async fn run(
    server: &Server,
    args: &PullArgs,
    quiet: bool,
) -> Result<Output, CommandError> {
    check_place(&args.directory)?;
    let (name, version) = versions::split_version(&args.name);
    let version = match version {
        Some(version) => Some(versions::whole(server, name, version).await?),
        None => None,
    };
    let query: Vec<_> = version.iter().map(|version| ("version", version)).collect();
    let path = ["admin", "adapters", name, "files"];
    let request = server.transfer(Method::GET, &path).query(&query);
    let response = server.send(request).await?;
    let wanted = version.or_else(|| tagged(&response)).ok_or_else(|| {
        CommandError::failed("the server does not say which version it sends: is it lorad?")
    })?;
    let files = received(server, response, quiet).await?;
    let found = files.version();
    if wanted.parse().ok() != Some(found) {
        return Err(CommandError::failed(format!(
            "the files are not those of version {}: they were changed on their way, try again",
            short(&wanted)
        )));
    }
    put(&files, &args.directory)
        .map_err(|error| CommandError::failed(format!("{}: {error}", args.directory.display())))?;
    Ok(told(name, found, &files, &args.directory))
}

/// What is there is never written over.
fn check_place(directory: &Path) -> Result<(), CommandError> {
    let shown = directory.display();
    match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(false) => Err(CommandError::failed(format!("{shown} is not empty: choose another DIR"))),
        Err(_) if fs::symlink_metadata(directory).is_ok() => {
            Err(CommandError::failed(format!("{shown} is no directory that can be read")))
        }
        _ => Ok(()),
    }
}

/// The version that the answer names itself.
fn tagged(response: &Response) -> Option<String> {
    let tag = response.headers().get(reqwest::header::ETAG)?.to_str().ok()?;
    Some(tag.trim_matches('"').to_owned())
}

/// The adapter's files out of the server's tar, by the rules that hold for uploads: no other name becomes a path.
async fn received(
    server: &Server,
    response: Response,
    quiet: bool,
) -> Result<AdapterFiles, CommandError> {
    let bar = send::bar(response.content_length(), quiet);
    let staging = tokio::task::spawn_blocking(Staging::temporary).await;
    let staging = staging.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let mut incoming = staging.receive(MOST).await.map_err(|error| failed(&error))?;
    incoming.begin(Part::Whole).await.map_err(|error| failed(&error))?;
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| server.lost(&error))?;
        bar.inc(piece.len() as u64);
        incoming.write(piece).await.map_err(|error| failed(&error))?;
    }
    bar.finish_and_clear();
    let staged = incoming.finish().await.map_err(|error| failed(&error))?;
    let limits = AdapterLimits { max_adapter_bytes: MOST, ..AdapterLimits::default() };
    let (files, _) = tokio::task::spawn_blocking(move || staged.into_files(&limits))
        .await
        .map_err(|error| failed(&error))?
        .map_err(|error| failed(&error))?;
    Ok(files)
}

fn failed(error: &dyn std::error::Error) -> CommandError {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    CommandError::failed(format!("the files could not be taken: {error}{cause}"))
}

fn put(files: &AdapterFiles, directory: &Path) -> Result<(), AdapterError> {
    match files {
        AdapterFiles::Peft { .. } => adapter::write(files, directory, true),
        AdapterFiles::Gguf(_) => {
            fs::create_dir_all(directory)?;
            adapter::write(files, &directory.join(GGUF_FILE), false)
        }
    }
}

fn told(name: &str, version: VersionId, files: &AdapterFiles, directory: &Path) -> Output {
    let shown = directory.display().to_string();
    let bytes = indicatif::BinaryBytes(files.bytes());
    let text = format!("{name}@{} -> {shown} ({bytes})", short(&version.to_string()));
    let json = json!({
        "name": name,
        "version": version.to_string(),
        "directory": shown,
        "files": files.named().iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        "bytes": files.bytes(),
    });
    Output::new(text, json)
}
