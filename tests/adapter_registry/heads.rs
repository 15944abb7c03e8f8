//! Classifiers: a version is a head with its names, and never half of another.
use crate::{
    adapter_maker::{Maker, base::MadeBase, small_layout, values},
    config, current, name, wait,
};
use lorad::{
    adapter::{AdapterConfig, AdapterFiles, AdapterRegistry, PublishRule, drop_ins},
    lora::{ClassHeadShape, FrozenBase, HeadKind},
};
use serde_json::json;
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use tempfile::TempDir;

/// A decoder that takes heads.
fn base() -> Arc<dyn FrozenBase> {
    Arc::new(MadeBase::new(small_layout().with_class_head(ClassHeadShape {
        in_features: 8,
        biased: false,
        kinds: &[HeadKind::Sequence],
        base: None,
        has_dense: true,
    })))
}

fn unnamed(labels: usize) -> AdapterFiles {
    let mut maker = Maker::new(labels as u32).with("task_type", json!("SEQ_CLS"));
    let weight = values(labels * 8, labels as u32);
    maker.set("base_model.model.score.weight", &[labels, 8], &weight);
    maker.files()
}

fn classifier(labels: usize) -> AdapterFiles {
    let names: Vec<_> = (0..labels).map(|id| format!("{id} of {labels}")).collect();
    unnamed(labels).with_labels(&names).expect("names")
}

#[test]
fn a_swap_to_more_labels_leaves_each_request_its_own() {
    let registry = AdapterRegistry::new(base(), &AdapterConfig::default(), None);
    let publish = |labels| {
        let published = registry.publish(name("desk"), classifier(labels), PublishRule::Replace);
        wait(published).expect("published").version
    };
    let ids = [publish(3), publish(5)];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = [0usize; 2];
                    while !done.load(Ordering::Relaxed) || seen.contains(&0) {
                        let lease = wait(registry.lease(&current("desk"))).expect("published");
                        let head = lease.weights.class_head().expect("a head");
                        let labels = head.labels.names.len();
                        assert_eq!(head.weight.dims(), [labels, 8]);
                        assert!(head.labels.names[0].ends_with(&format!("of {labels}")));
                        let which = usize::from(labels == 5);
                        assert_eq!(lease.id, ids[which]);
                        seen[which] += 1;
                    }
                })
            })
            .collect();
        for labels in [3, 5].into_iter().cycle().take(40) {
            publish(labels);
        }
        done.store(true, Ordering::Relaxed);
        // Whoever has not seen both waits for the last of these.
        while readers.iter().any(|reader| !reader.is_finished()) {
            publish(3);
            publish(5);
        }
    });
    let labels: Vec<_> = registry
        .history(&name("desk"))
        .iter()
        .map(|entry| entry.description.labels.len())
        .collect();
    assert_eq!(labels, [5, 3]);
}

#[test]
fn names_beside_a_drop_in_are_part_of_its_version() {
    let root = TempDir::new().expect("a directory");
    let place = root.path().join("desk");
    fs::create_dir(&place).expect("made");
    for (file, bytes) in unnamed(2).named() {
        fs::write(place.join(file), bytes).expect("written");
    }
    let open = || AdapterRegistry::open(&config(root.path()), base(), "base").expect("a store").0;
    let named = |registry: &AdapterRegistry| {
        let entry = registry.get(&name("desk")).expect("published");
        (entry.version, entry.description.labels.clone())
    };
    let registry = open();
    let (numbered, labels) = named(&registry);
    assert_eq!(labels, ["LABEL_0", "LABEL_1"]);
    fs::write(place.join("config.json"), r#"{"id2label": {"0": "no", "1": "yes"}}"#)
        .expect("written");
    registry.refresh().expect("listed");
    let (version, labels) = named(&registry);
    assert_eq!(labels, ["no", "yes"]);
    assert_ne!(version, numbered);
    // As it is read again, on this server and on the next one.
    for registry in [registry, open()] {
        assert_eq!(named(&registry).0, version);
        let lease = wait(registry.lease(&current("desk"))).expect("read");
        let head = lease.weights.class_head().expect("a head");
        assert_eq!(
            (&*head.labels.names, lease.id),
            (&["no".to_owned(), "yes".to_owned()][..], version)
        );
    }
    let store = lorad::adapter::open_store(root.path().to_str().expect("UTF-8")).expect("a store");
    assert_eq!(drop_ins::find(store.as_ref()).expect("listed").len(), 1);
}
