//! The registry against a plain map, its readers against its writers, and its directory against crashes.
mod adapter_maker;

use adapter_maker::{Maker, key, small_base, small_layout, values};
use lorad::adapter::{
    AdapterConfig, AdapterError, AdapterFiles, AdapterLease, AdapterLimits, AdapterName,
    AdapterRef, AdapterRegistry, AdapterStore, LocalStore, PublishOutcome, PublishRule,
    StoredAdapter, VersionId,
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
    AdapterRegistry::new(small_base(), AdapterLimits::default(), None)
}

fn in_directory(root: &Path) -> AdapterRegistry {
    let config =
        AdapterConfig { adapters: Some(root.to_owned()), limits: AdapterLimits::default() };
    let (registry, report) =
        AdapterRegistry::open(&config, small_base(), "base").expect("a directory");
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
    assert!(wait(registry.retire(name("a"), Some(id(0)))).is_err());
    assert_eq!(wait(registry.retire(name("a"), Some(id(1)))).expect("as expected"), id(1));
    assert!(matches!(wait(registry.lease(&current("a"))), Err(AdapterError::NotFound(_))));
}

#[test]
fn a_replaced_version_lives_as_long_as_its_leases() {
    let registry = in_memory();
    publish(&registry, "a", 0, PublishRule::Create).expect("free");
    let lease = wait(registry.lease(&current("a"))).expect("published");
    assert_eq!(registry.get(&name("a")).expect("published").leases, 1);
    publish(&registry, "a", 1, PublishRule::Replace).expect("always");
    let former = AdapterRef { name: name("a"), version: Some(id(0)) };
    assert_eq!(wait(registry.lease(&former)).expect("leased by someone").id, id(0));
    assert_eq!(registry.get(&name("a")).expect("published").leases, 0);
    drop(lease);
    let gone = wait(registry.lease(&former));
    assert!(matches!(gone, Err(AdapterError::VersionNotFound(..))));
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
    let files = fs::read_dir(root.path()).expect("listed");
    assert_eq!(files.count(), 1);
    assert_eq!(listed(&registry), listed(&in_directory(root.path())));
}

#[test]
fn the_number_of_adapters_is_limited_and_case_twins_are_refused() {
    let limits = AdapterLimits { max_adapters: 2, ..Default::default() };
    let registry = AdapterRegistry::new(small_base(), limits, None);
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
    wait(registry.retire(name("c"), None)).expect("published");
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
    registry.on_departure(Box::new(move |version| seen.lock().expect("unpoisoned").push(version)));
    publish(&registry, "a", 0, PublishRule::Create).expect("free");
    publish(&registry, "b", 0, PublishRule::Create).expect("free");
    publish(&registry, "a", 1, PublishRule::Replace).expect("always");
    assert!(departed.lock().expect("unpoisoned").is_empty());
    wait(registry.retire(name("b"), None)).expect("published");
    assert_eq!(*departed.lock().expect("unpoisoned"), [id(0)]);
}

/// A store whose disk is full.
#[derive(Debug)]
struct FullDisk;

impl AdapterStore for FullDisk {
    fn put(&self, _: &AdapterName, _: &AdapterFiles) -> Result<(), AdapterError> {
        Err(io::Error::from(io::ErrorKind::StorageFull).into())
    }

    fn get(&self, _: &AdapterName, _: &AdapterLimits) -> Result<StoredAdapter, AdapterError> {
        Err(io::Error::from(io::ErrorKind::NotFound).into())
    }

    fn list(&self) -> Result<Vec<String>, AdapterError> {
        Ok(vec!["listed-but-gone".to_owned()])
    }

    fn delete(&self, _: &AdapterName) -> Result<(), AdapterError> {
        Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem).into())
    }
}

#[test]
fn a_failing_store_publishes_nothing() {
    let limits = AdapterLimits::default();
    let registry = AdapterRegistry::new(small_base(), limits, Some(Box::new(FullDisk)));
    let report = registry.load_stored().expect("listed");
    assert_eq!((report.loaded.len(), report.skipped.len()), (0, 1));
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
    let AdapterFiles::Peft { config, .. } = content(0) else { unreachable!("the maker's form") };
    write("broken", &AdapterFiles::Peft { config, weights: vec![1, 2, 3].into() });
    write("no name", &content(1));
    write("Base", &content(2));
    fs::write(root.path().join("README.md"), "not an adapter").expect("written");
    fs::create_dir(root.path().join("empty")).expect("made");
    let config = AdapterConfig { adapters: Some(root.path().to_owned()), ..Default::default() };
    let (registry, report) =
        AdapterRegistry::open(&config, small_base(), "base").expect("a directory");
    assert_eq!(report.loaded, [name("good")]);
    let skipped: Vec<_> = report.skipped.iter().map(|(directory, _)| directory.as_str()).collect();
    assert_eq!(skipped, ["Base", "broken", "no name"]);
    assert!(report.skipped[0].1.to_string().contains("the base model's name"));
    assert!(publish(&registry, "base", 0, PublishRule::Replace).is_err());
    assert!(registry.get(&name("good")).expect("served").durable);

    let inside = AdapterConfig { adapters: Some(root.path().join("good")), ..config.clone() };
    let error =
        AdapterRegistry::open(&inside, small_base(), "base").expect_err("not a directory of them");
    assert!(error.to_string().contains("itself an adapter"), "{error}");
    let nowhere = AdapterConfig { adapters: Some(root.path().join("nowhere")), ..config };
    assert!(AdapterRegistry::open(&nowhere, small_base(), "base").is_err());
}

#[test]
fn inspection_says_whether_a_model_can_serve_it() {
    let root = TempDir::new().expect("a directory");
    let store = LocalStore::open(root.path()).expect("a directory");
    store.put(&name("a"), &content(0)).expect("stored");
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
    Drop(prop::sample::Index),
    Restart,
}

const NAMES: [&str; 3] = ["a", "b", "c.1"];

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
        2 => any::<prop::sample::Index>().prop_map(Step::Drop),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..30)
}

/// What the registry should know: contents by number.
#[derive(Default)]
struct Model {
    current: BTreeMap<usize, usize>,
    /// Leases and the name and content each is of; `true` while the name has been published without a break.
    leases: Vec<(usize, usize, bool, AdapterLease)>,
}

impl Model {
    fn publish(
        &mut self,
        registry: &AdapterRegistry,
        name: usize,
        number: usize,
        rule: PublishRule,
    ) {
        let before = self.current.get(&name).copied();
        let wanted = match (before, rule) {
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
            self.current.insert(name, number);
        }
    }

    fn retire(&mut self, registry: &AdapterRegistry, name: usize, expected: Option<usize>) {
        let now = self.current.get(&name).copied();
        let wanted = now.filter(|now| expected.is_none_or(|expected| expected == *now));
        let retired = wait(registry.retire(NAMES[name].parse().expect("a name"), expected.map(id)));
        assert_eq!(retired.ok(), wanted.map(id));
        if wanted.is_some() {
            self.current.remove(&name);
            for lease in self.leases.iter_mut().filter(|lease| lease.0 == name) {
                lease.2 = false;
            }
        }
    }

    fn lease(&mut self, registry: &AdapterRegistry, name: usize, version: Option<usize>) {
        let now = self.current.get(&name).copied();
        let living = |number: &usize| {
            let leased =
                |lease: &(usize, usize, bool, _)| lease.0 == name && lease.1 == *number && lease.2;
            now == Some(*number) || (now.is_some() && self.leases.iter().any(leased))
        };
        let wanted = version.map_or(now, |version| Some(version).filter(living));
        let reference =
            AdapterRef { name: NAMES[name].parse().expect("a name"), version: version.map(id) };
        let lease = wait(registry.lease(&reference)).ok();
        assert_eq!(lease.as_ref().map(|lease| lease.id), wanted.map(id));
        self.leases.extend(lease.zip(wanted).map(|(lease, number)| (name, number, true, lease)));
    }

    fn check(&self, registry: &AdapterRegistry) {
        let wanted =
            self.current.iter().map(|(name, number)| (NAMES[*name].to_owned(), id(*number)));
        assert_eq!(listed(registry), wanted.collect());
        for (name, number, _, lease) in &self.leases {
            assert_eq!((lease.name.as_str(), lease.id), (NAMES[*name], id(*number)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_registry_behaves_as_a_map(steps in steps(), durable in any::<bool>()) {
        let root = TempDir::new().expect("a directory");
        let start = || if durable { in_directory(root.path()) } else { in_memory() };
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
    lay_checkpoint(root.path(), "a");
    fs::write(directory.join(CONFIG_FILE), "half a co").expect("written");
    let config =
        AdapterConfig { adapters: Some(root.path().to_owned()), limits: AdapterLimits::default() };
    let (registry, report) =
        AdapterRegistry::open(&config, small_base(), "base").expect("a directory");
    assert_eq!(report.skipped.len(), 1);
    for round in 0..2 {
        publish(&registry, "a", round, PublishRule::Replace).expect("always");
        assert_eq!(names_in(&directory), WITH_CHECKPOINT);
        for (name, bytes) in content(round).named() {
            assert_eq!(fs::read(directory.join(name)).expect("there"), **bytes);
        }
    }
    wait(registry.retire(name("a"), None)).expect("published");
    assert_eq!(names_in(&directory), CHECKPOINT);
    assert_eq!(fs::read(directory.join("checkpoint-5/optimizer.pt")).expect("there"), b"state");
    assert!(listed(&in_directory(root.path())).is_empty());
    publish(&registry, "a", 2, PublishRule::Create).expect("free");
    assert_eq!(listed(&in_directory(root.path()))["a"], id(2));
    assert_eq!(
        (names_in(&directory), names_in(root.path())),
        (WITH_CHECKPOINT.map(String::from).to_vec(), vec!["a".into()])
    );
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
        wait(registry.retire(name("a"), None)).expect("published");
        assert!(names_in(root.path()).is_empty());
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
        assert_eq!(names_in(root.path()), ["a"], "{state}");
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
        let left = fs::read_dir(root.path()).expect("listed").count();
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
            wait(registry.retire(name("b"), None)).ok();
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
