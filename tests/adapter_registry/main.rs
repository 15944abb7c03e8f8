//! The registry against plain maps, its readers against its writers, and its store against crashes and other writers.
#[path = "../adapter_maker/mod.rs"]
mod adapter_maker;
mod crash;
mod failing;
mod heads;
mod leftovers;
mod model;
mod others;
mod rules;
mod versions;

use lorad::adapter::{
    AdapterConfig, AdapterError, AdapterFiles, AdapterName, AdapterRef, AdapterRegistry,
    PublishOutcome, PublishRule, SwapPolicy, VersionId, format::CONFIG_FILE, format::WEIGHTS_FILE,
};
use std::{collections::BTreeMap, fs, io, path::Path, sync::LazyLock};
use {adapter_maker::Maker, adapter_maker::small_base};

/// Four adapters of different content.
pub(crate) static CONTENTS: LazyLock<Vec<AdapterFiles>> =
    LazyLock::new(|| (0..4).map(|seed| Maker::new(seed).files()).collect());

pub(crate) fn content(number: usize) -> AdapterFiles {
    CONTENTS[number].clone()
}

pub(crate) fn id(number: usize) -> VersionId {
    CONTENTS[number].version()
}

pub(crate) fn name(text: &str) -> AdapterName {
    text.parse().expect("a name")
}

pub(crate) fn current(text: &str) -> AdapterRef {
    AdapterRef { name: name(text), version: None }
}

pub(crate) fn in_memory() -> AdapterRegistry {
    AdapterRegistry::new(small_base(), &AdapterConfig::default(), None)
}

pub(crate) fn config(root: &Path) -> AdapterConfig {
    let root = root.to_str().expect("UTF-8").to_owned();
    AdapterConfig { adapters: Some(root), ..Default::default() }
}

pub(crate) fn in_directory(root: &Path) -> AdapterRegistry {
    let (registry, report) =
        AdapterRegistry::open(&config(root), small_base(), "base").expect("a directory");
    assert!(report.skipped.is_empty(), "{:?}", report.skipped);
    registry
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(future)
}

pub(crate) fn publish(
    registry: &AdapterRegistry,
    text: &str,
    number: usize,
    rule: PublishRule,
) -> Result<PublishOutcome, AdapterError> {
    wait(registry.publish(name(text), content(number), rule)).map(|done| done.outcome)
}

/// What the registry lists, as a map.
pub(crate) fn listed(registry: &AdapterRegistry) -> BTreeMap<String, VersionId> {
    let pairs = registry.list().into_iter().map(|entry| (entry.name.to_string(), entry.version));
    pairs.collect()
}

/// Versions of a name by number, the current one first.
pub(crate) fn history(registry: &AdapterRegistry, text: &str) -> Vec<usize> {
    let number = |version| (0..4).find(|number| id(*number) == version).expect("a content");
    registry.history(&name(text)).into_iter().map(|entry| number(entry.version)).collect()
}

pub(crate) fn roll_back(
    registry: &AdapterRegistry,
    to: Option<usize>,
) -> Result<VersionId, AdapterError> {
    let options = ("somebody".to_owned(), SwapPolicy::Pin);
    wait(registry.roll_back(name("a"), to.map(id), None, options)).map(|done| done.version)
}

/// The versions that lie in the store.
pub(crate) fn stored(root: &Path) -> Vec<String> {
    names_in(&root.join(".lorad/versions"))
        .into_iter()
        .filter(|version| !names_in(&root.join(".lorad/versions").join(version)).is_empty())
        .collect()
}

/// Puts an adapter of content `number` into `root/directory`, beside whatever is there.
pub(crate) fn lay(root: &Path, directory: &str, number: usize) {
    let directory = root.join(directory);
    fs::create_dir_all(&directory).expect("made");
    for (name, bytes) in content(number).named() {
        fs::write(directory.join(name), bytes).expect("written");
    }
}

pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<_> = entries.map(|e| name(e).into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// What a training run leaves beside its adapter.
pub(crate) fn lay_checkpoint(root: &Path, directory: &str) {
    fs::create_dir_all(root.join(directory).join("checkpoint-5")).expect("made");
    fs::write(root.join(directory).join("checkpoint-5/optimizer.pt"), "state").expect("written");
    fs::write(root.join(directory).join("README.md"), "notes").expect("written");
}

pub(crate) const CHECKPOINT: [&str; 2] = ["README.md", "checkpoint-5"];

pub(crate) const WITH_CHECKPOINT: [&str; 4] =
    ["README.md", CONFIG_FILE, WEIGHTS_FILE, "checkpoint-5"];
