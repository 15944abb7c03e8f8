//! Histories, roll-backs, terms, and memory as a budget.
use crate::{
    adapter_maker, adapter_maker::small_base, config, current, history, id, in_directory,
    in_memory, lay, listed, name, publish, roll_back, stored, wait,
};
use lorad::adapter::{
    AdapterConfig, AdapterError, AdapterRef, AdapterRegistry, AdapterTerms, PublishRule, SwapPolicy,
};
use std::sync::Arc;
use tempfile::TempDir;

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
    wait(registry.set_terms(name("a"), terms.clone(), "me".into())).expect("published");
    assert_eq!(history(&registry, "a"), [2, 1]);
    publish(&registry, "a", 3, PublishRule::Replace).expect("always");
    let again = in_directory(root.path());
    assert_eq!(history(&again, "a"), [3, 2]);
    assert_eq!(*again.get(&name("a")).expect("there").terms, terms);
    assert_eq!(*wait(again.lease(&current("a"))).expect("there").terms, terms);
    let nobody = wait(again.set_terms(name("b"), terms, "me".into()));
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
    wait(registry.set_terms(name("d"), terms, "me".into())).expect("published");
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
    let other = adapter_maker::base::whole(&adapter_maker::layout(2, 16, 8, 4, 12), 2, 16, false);
    let other = Arc::new(adapter_maker::base::MadeBase::new(other));
    let (registry, report) =
        AdapterRegistry::open(&config(root.path()), other, "other").expect("a store");
    assert_eq!((registry.len(), report.skipped.len()), (0, 1));
    assert_eq!(listed(&in_directory(root.path()))["a"], id(0), "nothing was lost");
}
