//! Writing to a store far away.
use super::listing::{stamp, tagged};
use crate::adapter::store::{Content, Stamp, WriteRule};
use object_store::{
    Attribute, Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UpdateVersion, WriteMultipart,
    path::Path,
};
use std::{
    fs::{self, File},
    io::{self, Read},
};
use uuid::Uuid;

/// Larger files go in pieces of this size, read one after another.
pub(super) const PIECE_BYTES: usize = 8 << 20;
/// Pieces on their way at a time.
const PIECES: usize = 4;
/// A store may say "conflict" of an object that is not there, when a delete and a write meet.
const ATTEMPTS: usize = 3;
/// The attribute that says whose write it was.
const WRITE: &str = "loradwrite";

/// Writes an object; `None` when the rule does not hold. Of files in pieces the rule is asked before the first and before
/// the last step only: such objects are named by their content, and two writers write the same.
pub(super) async fn put(
    client: &dyn ObjectStore,
    at: &Path,
    content: Content<'_>,
    rule: WriteRule<'_>,
) -> Result<Option<Stamp>> {
    let payload = match content {
        Content::Bytes(bytes) => bytes.to_vec().into(),
        Content::File(file) => {
            let bytes = fs::metadata(file).map_err(unreadable)?.len();
            if bytes > PIECE_BYTES as u64 {
                return put_in_pieces(client, at, File::open(file).map_err(unreadable)?, rule)
                    .await;
            }
            PutPayload::from(fs::read(file).map_err(unreadable)?)
        }
    };
    match rule {
        WriteRule::Always => {
            let done = client.put(at, payload).await?;
            known(client, at, &done).await.map(Some)
        }
        WriteRule::IfAbsent => put_if(client, at, payload, PutMode::Create).await,
        WriteRule::IfUnchanged(expected) => {
            // A stamp is not all that some stores want to know.
            match head(client, at).await? {
                Some(found) if stamp(&found) == *expected => {
                    let version = UpdateVersion { e_tag: found.e_tag, version: found.version };
                    put_if(client, at, payload, PutMode::Update(version)).await
                }
                _ => Ok(None),
            }
        }
    }
}

/// When an answer is lost on the way, the client asks again and is told that the object has changed: by itself. So a write
/// carries a mark, and whoever is refused looks for it.
async fn put_if(
    client: &dyn ObjectStore,
    at: &Path,
    payload: PutPayload,
    mode: PutMode,
) -> Result<Option<Stamp>> {
    let mark = Uuid::new_v4().to_string();
    let mut options = PutOptions::from(mode.clone());
    options.attributes.insert(Attribute::Metadata(WRITE.into()), mark.clone().into());
    let mut attempt = 1;
    loop {
        let error = match client.put_opts(at, payload.clone(), options.clone()).await {
            Ok(done) => return known(client, at, &done).await.map(Some),
            Err(error) => error,
        };
        let refused = matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. });
        let found = match client.get_opts(at, GetOptions::new().with_head(true)).await {
            Ok(found) => Some(found),
            Err(Error::NotFound { .. }) => None,
            Err(_) if refused => return Err(error),
            Err(other) => return Err(other),
        };
        match found {
            Some(found)
                if found
                    .attributes
                    .get(&Attribute::Metadata(WRITE.into()))
                    .is_some_and(|of| of.as_ref() == mark) =>
            {
                return Ok(Some(stamp(&found.meta)));
            }
            _ if !refused => return Err(error),
            None if mode == PutMode::Create && attempt < ATTEMPTS => attempt += 1,
            _ => return Ok(None),
        }
    }
}

async fn put_in_pieces(
    client: &dyn ObjectStore,
    at: &Path,
    file: File,
    rule: WriteRule<'_>,
) -> Result<Option<Stamp>> {
    if !holds(client, at, rule).await? {
        return Ok(None);
    }
    let upload = client.put_multipart_opts(at, PutMultipartOptions::default()).await?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PIECE_BYTES);
    let sent = send(&mut upload, file).await;
    let holds = match sent {
        Ok(()) => holds(client, at, rule).await,
        Err(error) => Err(error),
    };
    match holds {
        Ok(true) => {
            let done = upload.finish().await?;
            known(client, at, &done).await.map(Some)
        }
        other => {
            // The store forgets what is never completed, at the latest when its rules say so.
            let _ = upload.abort().await;
            other.map(|_| None)
        }
    }
}

async fn send(upload: &mut WriteMultipart, mut file: File) -> Result<()> {
    loop {
        let mut piece = Vec::new();
        (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece).map_err(unreadable)?;
        if piece.is_empty() {
            return Ok(());
        }
        upload.wait_for_capacity(PIECES).await?;
        upload.put(piece.into());
    }
}

async fn holds(client: &dyn ObjectStore, at: &Path, rule: WriteRule<'_>) -> Result<bool> {
    match rule {
        WriteRule::Always => Ok(true),
        WriteRule::IfAbsent => Ok(head(client, at).await?.is_none()),
        WriteRule::IfUnchanged(expected) => {
            Ok(head(client, at).await?.is_some_and(|found| stamp(&found) == *expected))
        }
    }
}

async fn head(client: &dyn ObjectStore, at: &Path) -> Result<Option<ObjectMeta>> {
    match client.head(at).await {
        Err(Error::NotFound { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// The stamp of what was just written.
async fn known(client: &dyn ObjectStore, at: &Path, done: &PutResult) -> Result<Stamp> {
    match &done.e_tag {
        Some(tag) => Ok(tagged(tag)),
        None => client.head(at).await.map(|found| stamp(&found)),
    }
}

fn unreadable(error: io::Error) -> Error {
    Error::Generic { store: "file", source: Box::new(error) }
}
