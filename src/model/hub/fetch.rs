//! Brings a model's files into the cache, or finds them there.
use super::bar::DownloadBar;
use crate::{
    hub::{HubId, OFFLINE, is_hidden, is_offline},
    model::ModelError,
};
use hf_hub::{HFClientSync, HFError, resolve_cache_dir};
use indicatif::ProgressBar;
use std::path::PathBuf;

/// What a model directory is read from; repositories hold the same weights in other formats too.
const WANTED: &[&str] = &[
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    // sentence-transformers'.
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "*_Pooling/config.json",
];

/// The directory in the cache that holds the model.
///
/// `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT` and `HF_TOKEN` mean what they mean elsewhere; with `HF_HUB_OFFLINE` nothing
/// is asked of the network.
///
/// # Errors
/// When the hub has no such model, does not show it to us, or cannot be reached.
pub(in crate::model) fn fetch(id: &HubId, bar: ProgressBar) -> Result<PathBuf, ModelError> {
    let client = HFClientSync::new().map_err(|error| failure(id, &error))?;
    if is_offline() { cached(&client, id) } else { download(&client, id, bar) }
}

fn cached(client: &HFClientSync, id: &HubId) -> Result<PathBuf, ModelError> {
    let model = client.model(&id.owner, &id.name);
    let found =
        model.snapshot_download().maybe_revision(id.revision.clone()).local_files_only(true).send();
    found.map_err(|error| failure(id, &error))
}

fn download(client: &HFClientSync, id: &HubId, bar: ProgressBar) -> Result<PathBuf, ModelError> {
    let model = client.model(&id.owner, &id.name);
    let fetched = model
        .snapshot_download()
        .maybe_revision(id.revision.clone())
        .allow_patterns(WANTED.iter().map(|name| (*name).to_owned()).collect())
        .progress(DownloadBar::new(bar))
        .send();
    match fetched {
        Err(error @ HFError::Request { .. }) => {
            let directory = cached(client, id).map_err(|_| failure(id, &error))?;
            tracing::warn!(model = %id, %error, "the hub cannot be reached, the cached files are used");
            Ok(directory)
        }
        fetched => fetched.map_err(|error| failure(id, &error)),
    }
}

fn failure(id: &HubId, error: &HFError) -> ModelError {
    let detail = match error {
        error if is_hidden(error) => {
            "the hub does not show such a repository, and there is no directory of that name; check the \
             spelling, and set HF_TOKEN if it is private or needs its licence accepted"
                .to_owned()
        }
        HFError::RevisionNotFound { revision, .. } => {
            format!("the hub has no revision `{revision}` of it")
        }
        HFError::LocalEntryNotFound { .. } => format!(
            "it is not in the cache at {}, and {OFFLINE} forbids to download it",
            resolve_cache_dir().display()
        ),
        other => format!("{other}; try again, or set {OFFLINE}=1 to use what is in the cache"),
    };
    ModelError::Hub { id: id.to_string(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::fake::{COMMIT, FakeHub};
    use hf_hub::HFClient;
    use std::{fs, path::Path};

    fn client(endpoint: &str, cache: &Path) -> HFClientSync {
        let builder = HFClient::builder().endpoint(endpoint).cache_dir(cache).retry_max_attempts(0);
        HFClientSync::from_inner(builder.build().unwrap()).unwrap()
    }

    #[test]
    fn only_what_a_model_is_read_from_is_downloaded_and_once() {
        let hub = FakeHub::start(&[
            ("config.json", "{}"),
            ("model-00001-of-00001.safetensors", "weights"),
            ("pytorch_model.bin", "the same again"),
            ("onnx/config.json", "no"),
            ("1_Pooling/config.json", "{}"),
            ("2_Dense/config.json", "no"),
            ("README.md", "no"),
            ("tokenizer.json", "[]"),
        ]);
        let cache = tempfile::tempdir().unwrap();
        let client = client(&hub.endpoint, cache.path());
        let id = "org/name".parse().unwrap();
        let wanted = [
            "1_Pooling/config.json",
            "config.json",
            "model-00001-of-00001.safetensors",
            "tokenizer.json",
        ];
        for _ in 0..2 {
            let directory = download(&client, &id, ProgressBar::hidden()).unwrap();
            assert_eq!(fs::read_to_string(directory.join(wanted[2])).unwrap(), "weights");
            assert_eq!(hub.sent(), wanted);
        }
        assert!(cached(&client, &id).unwrap().ends_with(COMMIT));
    }

    #[test]
    fn what_the_hub_does_not_have_is_named() {
        let hub = FakeHub::start(&[]);
        let cache = tempfile::tempdir().unwrap();
        let client = client(&hub.endpoint, cache.path());
        let message = |id: &str| {
            let id = id.parse().unwrap();
            download(&client, &id, ProgressBar::hidden()).unwrap_err().to_string()
        };
        let revision = message("org/name@v9");
        assert!(revision.contains("revision `v9`"), "{revision}");
        let repository = message("org/other");
        assert!(repository.contains("org/other"), "{repository}");
    }

    /// A cache with one model; the endpoint is a port where nobody listens.
    fn unreachable_hub(cache: &Path) -> HFClientSync {
        let snapshot = cache.join("models--org--name/snapshots").join(COMMIT);
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(cache.join("models--org--name/refs")).unwrap();
        fs::write(cache.join("models--org--name/refs/main"), COMMIT).unwrap();
        client("http://127.0.0.1:1", cache)
    }

    #[test]
    fn offline_takes_what_the_cache_has() {
        let cache = tempfile::tempdir().unwrap();
        let client = unreachable_hub(cache.path());
        let found = cached(&client, &"org/name".parse().unwrap()).unwrap();
        assert!(found.ends_with(COMMIT), "{}", found.display());
        let message = cached(&client, &"org/other".parse().unwrap()).unwrap_err().to_string();
        assert!(message.contains("org/other") && message.contains(OFFLINE), "{message}");
    }

    #[test]
    fn an_unreachable_hub_falls_back_to_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let client = unreachable_hub(cache.path());
        let bar = ProgressBar::hidden;
        let found = download(&client, &"org/name".parse().unwrap(), bar()).unwrap();
        assert!(found.ends_with(COMMIT), "{}", found.display());
        assert!(download(&client, &"org/other".parse().unwrap(), bar()).is_err());
    }
}
