//! Reading from a store far away.
use super::{explain::is_no_bucket, listing::stamp, write::PIECE_BYTES};
use crate::adapter::store::Stamp;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{Error, GetOptions, GetResult, ObjectStore, ObjectStoreExt, Result, path::Path};

/// Pieces on their way at a time: one connection alone does not fill a network card.
const PIECES: usize = 8;

/// What lies somewhere.
pub(super) enum Read {
    Nothing,
    TooLarge(u64),
    Object(Bytes, Stamp),
}

/// Its size is known before any of it is read.
pub(super) async fn get(client: &dyn ObjectStore, at: &Path, limit: u64) -> Result<Read> {
    let found = match client.get(at).await {
        Err(error @ Error::NotFound { .. }) if !is_no_bucket(&error) => return Ok(Read::Nothing),
        other => other?,
    };
    let (bytes, stamp, tag) = (found.meta.size, stamp(&found.meta), found.meta.e_tag.clone());
    if bytes > limit {
        return Ok(Read::TooLarge(bytes));
    }
    let body = match tag {
        Some(tag) if bytes > PIECE_BYTES as u64 => {
            drop(found);
            in_pieces(client, at, bytes, &tag).await?
        }
        _ => whole(found, limit).await?,
    };
    match body.len() as u64 {
        bytes if bytes > limit => Ok(Read::TooLarge(bytes)),
        _ => Ok(Read::Object(body, stamp)),
    }
}

/// Reads no further than just over the limit, whatever size was said.
async fn whole(found: GetResult, limit: u64) -> Result<Bytes> {
    let mut body = BytesMut::with_capacity(found.meta.size as usize);
    let mut pieces = found.into_stream();
    while let Some(piece) = pieces.next().await {
        body.extend_from_slice(&piece?);
        if body.len() as u64 > limit {
            break;
        }
    }
    Ok(body.freeze())
}

/// All of the same content, or none.
async fn in_pieces(client: &dyn ObjectStore, at: &Path, bytes: u64, tag: &str) -> Result<Bytes> {
    let read = |start: u64| async move {
        let range = start..bytes.min(start + PIECE_BYTES as u64);
        let options = GetOptions::new().with_range(Some(range)).with_if_match(Some(tag));
        client.get_opts(at, options).await?.bytes().await
    };
    let starts = stream::iter((0..bytes).step_by(PIECE_BYTES));
    let mut pieces = starts.map(read).buffered(PIECES);
    let mut body = BytesMut::with_capacity(bytes as usize);
    while let Some(piece) = pieces.try_next().await? {
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}
