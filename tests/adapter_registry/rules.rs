//! What may be published, and what a publication does.
use crate::{
    adapter_maker::Maker, adapter_maker::key, adapter_maker::small_base, adapter_maker::values,
    current, failing::Failing, id, in_directory, in_memory, listed, name, names_in, publish,
    stored, wait,
};
use lorad::adapter::{
    AdapterConfig, AdapterError, AdapterLimits, AdapterRegistry, MemoryObjects, Objects,
    PublishOutcome, PublishRule, SwapPolicy,
};
use std::{sync::Arc, sync::Mutex};
use tempfile::TempDir;

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

#[test]
fn a_failing_store_publishes_nothing() {
    let disk: Arc<dyn Objects> = Arc::new(MemoryObjects::default());
    let settings = AdapterConfig::default();
    let registry = AdapterRegistry::new(small_base(), &settings, Some(Failing::after(1, &disk)));
    let failed = publish(&registry, "a", 0, PublishRule::Replace);
    assert!(matches!(failed, Err(AdapterError::Store(_))));
    assert!(registry.list().is_empty());
}
