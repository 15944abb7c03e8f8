//! One adapter from a repository on the hub, pinned to a commit.
use super::{
    ObjectInfo, Stamp,
    cause::first_cause,
    drop_ins::{self, DropInKind},
};
use crate::{
    adapter::{
        AdapterError, AdapterLimits,
        format::{self, AdapterFiles, MAX_CONFIG_BYTES, missing_weights, no_adapter},
    },
    hub::{HubId, OFFLINE, is_hidden, is_offline},
};
use bytes::Bytes;
use hf_hub::{HFClientSync, HFError, repository::RepoTreeEntry};
use std::{collections::BTreeMap, time::UNIX_EPOCH};

/// How a reference to the hub begins.
pub const SCHEME: &str = "hf://";

/// What a repository held.
#[derive(Clone, Debug)]
pub struct HubAdapter {
    /// Its files.
    pub files: AdapterFiles,
    /// The commit that they are of, whatever branch or tag was asked for.
    pub commit: String,
    /// `hf://org/name@commit`: always means these files.
    pub source: String,
}

/// Reads the adapter that `hf://org/name` or `hf://org/name@revision` means. Blocks, and may not be called on an async
/// thread.
///
/// `HF_ENDPOINT`, `HF_TOKEN` and `HF_HOME` mean what they mean elsewhere; with `HF_HUB_OFFLINE` the cache is read and
/// nothing is asked of the network.
///
/// # Errors
/// When the reference is none, the hub has no such adapter, does not show it or cannot be reached, or it is over a limit.
pub fn fetch(reference: &str, limits: &AdapterLimits) -> Result<HubAdapter, AdapterError> {
    let id = parse(reference)?;
    let client = HFClientSync::new().map_err(|error| failure(&id, &error))?;
    if is_offline() { cached(&client, &id, limits) } else { download(&client, &id, limits) }
}

/// `hf://org/name@revision` of `org/name@revision`, with or without its beginning; `None` for what is no id of the hub.
pub fn reference(text: &str) -> Option<String> {
    let id: HubId = text.strip_prefix(SCHEME).unwrap_or(text).parse().ok()?;
    Some(format!("{SCHEME}{id}"))
}

fn parse(reference: &str) -> Result<HubId, AdapterError> {
    let id = reference.strip_prefix(SCHEME).and_then(|id| id.parse().ok());
    id.ok_or_else(|| {
        let shown: String = reference.chars().take(80).collect();
        AdapterError::invalid(format!(
            "`{}` is no adapter on the hub: write hf://ORG/NAME or hf://ORG/NAME@REVISION",
            shown.escape_debug()
        ))
    })
}

fn download(
    client: &HFClientSync,
    id: &HubId,
    limits: &AdapterLimits,
) -> Result<HubAdapter, AdapterError> {
    let failed = |error: HFError| failure(id, &error);
    let model = client.model(&id.owner, &id.name);
    let info = model.info().maybe_revision(id.revision.clone()).send().map_err(failed)?;
    let commit = info.sha.ok_or_else(|| {
        AdapterError::Unreachable(format!("the hub names no commit of {id}: try again"))
    })?;
    let tree = model.list_tree().revision(commit.clone()).send().map_err(failed)?;
    let listed: Vec<ObjectInfo> = tree.into_iter().filter_map(file).collect();
    let get = |path: &str, limit: u64| {
        let listed = listed.iter().find(|file| file.path == path);
        let bytes = listed.map_or(0, |file| file.bytes);
        if bytes > limit {
            return Err(AdapterError::TooLarge { bytes, limit });
        }
        let got = model.download_file_to_bytes().filename(path).revision(commit.clone()).send();
        let got: Bytes = got.map_err(failed)?;
        if got.len() as u64 == bytes {
            return Ok(got);
        }
        Err(AdapterError::Unreachable(format!(
            "the hub sent {} bytes of `{path}` of {id}, which has {bytes}: try again",
            got.len()
        )))
    };
    let files = read(&listed, limits, get)?;
    let source = format!("{SCHEME}{}@{commit}", id.repository());
    Ok(HubAdapter { files, commit, source })
}

/// A file as a store would list it.
fn file(entry: RepoTreeEntry) -> Option<ObjectInfo> {
    match entry {
        RepoTreeEntry::File { oid, size, path, .. } => {
            Some(ObjectInfo { path, bytes: size, modified: UNIX_EPOCH, stamp: Stamp(oid) })
        }
        RepoTreeEntry::Directory { .. } => None,
    }
}

/// The rules are those of a directory in a store.
fn read(
    listed: &[ObjectInfo],
    limits: &AdapterLimits,
    get: impl Fn(&str, u64) -> Result<Bytes, AdapterError>,
) -> Result<AdapterFiles, AdapterError> {
    let files: BTreeMap<&str, &ObjectInfo> =
        listed.iter().map(|file| (file.path.as_str(), file)).collect();
    let Some(found) = drop_ins::directory("", &files) else {
        return Err(no_adapter(files.keys().filter(|name| drop_ins::is_gguf(name)).count()));
    };
    match found.kind {
        DropInKind::Peft { weights: None, pickle, .. } => Err(missing_weights(pickle)),
        DropInKind::Peft { config, weights: Some(weights), model, .. } => {
            let config = get(&config, MAX_CONFIG_BYTES)?;
            let weights = get(&weights, limits.max_adapter_bytes)?;
            let model = model.filter(|_| format::wants_model_config(&config));
            let model = model.map(|model| get(&model, MAX_CONFIG_BYTES)).transpose()?;
            AdapterFiles::Peft { config, weights }.beside(model.as_ref())
        }
        DropInKind::Gguf { path } => {
            AdapterFiles::of_gguf(&path, Some(get(&path, limits.max_adapter_bytes)?))
        }
    }
}

fn cached(
    client: &HFClientSync,
    id: &HubId,
    limits: &AdapterLimits,
) -> Result<HubAdapter, AdapterError> {
    let model = client.model(&id.owner, &id.name);
    let found = model
        .snapshot_download()
        .maybe_revision(id.revision.clone())
        .local_files_only(true)
        .send()
        .map_err(|error| failure(id, &error))?;
    let files = AdapterFiles::read(&found, limits)?;
    // The cache's directories are called after their commits.
    let commit = found.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let source = format!("{SCHEME}{}@{commit}", id.repository());
    Ok(HubAdapter { files, commit, source })
}

fn failure(id: &HubId, error: &HFError) -> AdapterError {
    match error {
        error if is_hidden(error) => AdapterError::invalid(format!(
            "the hub shows no repository {}: check the spelling, and set HF_TOKEN where the server runs if it is \
             private or needs its licence accepted",
            id.repository()
        )),
        HFError::RevisionNotFound { revision, .. } => AdapterError::invalid(format!(
            "the hub has no revision `{revision}` of {}",
            id.repository()
        )),
        HFError::LocalEntryNotFound { .. } => AdapterError::invalid(format!(
            "{id} is not in the server's cache, and {OFFLINE} forbids to download it"
        )),
        other => AdapterError::Unreachable(format!(
            "{id} could not be had from the hub: {}; try again",
            first_cause(other)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::fake::{COMMIT, FakeHub};
    use hf_hub::HFClient;
    use std::{fs, path::Path};
    use tempfile::TempDir;

    fn client(endpoint: &str, cache: &Path) -> HFClientSync {
        let builder = HFClient::builder().endpoint(endpoint).cache_dir(cache).retry_max_attempts(0);
        HFClientSync::from_inner(builder.token("hf_secret").build().unwrap()).unwrap()
    }

    fn fetched(
        hub: &FakeHub,
        id: &str,
        limits: &AdapterLimits,
    ) -> Result<HubAdapter, AdapterError> {
        let cache = TempDir::new().unwrap();
        download(&client(&hub.endpoint, cache.path()), &id.parse().unwrap(), limits)
    }

    fn with_files(
        files: &'static [(&'static str, &'static str)],
    ) -> (FakeHub, Result<HubAdapter, AdapterError>) {
        let hub = FakeHub::start(files);
        let found = fetched(&hub, "org/name@main", &AdapterLimits::default());
        (hub, found)
    }

    #[test]
    fn an_adapter_is_read_at_a_commit_and_nothing_else_is() {
        let (hub, found) = with_files(&[
            ("README.md", "no"),
            ("adapter_config.json", "{}"),
            ("adapter_model.safetensors", "weights"),
            ("adapter_model.bin", "pickle"),
            ("checkpoint-1/adapter_config.json", "no"),
        ]);
        let found = found.unwrap();
        assert_eq!(found.source, format!("hf://org/name@{COMMIT}"));
        assert_eq!(found.commit, COMMIT);
        assert!(matches!(found.files, AdapterFiles::Peft { weights, .. } if weights == "weights"));
        assert_eq!(hub.sent(), ["adapter_config.json", "adapter_model.safetensors"]);
    }

    #[test]
    fn the_only_gguf_file_is_the_adapter() {
        let (_, found) = with_files(&[("README.md", "no"), ("lora-f16.gguf", "GGUF")]);
        assert!(matches!(found.unwrap().files, AdapterFiles::Gguf(bytes) if bytes == "GGUF"));
    }

    #[test]
    fn what_is_no_adapter_says_why_and_is_not_downloaded() {
        let cases: [(&[(&str, &str)], &str); 4] = [
            (&[("adapter_config.json", "{}"), ("adapter_model.bin", "x")], "is a pickle"),
            (&[("adapter_config.json", "{}")], "there is no `adapter_model.safetensors`"),
            (&[("a.gguf", "GGUF"), ("b.gguf", "GGUF")], "there are 2 GGUF files"),
            (&[("config.json", "{}")], "there is no `adapter_config.json`"),
        ];
        for (files, words) in cases {
            let (hub, found) = with_files(files);
            let error = found.unwrap_err().to_string();
            assert!(error.contains(words) && hub.sent().is_empty(), "{error}");
        }
    }

    #[test]
    fn an_adapter_over_the_limit_is_not_downloaded() {
        let hub = FakeHub::start(&[
            ("adapter_config.json", "{}"),
            ("adapter_model.safetensors", "too many weights"),
        ]);
        let limits = AdapterLimits { max_adapter_bytes: 3, ..AdapterLimits::default() };
        let error = fetched(&hub, "org/name", &limits).unwrap_err();
        assert!(matches!(error, AdapterError::TooLarge { bytes: 16, limit: 3 }), "{error:?}");
        assert_eq!(hub.sent(), ["adapter_config.json"]);
    }

    #[test]
    fn what_the_hub_does_not_have_is_named_and_the_token_never() {
        let hub = FakeHub::start(&[]);
        let limits = AdapterLimits::default();
        let message = |id: &str| fetched(&hub, id, &limits).unwrap_err().to_string();
        let revision = message("org/name@v9");
        assert!(revision.contains("revision `v9`"), "{revision}");
        let repository = message("org/other");
        assert!(
            repository.contains("org/other") && repository.contains("HF_TOKEN"),
            "{repository}"
        );
        let cache = TempDir::new().unwrap();
        let nowhere = client("http://127.0.0.1:1", cache.path());
        let error = download(&nowhere, &"org/name".parse().unwrap(), &limits).unwrap_err();
        assert!(matches!(error, AdapterError::Unreachable(_)), "{error:?}");
        for shown in [revision, repository, error.to_string()] {
            assert!(!shown.contains("hf_secret"), "{shown}");
        }
    }

    #[test]
    fn offline_the_cache_is_read() {
        let cache = TempDir::new().unwrap();
        let snapshot = cache.path().join("models--org--name/snapshots").join(COMMIT);
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(cache.path().join("models--org--name/refs")).unwrap();
        fs::write(cache.path().join("models--org--name/refs/main"), COMMIT).unwrap();
        fs::write(snapshot.join("lora.gguf"), "GGUF").unwrap();
        let client = client("http://127.0.0.1:1", cache.path());
        let limits = AdapterLimits::default();
        let found = cached(&client, &"org/name".parse().unwrap(), &limits).unwrap();
        assert_eq!(found.commit, COMMIT);
        let error = cached(&client, &"org/other".parse().unwrap(), &limits).unwrap_err();
        assert!(error.to_string().contains(OFFLINE), "{error}");
    }

    #[test]
    fn what_is_no_reference_is_refused_without_a_network() {
        for text in
            ["hf://", "hf://a", "hf://a/b/c", "hf://../a", "org/name", "hf://a/b@", "s3://a/b"]
        {
            let error = fetch(text, &AdapterLimits::default()).unwrap_err().to_string();
            assert!(error.contains("hf://ORG/NAME"), "{error}");
        }
    }
}
