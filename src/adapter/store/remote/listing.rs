//! What lies in a store far away.
use crate::adapter::store::{ObjectInfo, Stamp, place::RETIRED_MARKS};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, ObjectStore, Result, path::Path};

/// Listings that run at a time.
const AT_ONCE: usize = 16;
/// Sorts behind `.lorad/…` and before what an adapter may be called.
const BEHIND_OURS: &str = ".loradz";

/// Everything below `at`; all but what is hidden where `at` is the root, so that our own objects are not even asked for.
pub(super) async fn list(
    client: &dyn ObjectStore,
    at: &Path,
    is_root: bool,
) -> Result<Vec<ObjectMeta>> {
    let prefix = Some(at).filter(|at| !at.is_root());
    if is_root {
        let offset = at.clone().join(BEHIND_OURS);
        client.list_with_offset(prefix, &offset).try_collect().await
    } else {
        client.list(prefix).try_collect().await
    }
}

/// The same level by level: web servers refuse to list everything at once.
pub(super) async fn list_by_level(client: &dyn ObjectStore, at: &Path) -> Result<Vec<ObjectMeta>> {
    let mut found = Vec::new();
    let mut level = vec![at.clone()];
    while !level.is_empty() {
        let ask = |at: Path| async move {
            client.list_with_delimiter(Some(&at).filter(|at| !at.is_root())).await
        };
        let answers: Vec<_> = stream::iter(level).map(ask).buffered(AT_ONCE).try_collect().await?;
        level = Vec::new();
        for answer in answers {
            found.extend(answer.objects);
            let visible = |at: &Path| !at.filename().is_some_and(|name| name.starts_with('.'));
            level.extend(answer.common_prefixes.into_iter().filter(visible));
        }
    }
    Ok(found)
}

/// As the contract shows it; `None` for what is hidden below `prefix` and for what is not below `root`.
pub(super) fn info(root: &Path, prefix: &str, meta: &ObjectMeta) -> Option<ObjectInfo> {
    let path = meta.location.as_ref();
    let path = match root.as_ref() {
        "" => path,
        root => path.strip_prefix(root)?.strip_prefix('/')?,
    };
    let is_hidden = |part: &str| part.starts_with('.') && !RETIRED_MARKS.contains(&part);
    let hidden = path.strip_prefix(prefix)?.split('/').any(is_hidden);
    (!hidden).then(|| ObjectInfo {
        path: path.to_owned(),
        bytes: meta.size,
        modified: meta.last_modified.into(),
        stamp: stamp(meta),
    })
}

/// The `ETag`, or what web servers have instead.
pub(super) fn stamp(meta: &ObjectMeta) -> Stamp {
    match &meta.e_tag {
        Some(tag) => tagged(tag),
        None => Stamp(format!("{}-{}", meta.size, meta.last_modified.timestamp_micros())),
    }
}

/// Some write quotes in headers and none in listings.
pub(super) fn tagged(tag: &str) -> Stamp {
    Stamp(tag.trim_start_matches("W/").trim_matches('"').to_owned())
}
