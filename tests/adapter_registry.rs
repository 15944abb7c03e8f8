//! The registry against a plain map, its readers against its writers, and its directory against crashes.
mod adapter_maker;

use adapter_maker::{Maker, key, small_base, small_layout, values};
use lorad::adapter::{
    AdapterConfig, AdapterError, AdapterFiles, AdapterLease, AdapterLimits, AdapterName,
    AdapterRef, AdapterRegistry, AdapterTerms, Content, MemoryObjects, ObjectInfo, Objects,
    PublishOutcome, PublishRule, Source, Stamp, SwapPolicy, VersionId, WriteRule,
    format::{CONFIG_FILE, WEIGHTS_FILE},
    inspect,
};
use lorad::lora::LoraLayout;
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// Four adapters of different content.
static CONTENTS: LazyLock<Vec<AdapterFiles>> =
    LazyLock::new(|| (0..4).map(|seed| Maker::new(seed).files()).collect());

fn content(number: usize) -> AdapterFiles {
    CONTENTS[number].clone()
}

fn id(number: usize) -> VersionId {
    CONTENTS[number].version()
}

fn name(text: &str) -> AdapterName {
    text.parse().expect("a name")
}

fn current(text: &str) -> AdapterRef {
    AdapterRef { name: name(text), version: None }
}

fn in_memory() -> AdapterRegistry {
    AdapterRegistry::new(small_base(), &AdapterConfig::default(), None)
}

fn config(root: &Path) -> AdapterConfig {
    let root = root.to_str().expect("UTF-8").to_owned();
    AdapterConfig { adapters: Some(root), ..Default::default() }
}

fn in_directory(root: &Path) -> AdapterRegistry {
    let (registry, report) =
        AdapterRegistry::open(&config(root), small_base(), "base").expect("a directory");
    assert!(report.skipped.is_empty(), "{:?}", report.skipped);
    registry
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(future)
}

fn publish(
    registry: &AdapterRegistry,
    text: &str,
    number: usize,
    rule: PublishRule,
) -> Result<PublishOutcome, AdapterError> {
    wait(registry.publish(name(text), content(number), rule)).map(|done| done.outcome)
}

/// What the registry lists, as a map.
fn listed(registry: &AdapterRegistry) -> BTreeMap<String, VersionId> {
    let pairs = registry.list().into_iter().map(|entry| (entry.name.to_string(), entry.version));
    pairs.collect()
}

#[test]
fn rules_compare_with_what_the_name_means_now() {
    let registry = in_memory();
    let missing = publish(&registry, "a", 0, PublishRule::ReplaceIf(id(0)));
    assert!(matches!(missing, Err(AdapterError::NotFound(_))));
    let created = publish(&registry, "a", 0, PublishRule::Create).expect("free");
    assert_eq!(created, PublishOutcome::Created);
    let again = publish(&registry, "a", 0, PublishRule::Create).expect("the same content");
    assert_eq!(again, PublishOutcome::Unchanged);
    for lost in [PublishRule::Create, PublishRule::ReplaceIf(id(2))] {
        let error = publish(&registry, "a", 1, lost).expect_err("taken");
        assert!(matches!(error, AdapterError::Conflict { current, .. } if current == id(0)));
    }
    let replaced = publish(&registry, "a", 1, PublishRule::ReplaceIf(id(0))).expect("as expected");
    assert_eq!(replaced, PublishOutcome::Replaced(id(0)));
    assert!(wait(registry.retire(name("a"), Some(id(0)), SwapPolicy::Pin)).is_err());
    assert_eq!(
        wait(registry.retire(name("a"), Some(id(1)), SwapPolicy::Pin)).expect("as expected"),
        id(1)
    );
    assert!(matches!(wait(registry.lease(&current("a"))), Err(AdapterError::NotFound(_))));
}

#[test]
fn a_replaced_version_is_kept_and_its_memory_goes_with_its_leases() {
    let registry = in_memory();
    publish(&registry, "a", 0, PublishRule::Create).expect("free");
    let lease = wait(registry.lease(&current("a"))).expect("published");
    assert_eq!(registry.get(&name("a")).expect("published").leases, 1);
    publish(&registry, "a", 1, PublishRule::Replace).expect("always");
    let former = AdapterRef { name: name("a"), version: Some(id(0)) };
    let again = wait(registry.lease(&former)).expect("kept");
    assert!(Arc::ptr_eq(again.version(), lease.version()), "one copy in memory");
    assert_eq!(registry.get(&name("a")).expect("published").leases, 0);
    let memory = Arc::downgrade(lease.version());
    drop((lease, again));
    assert!(memory.upgrade().is_none());
    assert_eq!(wait(registry.lease(&former)).expect("read again").id, id(0));
    wait(registry.retire(name("a"), None, SwapPolicy::Pin)).expect("published");
    publish(&registry, "a", 1, PublishRule::Create).expect("free");
    let gone = wait(registry.lease(&former));
    assert!(matches!(gone, Err(AdapterError::VersionNotFound(..))));
}

/// Versions of a name by number, the current one first.
fn history(registry: &AdapterRegistry, text: &str) -> Vec<usize> {
    let number = |version| (0..4).find(|number| id(*number) == version).expect("a content");
    registry.history(&name(text)).into_iter().map(|entry| number(entry.version)).collect()
}

fn roll_back(registry: &AdapterRegistry, to: Option<usize>) -> Result<VersionId, AdapterError> {
    let options = ("somebody".to_owned(), SwapPolicy::Pin);
    wait(registry.roll_back(name("a"), to.map(id), None, options)).map(|done| done.version)
}

#[test]
fn rolling_back_is_one_step_and_twice_is_none() {
    let root = TempDir::new().expect("a directory");
    let registry = in_directory(root.path());
    for number in 0..3 {
        publish(&registry, "a", number, PublishRule::Replace).expect("always");
    }
    assert_eq!(history(&registry, "a"), [2, 1, 0]);
    assert_eq!(roll_back(&registry, None).expect("kept"), id(1));
    assert_eq!(history(&registry, "a"), [1, 2, 0]);
    assert_eq!(registry.history(&name("a"))[0].published_by, "somebody");
    assert_eq!(wait(registry.lease(&current("a"))).expect("there").id, id(1));
    assert_eq!(roll_back(&registry, None).expect("kept"), id(2));
    assert_eq!(roll_back(&registry, Some(0)).expect("kept"), id(0));
    assert!(matches!(roll_back(&registry, Some(3)), Err(AdapterError::VersionNotFound(..))));
    assert_eq!(history(&in_directory(root.path()), "a"), [0, 2, 1]);
    publish(&registry, "b", 0, PublishRule::Create).expect("free");
    let to_nothing = registry.roll_back(name("b"), None, None, (String::new(), SwapPolicy::Pin));
    assert!(matches!(wait(to_nothing), Err(AdapterError::NoFormerVersion(_))));
}

/// The versions that lie in the store.
fn stored(root: &Path) -> Vec<String> {
    names_in(&root.join(".lorad/versions"))
        .into_iter()
        .filter(|version| !names_in(&root.join(".lorad/versions").join(version)).is_empty())
        .collect()
}

#[test]
fn what_no_history_names_leaves_the_store() {
    let root = TempDir::new().expect("a directory");
    let settings = AdapterConfig { adapter_versions: 2, ..config(root.path()) };
    let (registry, _) = AdapterRegistry::open(&settings, small_base(), "base").expect("a store");
    for number in 0..3 {
        publish(&registry, "a", number, PublishRule::Replace).expect("always");
    }
    assert_eq!(history(&registry, "a"), [2, 1]);
    publish(&registry, "b", 1, PublishRule::Create).expect("free");
    let mut wanted: Vec<_> = [1, 2].map(|number| id(number).to_string()).to_vec();
    wanted.sort();
    assert_eq!(stored(root.path()), wanted);
    wait(registry.retire(name("a"), None, SwapPolicy::Pin)).expect("published");
    assert_eq!(stored(root.path()), [id(1).to_string()], "the other name has it still");
    wait(registry.retire(name("b"), None, SwapPolicy::Pin)).expect("published");
    assert!(stored(root.path()).is_empty());
}

#[test]
fn terms_stay_with_the_name() {
    let root = TempDir::new().expect("a directory");
    let registry = in_directory(root.path());
    for number in 0..3 {
        publish(&registry, "a", number, PublishRule::Replace).expect("always");
    }
    let terms = AdapterTerms { share: 2.5, keep_versions: Some(2), ..Default::default() };
    wait(registry.set_terms(name("a"), terms.clone())).expect("published");
    assert_eq!(history(&registry, "a"), [2, 1]);
    publish(&registry, "a", 3, PublishRule::Replace).expect("always");
    let again = in_directory(root.path());
    assert_eq!(history(&again, "a"), [3, 2]);
    assert_eq!(*again.get(&name("a")).expect("there").terms, terms);
    assert_eq!(*wait(again.lease(&current("a"))).expect("there").terms, terms);
    let nobody = wait(again.set_terms(name("b"), terms));
    assert!(matches!(nobody, Err(AdapterError::NotFound(_))));
}

#[test]
fn more_adapters_than_memory_holds_are_read_when_they_are_asked_for() {
    let root = TempDir::new().expect("a directory");
    let one = 576; // factors of rank 2 for the small base, f32
    let settings = AdapterConfig { adapter_memory_bytes: 2 * one, ..config(root.path()) };
    let (registry, _) = AdapterRegistry::open(&settings, small_base(), "base").expect("a store");
    let names = ["a", "b", "c", "d"];
    for (number, text) in names.iter().enumerate() {
        publish(&registry, text, number, PublishRule::Create).expect("free");
    }
    for round in 0..8 {
        let (text, number) = (names[round % 4], round % 4);
        assert_eq!(wait(registry.lease(&current(text))).expect("there").id, id(number));
        assert!(registry.warm_usage().bytes <= 2 * one);
    }
    assert!(registry.warm_usage().reads >= 4, "{:?}", registry.warm_usage());
    let terms = AdapterTerms { pin: true, ..Default::default() };
    wait(registry.set_terms(name("d"), terms)).expect("published");
    for text in ["d", "a", "b", "c", "a", "b", "c"] {
        wait(registry.lease(&current(text))).expect("there");
    }
    assert!(registry.get(&name("d")).expect("there").warm, "it is pinned");
}

#[test]
fn a_restart_reads_no_weights() {
    let root = TempDir::new().expect("a directory");
    lay(root.path(), "dropped", 1);
    let registry = in_directory(root.path());
    publish(&registry, "a", 0, PublishRule::Create).expect("free");
    let again = in_directory(root.path());
    assert_eq!(again.warm_usage().versions, 0);
    let entries = again.list();
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|entry| !entry.warm && entry.description.rank() == 2));
    assert_eq!(wait(again.lease(&current("a"))).expect("read").id, id(0));
    assert_eq!(wait(again.lease(&current("dropped"))).expect("read").id, id(1));
    assert_eq!(again.warm_usage().reads, 2);
}

#[test]
fn a_store_of_another_base_is_left_out() {
    let root = TempDir::new().expect("a directory");
    publish(&in_directory(root.path()), "a", 0, PublishRule::Create).expect("free");
    let other =
        Arc::new(adapter_maker::base::MadeBase::new(adapter_maker::layout(2, 16, 8, 4, 12)));
    let (registry, report) =
        AdapterRegistry::open(&config(root.path()), other, "other").expect("a store");
    assert_eq!((registry.len(), report.skipped.len()), (0, 1));
    assert_eq!(listed(&in_directory(root.path()))["a"], id(0), "nothing was lost");
}

#[test]
fn files_of_others_are_followed() {
    let root = TempDir::new().expect("a directory");
    let registry = in_directory(root.path());
    assert!(registry.is_empty());
    lay(root.path(), "a", 0);
    assert_eq!(registry.refresh().expect("listed").loaded, [name("a")]);
    assert!(registry.refresh().expect("listed").loaded.is_empty(), "no news");
    assert_eq!(registry.get(&name("a")).expect("there").source, Source::DropIn);
    fs::remove_dir_all(root.path().join("a")).expect("removed");
    lay(root.path(), "a", 1);
    registry.refresh().expect("listed");
    assert_eq!(history(&registry, "a"), [1], "what was overwritten cannot be had again");
    // An upload stands until the others write again.
    publish(&registry, "a", 2, PublishRule::Replace).expect("always");
    registry.refresh().expect("listed");
    assert_eq!(history(&registry, "a"), [2, 1]);
    assert_eq!(history(&in_directory(root.path()), "a"), [2, 1]);
    fs::remove_dir_all(root.path().join("a")).expect("removed");
    lay(root.path(), "a", 3);
    registry.refresh().expect("listed");
    assert_eq!(history(&registry, "a"), [3, 2]);
    fs::remove_dir_all(root.path().join("a")).expect("removed");
    registry.refresh().expect("listed");
    assert_eq!(history(&registry, "a"), [3, 2], "it may be back in a moment");
    registry.refresh().expect("listed");
    assert_eq!(history(&registry, "a"), [2]);
}

#[test]
fn files_that_change_under_a_name_are_looked_at_again() {
    let root = TempDir::new().expect("a directory");
    lay(root.path(), "a", 0);
    let settings = AdapterConfig { adapter_memory_bytes: 0, ..config(root.path()) };
    let (registry, _) = AdapterRegistry::open(&settings, small_base(), "base").expect("a store");
    assert_eq!(wait(registry.lease(&current("a"))).expect("there").id, id(0));
    // Whatever comes makes room for itself.
    publish(&registry, "b", 2, PublishRule::Create).expect("free");
    fs::remove_dir_all(root.path().join("a")).expect("removed");
    lay(root.path(), "a", 1);
    assert_eq!(wait(registry.lease(&current("a"))).expect("there").id, id(1));
    let former = AdapterRef { name: name("a"), version: Some(id(0)) };
    assert!(wait(registry.lease(&former)).is_err());
}

#[test]
fn two_servers_on_one_store_agree() {
    let objects: Arc<dyn Objects> = Arc::new(MemoryObjects::default());
    let server = || {
        let settings = AdapterConfig::default();
        AdapterRegistry::new(small_base(), &settings, Some(Arc::clone(&objects)))
    };
    let (one, two) = (server(), server());
    publish(&one, "a", 0, PublishRule::Create).expect("free");
    // The other has not looked yet, and still does not win.
    let lost = publish(&two, "a", 1, PublishRule::Create).expect_err("taken");
    assert!(matches!(lost, AdapterError::Conflict { current, .. } if current == id(0)));
    publish(&two, "a", 1, PublishRule::ReplaceIf(id(0))).expect("as expected");
    let lost = publish(&one, "a", 2, PublishRule::ReplaceIf(id(0))).expect_err("changed");
    assert!(matches!(lost, AdapterError::Conflict { current, .. } if current == id(1)));
    assert_eq!(wait(one.lease(&current("a"))).expect("read").id, id(1));
    wait(one.retire(name("a"), None, SwapPolicy::Pin)).expect("published");
    two.refresh().expect("listed");
    assert!(two.is_empty());
    publish(&two, "a", 2, PublishRule::Create).expect("free again");
    one.refresh().expect("listed");
    assert_eq!(history(&one, "a"), [2]);
}

#[test]
fn publishers_of_two_servers_lose_nothing() {
    let objects: Arc<dyn Objects> = Arc::new(MemoryObjects::default());
    thread::scope(|scope| {
        for server in 0..3 {
            let objects = Arc::clone(&objects);
            scope.spawn(move || {
                let settings = AdapterConfig::default();
                let registry = AdapterRegistry::new(small_base(), &settings, Some(objects));
                for round in 0..20 {
                    let own = format!("own{server}-{round}");
                    publish(&registry, &own, round % 4, PublishRule::Create).expect("free");
                    match publish(&registry, "shared", round % 4, PublishRule::Replace) {
                        Ok(_) | Err(AdapterError::Contended(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let registry = AdapterRegistry::new(small_base(), &AdapterConfig::default(), Some(objects));
    registry.refresh().expect("listed");
    assert_eq!(registry.len(), 3 * 20 + 1);
    for entry in registry.list() {
        let wanted = AdapterRef { name: entry.name, version: None };
        assert_eq!(wait(registry.lease(&wanted)).expect("read").id, entry.version);
    }
}

#[test]
fn refused_files_change_nothing() {
    let root = TempDir::new().expect("a directory");
    let registry = in_directory(root.path());
    publish(&registry, "a", 0, PublishRule::Create).expect("free");
    let mut odd = Maker::new(9);
    odd.set(&key(0, "mlp.down_proj", 'A'), &[2, 11], &values(22, 1));
    for adapter in ["a", "b"] {
        let refused = wait(registry.publish(name(adapter), odd.files(), PublishRule::Replace));
        assert!(matches!(refused, Err(AdapterError::Invalid(_))));
        let qalora = Maker::new(9).with("use_qalora", true.into()).files();
        let refused = wait(registry.publish(name(adapter), qalora, PublishRule::Replace));
        assert!(matches!(refused, Err(AdapterError::Unsupported(_))));
    }
    assert_eq!(stored(root.path()), [id(0).to_string()]);
    assert_eq!(names_in(root.path()), [".lorad"]);
    assert_eq!(listed(&registry), listed(&in_directory(root.path())));
}

#[test]
fn the_number_of_adapters_is_limited_and_case_twins_are_refused() {
    let limits = AdapterLimits { max_adapters: 2, ..Default::default() };
    let settings = AdapterConfig { limits, ..Default::default() };
    let registry = AdapterRegistry::new(small_base(), &settings, None);
    publish(&registry, "a", 0, PublishRule::Create).expect("free");
    let twin = publish(&registry, "A", 0, PublishRule::Create);
    assert!(matches!(twin, Err(AdapterError::InvalidName(_))));
    publish(&registry, "b", 0, PublishRule::Create).expect("free");
    let third = publish(&registry, "c", 0, PublishRule::Create);
    assert!(matches!(third, Err(AdapterError::TooMany(2))));
    publish(&registry, "b", 1, PublishRule::Replace).expect("no new name");
}

#[test]
fn a_name_keeps_its_number_and_no_other_ever_gets_it() {
    let registry = in_memory();
    let number = |text: &str| registry.get(&name(text)).expect("published").number;
    for (text, content) in [("b", 0), ("a", 1), ("c", 2)] {
        publish(&registry, text, content, PublishRule::Create).expect("free");
    }
    assert_eq!(["b", "a", "c"].map(number), [0, 1, 2]);
    publish(&registry, "a", 3, PublishRule::Replace).expect("always");
    wait(registry.retire(name("c"), None, SwapPolicy::Pin)).expect("published");
    assert_eq!(registry.numbered(2), None);
    publish(&registry, "d", 2, PublishRule::Create).expect("free");
    publish(&registry, "c", 2, PublishRule::Create).expect("free again");
    assert_eq!(["b", "a", "d", "c"].map(number), [0, 1, 3, 4]);
    assert_eq!(registry.numbered(1), Some(name("a")));
}

#[test]
fn a_version_departs_when_no_name_means_it() {
    let registry = in_memory();
    let departed = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&departed);
    registry.on_departure(move |departure| {
        seen.lock().expect("unpoisoned").extend(departure.last.then_some(departure.version));
    });
    publish(&registry, "a", 0, PublishRule::Create).expect("free");
    publish(&registry, "b", 0, PublishRule::Create).expect("free");
    publish(&registry, "a", 1, PublishRule::Replace).expect("always");
    assert!(departed.lock().expect("unpoisoned").is_empty());
    wait(registry.retire(name("b"), None, SwapPolicy::Pin)).expect("published");
    assert_eq!(*departed.lock().expect("unpoisoned"), [id(0)]);
}

/// A store whose disk is full.
#[derive(Debug)]
struct FullDisk;

impl Objects for FullDisk {
    fn list(&self, _: &str) -> Result<Vec<ObjectInfo>, AdapterError> {
        Ok(Vec::new())
    }

    fn get(&self, _: &str, _: u64) -> Result<Option<(bytes::Bytes, Stamp)>, AdapterError> {
        Ok(None)
    }

    fn put(
        &self,
        _: &str,
        _: Content<'_>,
        _: WriteRule<'_>,
    ) -> Result<Option<Stamp>, AdapterError> {
        Err(io::Error::from(io::ErrorKind::StorageFull).into())
    }

    fn delete(&self, _: &str) -> Result<(), AdapterError> {
        Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem).into())
    }

    fn append(&self, _: &str, _: &str) -> Result<(), AdapterError> {
        Err(io::Error::from(io::ErrorKind::StorageFull).into())
    }

    fn tail(&self, _: &str, _: usize) -> Result<Vec<String>, AdapterError> {
        Ok(Vec::new())
    }

    fn is_writable(&self) -> bool {
        true
    }
}

#[test]
fn a_failing_store_publishes_nothing() {
    let settings = AdapterConfig::default();
    let registry = AdapterRegistry::new(small_base(), &settings, Some(Arc::new(FullDisk)));
    registry.refresh().expect("listed");
    let failed = publish(&registry, "a", 0, PublishRule::Replace);
    assert!(matches!(failed, Err(AdapterError::Store(_))));
    assert!(registry.list().is_empty());
}

#[test]
fn a_directory_is_served_but_for_what_is_broken_in_it() {
    let root = TempDir::new().expect("a directory");
    let write = |directory: &str, files: &AdapterFiles| {
        let path = root.path().join(directory);
        fs::create_dir(&path).expect("made");
        for (name, bytes) in files.named() {
            fs::write(path.join(name), bytes).expect("written");
        }
    };
    write("good", &content(0));
    let AdapterFiles::Peft { config: whole, .. } = content(0) else {
        unreachable!("the maker's form")
    };
    write("broken", &AdapterFiles::Peft { config: whole, weights: vec![1, 2, 3].into() });
    write("no name", &content(1));
    write("Base", &content(2));
    fs::write(root.path().join("README.md"), "not an adapter").expect("written");
    fs::create_dir(root.path().join("empty")).expect("made");
    let (registry, report) =
        AdapterRegistry::open(&config(root.path()), small_base(), "base").expect("a directory");
    assert_eq!(report.loaded, [name("good")]);
    let skipped: Vec<_> = report.skipped.iter().map(|(directory, _)| directory.as_str()).collect();
    assert_eq!(skipped, ["Base", "broken", "no name"]);
    assert!(report.skipped[0].1.to_string().contains("the base model's name"));
    assert!(publish(&registry, "base", 0, PublishRule::Replace).is_err());
    assert!(registry.get(&name("good")).expect("served").durable);

    let inside = config(&root.path().join("good"));
    let error =
        AdapterRegistry::open(&inside, small_base(), "base").expect_err("not a directory of them");
    assert!(error.to_string().contains("itself an adapter"), "{error}");
    let nowhere = config(&root.path().join("nowhere"));
    assert!(AdapterRegistry::open(&nowhere, small_base(), "base").is_err());
}

#[test]
fn inspection_says_whether_a_model_can_serve_it() {
    let root = TempDir::new().expect("a directory");
    lay(root.path(), "a", 0);
    let look = |layout: Option<LoraLayout>| {
        let directory = root.path().join("a");
        let model = layout.as_ref().map(|layout| ("small", layout));
        inspect(&directory, model, &AdapterLimits::default()).expect("whole")
    };
    let alone = look(None);
    assert!(alone.to_string().contains("self_attn.q_proj"), "{alone}");
    assert!(alone.to_string().ends_with("not compared with a model."), "{alone}");
    assert!(look(Some(small_layout())).to_string().ends_with("can serve it."));
    let other = adapter_maker::layout(2, 16, 8, 4, 12);
    assert!(look(Some(other)).misfit.expect("too wide").contains("[2, 16]"));
    let json = serde_json::to_value(&alone).expect("JSON");
    assert_eq!(json["version"], id(0).to_string());
    assert_eq!(json["description"]["ranks"], serde_json::json!([2]));
}

#[test]
fn readers_always_see_one_whole_version() {
    let registry = in_memory();
    publish(&registry, "a", 0, PublishRule::Create).expect("free");
    let first = |lease: &AdapterLease| {
        let (_, pair) = lease.weights.sites().next().expect("a site");
        let pair = pair.low_rank.as_ref().expect("a pair");
        pair.a().flatten_all().and_then(|a| a.to_vec1::<f32>()).expect("f32")
    };
    let factors: Vec<Vec<f32>> = (0..4).map(|seed| values(16, seed)).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let lease = wait(registry.lease(&current("a"))).expect("always there");
                    let number = (0..4).find(|number| id(*number) == lease.id).expect("a content");
                    assert_eq!(first(&lease), factors[number]);
                }
            });
        }
        for round in 1..200 {
            publish(&registry, "a", round % 4, PublishRule::Replace).expect("always");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize, usize, PublishRule),
    Retire(usize, Option<usize>),
    Lease(usize, Option<usize>),
    RollBack(usize, Option<usize>),
    Refresh,
    Drop(prop::sample::Index),
    Restart,
}

const NAMES: [&str; 3] = ["a", "b", "c.1"];
/// Versions of a name that are kept: fewer than there are contents.
const KEPT: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rule = prop_oneof![
        Just(PublishRule::Replace),
        Just(PublishRule::Create),
        (0..4usize).prop_map(|number| PublishRule::ReplaceIf(id(number))),
    ];
    let step = prop_oneof![
        5 => (0..3usize, 0..4usize, rule).prop_map(|(n, c, rule)| Step::Publish(n, c, rule)),
        2 => (0..3usize, prop::option::of(0..4usize)).prop_map(|(n, v)| Step::Retire(n, v)),
        4 => (0..3usize, prop::option::of(0..4usize)).prop_map(|(n, v)| Step::Lease(n, v)),
        2 => (0..3usize, prop::option::of(0..4usize)).prop_map(|(n, v)| Step::RollBack(n, v)),
        1 => Just(Step::Refresh),
        2 => any::<prop::sample::Index>().prop_map(Step::Drop),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..30)
}

/// What the registry should know: contents by number.
#[derive(Default)]
struct Model {
    /// Each name's history, the current content first.
    current: BTreeMap<usize, Vec<usize>>,
    /// Leases and the name and content each is of.
    leases: Vec<(usize, usize, AdapterLease)>,
}

impl Model {
    fn now(&self, name: usize) -> Option<usize> {
        self.current.get(&name).map(|history| history[0])
    }

    fn mean(&mut self, name: usize, number: usize) {
        let history = self.current.entry(name).or_default();
        history.retain(|other| *other != number);
        history.insert(0, number);
        history.truncate(KEPT);
    }

    fn publish(
        &mut self,
        registry: &AdapterRegistry,
        name: usize,
        number: usize,
        rule: PublishRule,
    ) {
        let wanted = match (self.now(name), rule) {
            (Some(now), _) if now == number => Some(PublishOutcome::Unchanged),
            (None, PublishRule::Replace | PublishRule::Create) => Some(PublishOutcome::Created),
            (Some(now), PublishRule::Replace) => Some(PublishOutcome::Replaced(id(now))),
            (Some(now), PublishRule::ReplaceIf(expected)) if id(now) == expected => {
                Some(PublishOutcome::Replaced(expected))
            }
            _ => None,
        };
        assert_eq!(publish(registry, NAMES[name], number, rule).ok(), wanted);
        if wanted.is_some() {
            self.mean(name, number);
        }
    }

    fn roll_back(&mut self, registry: &AdapterRegistry, name: usize, to: Option<usize>) {
        let history = self.current.get(&name).cloned().unwrap_or_default();
        let wanted = match to {
            None => history.get(1).copied(),
            Some(to) => Some(to).filter(|to| history.contains(to)),
        };
        let name_text = NAMES[name].parse().expect("a name");
        let options = (String::new(), SwapPolicy::Pin);
        let done = wait(registry.roll_back(name_text, to.map(id), None, options));
        assert_eq!(done.ok().map(|done| done.version), wanted.map(id));
        if let Some(number) = wanted {
            self.mean(name, number);
        }
    }

    fn retire(&mut self, registry: &AdapterRegistry, name: usize, expected: Option<usize>) {
        let wanted = self.now(name).filter(|now| expected.is_none_or(|expected| expected == *now));
        let name_text = NAMES[name].parse().expect("a name");
        let retired = wait(registry.retire(name_text, expected.map(id), SwapPolicy::Pin));
        assert_eq!(retired.ok(), wanted.map(id));
        if wanted.is_some() {
            self.current.remove(&name);
        }
    }

    fn lease(&mut self, registry: &AdapterRegistry, name: usize, version: Option<usize>) {
        let history = self.current.get(&name).cloned().unwrap_or_default();
        let wanted = match version {
            None => history.first().copied(),
            Some(version) => Some(version).filter(|version| history.contains(version)),
        };
        let reference =
            AdapterRef { name: NAMES[name].parse().expect("a name"), version: version.map(id) };
        let lease = wait(registry.lease(&reference)).ok();
        assert_eq!(lease.as_ref().map(|lease| lease.id), wanted.map(id));
        self.leases.extend(lease.zip(wanted).map(|(lease, number)| (name, number, lease)));
    }

    fn check(&self, registry: &AdapterRegistry) {
        let wanted = self.current.iter().map(|(n, history)| (NAMES[*n].to_owned(), id(history[0])));
        assert_eq!(listed(registry), wanted.collect());
        for (name, numbers) in &self.current {
            assert_eq!(history(registry, NAMES[*name]), *numbers);
        }
        for (name, number, lease) in &self.leases {
            assert_eq!((lease.name.as_str(), lease.id), (NAMES[*name], id(*number)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_registry_behaves_as_a_map(
        steps in steps(),
        durable in any::<bool>(),
        memory in prop_oneof![Just(0_u64), Just(1 << 30)],
    ) {
        let root = TempDir::new().expect("a directory");
        let start = || {
            let settings = AdapterConfig {
                adapters: config(root.path()).adapters.filter(|_| durable),
                adapter_memory_bytes: memory,
                adapter_versions: KEPT,
                ..Default::default()
            };
            AdapterRegistry::open(&settings, small_base(), "base").expect("a store").0
        };
        let (mut registry, mut model) = (start(), Model::default());
        for step in steps {
            match step {
                Step::Publish(name, number, rule) => model.publish(&registry, name, number, rule),
                Step::Retire(name, expected) => model.retire(&registry, name, expected),
                Step::Lease(name, version) => model.lease(&registry, name, version),
                Step::Drop(at) if !model.leases.is_empty() => {
                    drop(model.leases.swap_remove(at.index(model.leases.len())));
                }
                Step::Drop(_) => {}
                Step::RollBack(name, to) => model.roll_back(&registry, name, to),
                Step::Refresh => prop_assert!(registry.refresh().expect("listed").loaded.is_empty()),
                Step::Restart => {
                    registry = start();
                    model.leases.clear();
                    if !durable {
                        model.current.clear();
                    }
                }
            }
            model.check(&registry);
        }
    }
}

/// Puts an adapter of content `number` into `root/directory`, beside whatever is there.
fn lay(root: &Path, directory: &str, number: usize) {
    let directory = root.join(directory);
    fs::create_dir_all(&directory).expect("made");
    for (name, bytes) in content(number).named() {
        fs::write(directory.join(name), bytes).expect("written");
    }
}

/// What a training run leaves beside its adapter.
fn lay_checkpoint(root: &Path, directory: &str) {
    fs::create_dir_all(root.join(directory).join("checkpoint-5")).expect("made");
    fs::write(root.join(directory).join("checkpoint-5/optimizer.pt"), "state").expect("written");
    fs::write(root.join(directory).join("README.md"), "notes").expect("written");
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<_> = entries.map(|e| name(e).into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

const CHECKPOINT: [&str; 2] = ["README.md", "checkpoint-5"];
const WITH_CHECKPOINT: [&str; 4] = ["README.md", CONFIG_FILE, WEIGHTS_FILE, "checkpoint-5"];

#[test]
fn files_of_others_survive_replacing_and_retiring() {
    let root = TempDir::new().expect("a directory");
    let directory = root.path().join("a");
    lay(root.path(), "a", 0);
    lay_checkpoint(root.path(), "a");
    let registry = in_directory(root.path());
    publish(&registry, "a", 1, PublishRule::Replace).expect("always");
    assert_eq!(names_in(&directory), WITH_CHECKPOINT);
    for (name, bytes) in content(0).named() {
        assert_eq!(fs::read(directory.join(name)).expect("there"), **bytes);
    }
    wait(registry.retire(name("a"), None, SwapPolicy::Pin)).expect("published");
    assert_eq!(names_in(&directory), CHECKPOINT);
    assert_eq!(fs::read(directory.join("checkpoint-5/optimizer.pt")).expect("there"), b"state");
    assert!(listed(&in_directory(root.path())).is_empty());
    publish(&registry, "a", 2, PublishRule::Create).expect("free");
    assert_eq!(listed(&in_directory(root.path()))["a"], id(2));
}

#[cfg(unix)]
#[test]
fn what_a_link_leads_to_stays() {
    let (root, training) = (TempDir::new().expect("a directory"), TempDir::new().expect("another"));
    lay(training.path(), "", 0);
    lay_checkpoint(training.path(), "");
    for replaced in [true, false] {
        std::os::unix::fs::symlink(training.path(), root.path().join("a")).expect("linked");
        let registry = in_directory(root.path());
        if replaced {
            publish(&registry, "a", 1, PublishRule::Replace).expect("always");
            assert_eq!(listed(&in_directory(root.path()))["a"], id(1));
        }
        wait(registry.retire(name("a"), None, SwapPolicy::Pin)).expect("published");
        assert_eq!(names_in(root.path()), [".lorad"]);
        assert_eq!(names_in(training.path()), WITH_CHECKPOINT);
    }
}

/// As below, where a training run's files lie in the adapter's directory.
#[test]
fn no_point_of_a_crash_loses_files_of_others() {
    const RETIRED_CONFIG: &str = ".retired-adapter_config.json";
    let (old, new) = (Some(id(0)), Some(id(1)));
    let with_checkpoint = |root: &Path, directory: &str, number: usize| {
        lay(root, directory, number);
        lay_checkpoint(root, directory);
    };
    let start_forgetting = |root: &Path| {
        with_checkpoint(root, "a", 0);
        let directory = root.join("a");
        fs::rename(directory.join(CONFIG_FILE), directory.join(RETIRED_CONFIG)).expect("renamed");
    };
    let states: [CrashState<'_>; 8] = [
        ("between", old, &|root| {
            with_checkpoint(root, ".replaced-a", 0);
            lay(root, ".incoming-a", 1);
        }),
        ("in place", new, &|root| (with_checkpoint(root, ".replaced-a", 0), lay(root, "a", 1)).0),
        ("carrying", new, &|root| {
            with_checkpoint(root, ".replaced-a", 0);
            lay(root, "a", 1);
            fs::rename(root.join(".replaced-a/README.md"), root.join("a/README.md"))
                .expect("moved");
        }),
        ("carried", new, &|root| (lay(root, ".replaced-a", 0), with_checkpoint(root, "a", 1)).0),
        ("cleaning", new, &|root| {
            lay(root, ".replaced-a", 0);
            fs::remove_file(root.join(".replaced-a").join(CONFIG_FILE)).expect("removed");
            with_checkpoint(root, "a", 1);
        }),
        ("forgotten", None, &|root| start_forgetting(root)),
        ("forgetting", None, &|root| {
            start_forgetting(root);
            fs::remove_file(root.join("a").join(WEIGHTS_FILE)).expect("removed");
        }),
        ("an adapter again", new, &|root| (start_forgetting(root), lay(root, "a", 1)).0),
    ];
    for (state, wanted, make) in states {
        let root = TempDir::new().expect("a directory");
        make(root.path());
        let registry = in_directory(root.path());
        assert_eq!(registry.get(&name("a")).map(|entry| entry.version), wanted, "{state}");
        let left = names_in(&root.path().join("a"));
        assert_eq!(names_in(root.path()), [".lorad", "a"], "{state}");
        let wanted: &[&str] = if wanted.is_some() { &WITH_CHECKPOINT } else { &CHECKPOINT };
        assert_eq!(left, wanted, "{state}");
    }
}

#[test]
fn a_file_written_again_after_a_crash_keeps_its_name() {
    let root = TempDir::new().expect("a directory");
    lay(root.path(), ".replaced-a", 0);
    lay_checkpoint(root.path(), ".replaced-a");
    lay(root.path(), "a", 1);
    fs::write(root.path().join("a/README.md"), "newer").expect("written");
    in_directory(root.path());
    let read = |name: &str| fs::read_to_string(root.path().join("a").join(name)).expect("there");
    assert_eq!((read("README.md"), read("README.md.1")), ("newer".into(), "notes".into()));
}

/// What a crash left, which version must be served then, and how to make that state.
type CrashState<'a> = (&'a str, Option<VersionId>, &'a dyn Fn(&Path));

/// Puts the directory into the state that a crash at each point leaves, and starts again.
#[test]
fn every_point_of_a_crash_leaves_the_old_or_the_new_adapter() {
    let (old, new) = (Some(id(0)), Some(id(1)));
    let half = |root: &Path, directory: &str| {
        fs::create_dir(root.join(directory)).expect("made");
        fs::write(root.join(directory).join(CONFIG_FILE), b"{\"pe").expect("written");
    };
    let states: [CrashState<'_>; 7] = [
        ("writing", old, &|root| (lay(root, "a", 0), half(root, ".incoming-a")).0),
        ("written", old, &|root| (lay(root, "a", 0), lay(root, ".incoming-a", 1)).0),
        ("between", old, &|root| (lay(root, ".replaced-a", 0), lay(root, ".incoming-a", 1)).0),
        ("in place", new, &|root| (lay(root, ".replaced-a", 0), lay(root, "a", 1)).0),
        ("cleaning", new, &|root| (half(root, ".replaced-a"), lay(root, "a", 1)).0),
        ("retired", None, &|root| lay(root, ".retired-a", 0)),
        ("retiring", None, &|root| half(root, ".retired-a")),
    ];
    for (state, wanted, make) in states {
        let root = TempDir::new().expect("a directory");
        make(root.path());
        let registry = in_directory(root.path());
        assert_eq!(registry.get(&name("a")).map(|entry| entry.version), wanted, "{state}");
        let left = names_in(root.path()).iter().filter(|name| *name != ".lorad").count();
        assert_eq!(left, usize::from(wanted.is_some()), "{state}");
    }
}

const VICTIM: &str = "LORAD_TEST_VICTIM_DIRECTORY";

/// Not a test by itself: the process that the next test kills.
#[test]
fn victim() {
    let Some(root) = std::env::var_os(VICTIM) else { return };
    let registry = in_directory(Path::new(&root));
    // Past the capture of printed lines, which would hold it back.
    io::stdout().write_all(b"\nready\n").expect("the parent listens");
    for round in 0.. {
        publish(&registry, "a", round % 4, PublishRule::Replace).expect("always");
        if round % 5 == 4 {
            wait(registry.retire(name("b"), None, SwapPolicy::Pin)).ok();
            publish(&registry, "b", round % 4, PublishRule::Create).expect("free");
        }
    }
}

#[test]
fn a_killed_server_leaves_whole_adapters() {
    let root = TempDir::new().expect("a directory");
    let seed = in_directory(root.path());
    publish(&seed, "a", 0, PublishRule::Create).expect("free");
    for round in 0..12 {
        let program = std::env::current_exe().expect("this test's program");
        let mut victim = Command::new(program)
            .args(["victim", "--exact"])
            .env(VICTIM, root.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "ready"));
        thread::sleep(Duration::from_millis(3 * round));
        victim.kill().expect("killed");
        victim.wait().expect("reaped");
        let found = listed(&in_directory(root.path()));
        assert!(found.contains_key("a"), "round {round}: {found:?}");
        assert!(found.values().all(|version| (0..4).any(|number| id(number) == *version)));
    }
}
