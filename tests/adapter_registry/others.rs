//! Who else writes to the store: other servers, other programs.
use crate::{
    CHECKPOINT, WITH_CHECKPOINT, adapter_maker, adapter_maker::small_base,
    adapter_maker::small_layout, config, content, current, history, id, in_directory, lay,
    lay_checkpoint, listed, name, names_in, publish, wait,
};
use lorad::adapter::{
    AdapterConfig, AdapterError, AdapterFiles, AdapterLimits, AdapterRef, AdapterRegistry,
    MemoryObjects, Objects, PublishRule, Source, SwapPolicy, inspect,
};
use lorad::lora::LoraLayout;
use std::{fs, sync::Arc, thread};
use tempfile::TempDir;

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
    let other = adapter_maker::base::whole(&adapter_maker::layout(2, 16, 8, 4, 12), 2, 16, false);
    assert!(look(Some(other)).misfit.expect("too wide").contains("[2, 16]"));
    let json = serde_json::to_value(&alone).expect("JSON");
    assert_eq!(json["version"], id(0).to_string());
    assert_eq!(json["description"]["ranks"], serde_json::json!([2]));
}

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
