//! A log as objects, one a line, because buckets cannot add to an object.
//!
//! They lie below the log's path by day, and are named by time, so that the last ones are found without asking for all.
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, Result, path::Path};
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

const AT_ONCE: usize = 16;
const SECONDS_A_DAY: u64 = 24 * 60 * 60;

/// Where a line of now goes: sorted by name is sorted by time.
pub(super) fn place(log: &Path, now: SystemTime) -> Path {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let day = format!("{:06}", since.as_secs() / SECONDS_A_DAY);
    log.clone().join(day).join(format!("{:020}-{}", since.as_nanos(), Uuid::new_v4()))
}

/// The last lines, oldest first.
pub(super) async fn tail(
    client: &dyn ObjectStore,
    log: &Path,
    count: usize,
) -> Result<Vec<String>> {
    let mut days = client.list_with_delimiter(Some(log)).await?.common_prefixes;
    days.sort();
    let mut last: Vec<Path> = Vec::new();
    while let Some(day) = days.pop()
        && last.len() < count
    {
        let mut lines: Vec<Path> =
            client.list(Some(&day)).map_ok(|meta| meta.location).try_collect().await?;
        lines.sort();
        lines.append(&mut last);
        last = lines.split_off(lines.len().saturating_sub(count));
    }
    let read = |line: Path| async move { client.get(&line).await?.bytes().await };
    let lines: Vec<_> = stream::iter(last).map(read).buffered(AT_ONCE).try_collect().await?;
    Ok(lines.iter().map(|line| String::from_utf8_lossy(line).trim_end().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn names_sort_as_times_do() {
        let log = Path::from("events");
        let at = |seconds| place(&log, UNIX_EPOCH + Duration::from_secs(seconds));
        let times = [0, 1, 86_399, 86_400, 1_700_000_000, 9_999_999_999];
        assert!(times.map(at).is_sorted());
    }
}
