//! The registry is before or after every change, wherever it is cut.
use crate::{
    adapter_maker::small_base, content, failing::Failing, history, id, in_directory, listed, name,
    publish, roll_back, wait,
};
use lorad::adapter::{
    AdapterConfig, AdapterRef, AdapterRegistry, AdapterTerms, Content, MemoryObjects, Objects,
    PublishRule, SwapPolicy, WriteRule,
};
use std::{
    collections::BTreeMap, io, io::BufRead, io::BufReader, io::Write, path::Path, process::Command,
    process::Stdio, sync::Arc, thread, time::Duration,
};
use tempfile::TempDir;

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
            .args(["crash::victim", "--exact"])
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

/// What a restart finds: each name's history.
fn found(disk: &Arc<dyn Objects>) -> BTreeMap<String, Vec<usize>> {
    let registry =
        AdapterRegistry::new(small_base(), &AdapterConfig::default(), Some(Arc::clone(disk)));
    let report = registry.refresh().expect("listed");
    assert!(report.skipped.is_empty(), "{:?}", report.skipped);
    for entry in registry.list() {
        for version in registry.history(&entry.name) {
            let wanted = AdapterRef { name: entry.name.clone(), version: Some(version.version) };
            assert_eq!(wait(registry.lease(&wanted)).expect("whole").id, version.version);
        }
    }
    let names = registry.list().into_iter().map(|entry| entry.name.to_string());
    names.map(|text| (text.clone(), history(&registry, &text))).collect()
}

/// One change, which may fail.
type Change<'a> = (&'a str, &'a dyn Fn(&AdapterRegistry) -> bool);

/// After every write and every removal of every change the power goes; the next start finds the state before the change or
/// the one after it, whole, and never less than what the caller was told.
#[test]
fn whenever_the_power_goes_a_restart_is_before_or_after_the_change() {
    let changes: [Change<'_>; 7] = [
        ("first upload", &|registry| publish(registry, "new", 3, PublishRule::Create).is_ok()),
        ("swap", &|registry| publish(registry, "a", 2, PublishRule::Replace).is_ok()),
        ("swap that ends a version", &|registry| {
            publish(registry, "b", 3, PublishRule::Replace).is_ok()
        }),
        ("roll back", &|registry| roll_back(registry, Some(0)).is_ok()),
        ("terms", &|registry| {
            let terms = AdapterTerms { keep_versions: Some(1), ..Default::default() };
            wait(registry.set_terms(name("a"), terms, "me".into())).is_ok()
        }),
        ("retire", &|registry| wait(registry.retire(name("a"), None, SwapPolicy::Pin)).is_ok()),
        ("retire what others put there", &|registry| {
            wait(registry.retire(name("dropped"), None, SwapPolicy::Pin)).is_ok()
        }),
    ];
    for (what, change) in changes {
        let mut cuts = 0;
        for writes in 1.. {
            let disk: Arc<dyn Objects> = Arc::new(MemoryObjects::default());
            for (file, bytes) in content(3).named() {
                let path = format!("dropped/{file}");
                disk.put(&path, Content::Bytes(bytes), WriteRule::Always).expect("written");
            }
            let settings = AdapterConfig { adapter_versions: 2, ..Default::default() };
            let open = |objects: Arc<dyn Objects>| {
                let registry = AdapterRegistry::new(small_base(), &settings, Some(objects));
                registry.refresh().expect("listed");
                registry
            };
            let server = open(Arc::clone(&disk));
            for (text, number) in [("a", 0), ("a", 1), ("b", 1), ("b", 2)] {
                publish(&server, text, number, PublishRule::Replace).expect("always");
            }
            let before = found(&disk);
            let failing = Failing::after(writes, &disk);
            let told = change(&open(Arc::clone(&failing) as Arc<dyn Objects>));
            let cut = found(&disk);
            if failing.is_alive() {
                assert!(told && cut != before, "{what} did nothing");
                break;
            }
            cuts += 1;
            // What the change is when nothing cuts it.
            assert!(change(&open(Arc::clone(&disk))) || cut != before, "{what} cannot be repeated");
            let after = found(&disk);
            assert!(cut == before || cut == after, "{what} cut at {writes}: {cut:?}");
            assert!(!told || cut == after, "{what} cut at {writes} was lost: {cut:?}");
        }
        assert!(cuts > 0, "{what} wrote nothing");
    }
}
