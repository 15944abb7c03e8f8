//! What is special about a directory: crashes, links, odd files, other processes.
use super::objects::{DirectoryObjects, Step};
use crate::adapter::{
    AdapterError, Content, Objects, WriteRule,
    store::tests::{check, race},
};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io,
    path::Path,
    process::{self, Command},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

const RECORD: &str = ".lorad/names/a.json";

fn root() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn open(root: &TempDir) -> DirectoryObjects {
    DirectoryObjects::open(root.path()).expect("opened")
}

fn put(store: &DirectoryObjects, path: &str, text: &str) {
    store
        .put(path, Content::Bytes(text.as_bytes()), WriteRule::Always)
        .expect("written")
        .expect("no rule");
}

fn text(store: &DirectoryObjects, path: &str) -> Option<String> {
    let found = store.get(path, 1 << 20).expect("read");
    found.map(|(bytes, _)| String::from_utf8(bytes.to_vec()).expect("text"))
}

fn paths(store: &DirectoryObjects, prefix: &str) -> Vec<String> {
    let mut paths: Vec<_> =
        store.list(prefix).expect("listed").into_iter().map(|info| info.path).collect();
    paths.sort();
    paths
}

fn incoming(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join(".lorad/incoming")).expect("listed");
    entries.map(|entry| entry.expect("listed").file_name().into_string().expect("text")).collect()
}

#[test]
fn a_directory_keeps_the_contract() {
    let root = root();
    check(&open(&root));
    assert!(incoming(root.path()).is_empty());
}

#[test]
fn of_writers_at_one_path_one_wins() {
    let root = root();
    let stores: Vec<Arc<dyn Objects>> = (0..4).map(|_| Arc::new(open(&root)) as _).collect();
    race(&stores);
}

#[test]
fn a_directory_that_is_none_or_an_adapter_is_refused() {
    let root = root();
    fs::write(root.path().join("file"), "").expect("written");
    for path in ["file", "missing"] {
        let error = DirectoryObjects::open(&root.path().join(path)).expect_err("no directory");
        assert!(error.to_string().contains("cannot be used"), "{error}");
    }
    fs::write(root.path().join("adapter_config.json"), "{}").expect("written");
    let error = DirectoryObjects::open(root.path()).expect_err("an adapter");
    assert!(error.to_string().contains("itself an adapter"), "{error}");
}

/// Where this is set, the test below is the child that it kills.
const CHILD: &str = "LORAD_TEST_KILLED_WRITER";

const THIS: &str =
    "adapter::store::directory::tests::a_writer_that_dies_between_two_steps_leaves_all_or_nothing";

#[test]
fn a_writer_that_dies_between_two_steps_leaves_all_or_nothing() {
    if let Ok(task) = env::var(CHILD) {
        die_writing(&task);
    }
    for (step, after) in [
        (Step::Begun, "old"),
        (Step::Filled, "old"),
        (Step::Prepared, "old"),
        (Step::Renamed, "new"),
    ] {
        for before in [None, Some("old")] {
            let root = root();
            if let Some(before) = before {
                put(&open(&root), RECORD, before);
            }
            let status = Command::new(env::current_exe().expect("this program"))
                .args(["--exact", THIS])
                .env(CHILD, format!("{step:?} {}", root.path().display()))
                .output()
                .expect("run");
            assert_eq!(status.status.code(), Some(77), "{status:?}");
            let store = open(&root);
            let expected = if after == "new" { Some("new") } else { before };
            assert_eq!(text(&store, RECORD).as_deref(), expected, "{step:?}");
            assert!(incoming(root.path()).is_empty(), "{step:?}");
            put(&store, RECORD, "next");
        }
    }
}

/// Which step, set once in a process that dies there.
static DEADLY: Mutex<Option<String>> = Mutex::new(None);

fn die_writing(task: &str) -> ! {
    let (step, root) = task.split_once(' ').expect("a step and a directory");
    *DEADLY.lock().unwrap_or_else(PoisonError::into_inner) = Some(step.to_owned());
    let mut store = DirectoryObjects::open(Path::new(root)).expect("opened");
    store.after = |step| {
        let deadly = DEADLY.lock().unwrap_or_else(PoisonError::into_inner);
        if deadly.as_deref() == Some(&format!("{step:?}")) {
            process::exit(77);
        }
    };
    put(&store, RECORD, "new");
    process::exit(1);
}

#[test]
fn a_write_that_cannot_be_flushed_is_taken_back() {
    let root = root();
    let mut store = open(&root);
    put(&store, RECORD, "old");
    store.flush = |_| Err(io::Error::other("the disk is gone"));
    for (path, left) in [(RECORD, Some("old")), (".lorad/names/b.json", None)] {
        let written = store.put(path, Content::Bytes(b"new"), WriteRule::Always);
        assert!(matches!(written, Err(AdapterError::Store(_))), "{written:?}");
        assert_eq!(text(&store, path).as_deref(), left);
    }
    assert!(incoming(root.path()).is_empty());
}

#[test]
fn opening_removes_what_nobody_writes_any_more() {
    let root = root();
    let store = open(&root);
    let directory = store.incoming();
    fs::write(directory.join("put-dead"), "half").expect("written");
    let living = File::create(directory.join("put-living")).expect("made");
    living.lock().expect("locked");
    fs::write(directory.join("upload-new"), "half").expect("written");
    let old = File::create(directory.join("upload-old")).expect("made");
    old.set_modified(SystemTime::now() - Duration::from_hours(2)).expect("set");
    open(&root);
    let mut left = incoming(root.path());
    left.sort();
    assert_eq!(left, ["put-living", "upload-new"]);
}

#[test]
fn a_file_in_the_incoming_folder_is_not_copied() {
    let root = root();
    let store = open(&root);
    let staged = store.incoming().join("upload-1");
    fs::write(&staged, "weights").expect("written");
    let stored = store.put(".lorad/versions/1/w", Content::File(&staged), WriteRule::IfAbsent);
    stored.expect("written").expect("absent");
    assert_eq!(fs::read(&staged).expect("it stays"), b"weights");
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = |path: &Path| fs::metadata(path).expect("there").ino();
        assert_eq!(inode(&staged), inode(&root.path().join(".lorad/versions/1/w")));
    }
}

#[cfg(unix)]
#[test]
fn a_link_in_the_incoming_folder_is_copied() {
    let root = root();
    let store = open(&root);
    let mine = root.path().join("mine");
    fs::write(&mine, "one").expect("written");
    let link = store.incoming().join("link");
    std::os::unix::fs::symlink(&mine, &link).expect("linked");
    store.put("x", Content::File(&link), WriteRule::Always).expect("written").expect("no rule");
    fs::write(&mine, "two").expect("written");
    assert_eq!(text(&store, "x").as_deref(), Some("one"));
}

#[cfg(unix)]
#[test]
fn links_are_followed_where_people_put_them_and_odd_files_are_left_out() {
    use std::os::unix::{fs::symlink, net::UnixListener};
    let (root, elsewhere) = (root(), root());
    let at = |path: &str| root.path().join(path);
    fs::create_dir_all(elsewhere.path().join("deep")).expect("made");
    fs::write(elsewhere.path().join("adapter_config.json"), "{}").expect("written");
    fs::write(elsewhere.path().join("deep/file"), "{}").expect("written");
    symlink(elsewhere.path(), elsewhere.path().join("circle")).expect("linked");
    symlink(elsewhere.path(), at("run")).expect("linked");
    symlink(elsewhere.path().join("deep/file"), at("one.gguf")).expect("linked");
    symlink(at("nowhere"), at("broken.gguf")).expect("linked");
    symlink(at("loop"), at("loop")).expect("linked");
    fs::create_dir(at("real")).expect("made");
    symlink(elsewhere.path(), at("real/link")).expect("linked");
    fs::write(at("real/.hidden"), "").expect("written");
    let store = open(&root);
    fs::write(at("real/.retired-adapter_config.json"), "").expect("written");
    let _socket = UnixListener::bind(at("socket")).expect("bound");
    let expected = [
        "one.gguf",
        "real/.retired-adapter_config.json",
        "run/adapter_config.json",
        "run/deep/file",
    ];
    assert_eq!(paths(&store, ""), expected);
    assert_eq!(paths(&store, "run/"), expected[2..]);
    let error = store.get("socket", 10).expect_err("no file");
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn where_nothing_can_be_written_things_are_read() {
    // Nobody can make files there, not even root.
    let store = DirectoryObjects::open(Path::new("/sys/kernel")).expect("opened");
    assert!(!store.is_writable());
    let error = store.put("x", Content::Bytes(b"x"), WriteRule::Always).expect_err("read-only");
    assert!(matches!(error, AdapterError::ReadOnly(_)), "{error:?}");
    assert!(store.delete("x").is_err() && store.append("x", "y").is_err());
    assert!(store.get("missing", 10).expect("read").is_none());
    assert!(store.list(".lorad/names/").expect("listed").is_empty());
}

#[test]
fn a_root_that_went_away_is_not_an_empty_one() {
    let root = root();
    let store = open(&root);
    put(&store, RECORD, "one");
    fs::remove_dir_all(root.path()).expect("removed");
    assert!(store.list("").is_err());
    assert!(store.list(".lorad/names/").is_err());
    assert!(store.get(RECORD, 10).is_err());
}

#[test]
fn a_line_that_a_crash_cut_short_is_not_in_the_log() {
    let root = root();
    let store = open(&root);
    store.append(".lorad/events", "one").expect("appended");
    let log = root.path().join(".lorad/events");
    let long = "x".repeat(200_000);
    fs::write(&log, format!("one\n{long}")).expect("written");
    assert_eq!(store.tail(".lorad/events", 9).expect("read"), ["one"]);
    store.append(".lorad/events", &long).expect("appended");
    store.append(".lorad/events", "three").expect("appended");
    assert_eq!(store.tail(".lorad/events", 9).expect("read"), ["one", &long, "three"]);
    assert_eq!(store.tail(".lorad/events", 2).expect("read"), [&long, "three"]);
    assert_eq!(fs::read_to_string(&log).expect("read"), format!("one\n{long}\nthree\n"));
}

#[derive(Clone, Debug)]
enum Action {
    Put(usize, String),
    PutIfAbsent(usize, String),
    PutIfUnchanged(usize, String, bool),
    Delete(usize),
    Append(String),
    Reopen,
}

/// Some lie below others' neighbours, so that folders come and go.
const PATHS: [&str; 5] =
    [".lorad/names/a", ".lorad/names/b", ".lorad/versions/1/c", ".lorad/versions/2/c", ".lorad/d"];

fn action() -> impl Strategy<Value = Action> {
    let (path, text) = (0..PATHS.len(), "[a-z]{0,8}");
    prop_oneof![
        (path.clone(), text).prop_map(|(path, text)| Action::Put(path, text)),
        (path.clone(), text).prop_map(|(path, text)| Action::PutIfAbsent(path, text)),
        (path.clone(), text, any::<bool>())
            .prop_map(|(path, text, stale)| Action::PutIfUnchanged(path, text, stale)),
        path.prop_map(Action::Delete),
        text.prop_map(Action::Append),
        Just(Action::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_directory_is_a_map(actions in prop::collection::vec(action(), 1..40)) {
        let root = root();
        let mut store = open(&root);
        let mut model = BTreeMap::new();
        let mut lines = Vec::new();
        for action in actions {
            act(&mut store, &root, &mut model, &mut lines, action);
            for prefix in [".lorad/names/", ".lorad/versions/"] {
                let expected: Vec<_> =
                    model.keys().filter(|path: &&&str| path.starts_with(prefix)).copied().collect();
                prop_assert_eq!(paths(&store, prefix), expected);
            }
            for path in PATHS {
                prop_assert_eq!(text(&store, path), model.get(path).cloned());
            }
            prop_assert_eq!(store.tail(".lorad/log", 100).expect("read"), lines.clone());
        }
    }
}

fn act(
    store: &mut DirectoryObjects,
    root: &TempDir,
    model: &mut BTreeMap<&'static str, String>,
    lines: &mut Vec<String>,
    action: Action,
) {
    let write = |store: &DirectoryObjects, path, text: &str, rule: WriteRule<'_>| {
        store.put(path, Content::Bytes(text.as_bytes()), rule).expect("asked").is_some()
    };
    match action {
        Action::Put(path, text) => {
            assert!(write(store, PATHS[path], &text, WriteRule::Always));
            model.insert(PATHS[path], text);
        }
        Action::PutIfAbsent(path, text) => {
            let absent = !model.contains_key(PATHS[path]);
            assert_eq!(write(store, PATHS[path], &text, WriteRule::IfAbsent), absent);
            model.entry(PATHS[path]).or_insert(text);
        }
        Action::PutIfUnchanged(path, text, stale) => {
            let path = PATHS[path];
            let Some((_, stamp)) = store.get(path, 100).expect("read") else { return };
            if stale {
                assert!(write(store, path, "other", WriteRule::Always));
                model.insert(path, "other".to_owned());
            }
            assert_eq!(write(store, path, &text, WriteRule::IfUnchanged(&stamp)), !stale);
            if !stale {
                model.insert(path, text);
            }
        }
        Action::Delete(path) => {
            store.delete(PATHS[path]).expect("deleted");
            model.remove(PATHS[path]);
        }
        Action::Append(line) => {
            store.append(".lorad/log", &line).expect("appended");
            lines.push(line);
        }
        Action::Reopen => *store = open(root),
    }
}
