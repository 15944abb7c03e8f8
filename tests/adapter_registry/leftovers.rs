//! What earlier servers left behind when they were killed.
use crate::{CHECKPOINT, WITH_CHECKPOINT, id, in_directory, lay, lay_checkpoint, name, names_in};
use lorad::adapter::{VersionId, format::CONFIG_FILE, format::WEIGHTS_FILE};
use std::{fs, path::Path};
use tempfile::TempDir;

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
