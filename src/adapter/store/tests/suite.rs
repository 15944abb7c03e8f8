//! The contract of [`Objects`], as tests that take a store.
use crate::adapter::{AdapterError, Content, Objects, Stamp, WriteRule};
use std::{collections::BTreeSet, fs, sync::Arc, thread};

fn put(store: &dyn Objects, path: &str, text: &str, rule: WriteRule<'_>) -> Option<Stamp> {
    store.put(path, Content::Bytes(text.as_bytes()), rule).expect("written")
}

fn text(store: &dyn Objects, path: &str) -> Option<String> {
    let found = store.get(path, 1 << 20).expect("read");
    found.map(|(bytes, _)| String::from_utf8(bytes.to_vec()).expect("text"))
}

fn paths(store: &dyn Objects, prefix: &str) -> BTreeSet<String> {
    store.list(prefix).expect("listed").into_iter().map(|info| info.path).collect()
}

/// Tries everything on an empty, writable store.
pub(crate) fn check(store: &dyn Objects) {
    what_is_written_is_read(store);
    a_rule_that_does_not_hold_does_nothing(store);
    a_listing_is_of_its_prefix(store);
    what_is_not_there_is_no_error(store);
    a_log_keeps_its_last_lines(store);
    a_file_becomes_an_object(store);
    a_limit_is_kept(store);
    paths_that_lead_elsewhere_are_refused(store);
}

fn what_is_written_is_read(store: &dyn Objects) {
    assert!(store.is_writable());
    let first = put(store, ".lorad/names/a.json", "one", WriteRule::Always).expect("written");
    assert_eq!(text(store, ".lorad/names/a.json").as_deref(), Some("one"));
    let second = put(store, ".lorad/names/a.json", "two", WriteRule::Always).expect("written");
    assert_ne!(first, second);
    let (bytes, stamp) = store.get(".lorad/names/a.json", 100).expect("read").expect("there");
    assert_eq!((&bytes[..], &stamp), (&b"two"[..], &second));
    let listed = store.list(".lorad/names/").expect("listed");
    assert_eq!((listed[0].bytes, &listed[0].stamp), (3, &second));
    put(store, ".lorad/names/empty", "", WriteRule::Always).expect("written");
    assert_eq!(text(store, ".lorad/names/empty").as_deref(), Some(""));
}

fn a_rule_that_does_not_hold_does_nothing(store: &dyn Objects) {
    let path = ".lorad/names/rule.json";
    let unknown = Stamp("\"nothing\"".to_owned());
    assert_eq!(put(store, path, "x", WriteRule::IfUnchanged(&unknown)), None);
    assert_eq!(text(store, path), None);
    let one = put(store, path, "one", WriteRule::IfAbsent).expect("absent");
    assert_eq!(put(store, path, "two", WriteRule::IfAbsent), None);
    assert_eq!(text(store, path).as_deref(), Some("one"));
    let two = put(store, path, "two", WriteRule::IfUnchanged(&one)).expect("unchanged");
    assert_eq!(put(store, path, "ten", WriteRule::IfUnchanged(&one)), None);
    assert_eq!(text(store, path).as_deref(), Some("two"));
    store.delete(path).expect("deleted");
    assert_eq!(put(store, path, "six", WriteRule::IfUnchanged(&two)), None);
    put(store, path, "six", WriteRule::IfAbsent).expect("absent again");
}

fn a_listing_is_of_its_prefix(store: &dyn Objects) {
    for path in ["run/adapter_config.json", "run/deep/x", "running.gguf", ".lorad/list/one/a"] {
        put(store, path, path, WriteRule::Always).expect("written");
    }
    let visible = paths(store, "");
    assert!(visible.contains("run/adapter_config.json") && visible.contains("running.gguf"));
    assert!(!visible.iter().any(|path| path.starts_with(".lorad")), "{visible:?}");
    assert_eq!(
        paths(store, "run/"),
        ["run/adapter_config.json", "run/deep/x"].map(Into::into).into()
    );
    assert_eq!(paths(store, ".lorad/list/"), [".lorad/list/one/a".to_owned()].into());
    assert_eq!(paths(store, ".lorad/nothing/"), BTreeSet::new());
    let info = &store.list(".lorad/list/").expect("listed")[0];
    assert!(info.modified.elapsed().is_ok_and(|age| age.as_secs() < 600), "{info:?}");
}

fn what_is_not_there_is_no_error(store: &dyn Objects) {
    assert_eq!(text(store, ".lorad/names/missing"), None);
    store.delete(".lorad/names/missing").expect("nothing to do");
    store.delete(".lorad/missing/missing").expect("nothing to do");
    assert_eq!(text(store, ".lorad/names"), None, "a folder is no object");
    put(store, ".lorad/gone/a", "x", WriteRule::Always).expect("written");
    store.delete(".lorad/gone/a").expect("deleted");
    assert_eq!(text(store, ".lorad/gone/a"), None);
    assert!(paths(store, ".lorad/gone/").is_empty());
    put(store, ".lorad/gone/a", "x", WriteRule::IfAbsent).expect("absent");
}

fn a_log_keeps_its_last_lines(store: &dyn Objects) {
    assert!(store.tail(".lorad/events", 5).expect("no log").is_empty());
    for number in 0..12 {
        store.append(".lorad/events", &format!("{{\"n\":{number}}}")).expect("appended");
    }
    let last = store.tail(".lorad/events", 3).expect("read");
    assert_eq!(last, ["{\"n\":9}", "{\"n\":10}", "{\"n\":11}"]);
    assert_eq!(store.tail(".lorad/events", 100).expect("read").len(), 12);
    assert!(store.tail(".lorad/events", 0).expect("read").is_empty());
    assert!(store.append(".lorad/events", "two\nlines").is_err());
}

fn a_file_becomes_an_object(store: &dyn Objects) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("weights");
    fs::write(&file, "weights").expect("written");
    store.put("f/w", Content::File(&file), WriteRule::IfAbsent).expect("written").expect("absent");
    fs::write(&file, "changed").expect("it stays where it is");
    assert_eq!(text(store, "f/w").as_deref(), Some("weights"));
    assert_eq!(store.put("f/w", Content::File(&file), WriteRule::IfAbsent).expect("asked"), None);
    let missing = directory.path().join("missing");
    assert!(store.put("f/w", Content::File(&missing), WriteRule::Always).is_err());
    assert_eq!(text(store, "f/w").as_deref(), Some("weights"));
}

fn a_limit_is_kept(store: &dyn Objects) {
    put(store, ".lorad/large", "12345", WriteRule::Always).expect("written");
    assert!(store.get(".lorad/large", 5).expect("within").is_some());
    let error = store.get(".lorad/large", 4).expect_err("over the limit");
    assert!(matches!(error, AdapterError::TooLarge { bytes: 5, limit: 4 }), "{error:?}");
}

fn paths_that_lead_elsewhere_are_refused(store: &dyn Objects) {
    for path in ["", "/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a/", "."] {
        assert!(store.get(path, 10).is_err(), "{path}");
        assert!(store.put(path, Content::Bytes(b"x"), WriteRule::Always).is_err(), "{path}");
        assert!(store.delete(path).is_err(), "{path}");
        assert!(store.append(path, "x").is_err(), "{path}");
        assert!(store.tail(path, 1).is_err(), "{path}");
    }
    assert!(store.list("../").is_err());
    assert!(store.list("a").is_err(), "a prefix ends in a slash");
}

/// Many writers at the same path: of each round exactly one wins, and what it wrote is there.
pub(crate) fn race(stores: &[Arc<dyn Objects>]) {
    for round in 0..8 {
        let path = format!(".lorad/race/{round}");
        let first = winner(stores, &path, None);
        winner(stores, &path, Some(&first));
    }
}

fn winner(stores: &[Arc<dyn Objects>], path: &str, expected: Option<&Stamp>) -> Stamp {
    let attempt = |(number, store): (usize, &Arc<dyn Objects>)| {
        let rule = expected.map_or(WriteRule::IfAbsent, WriteRule::IfUnchanged);
        // Where a stamp is a hash, the same text again would be no change.
        let text = format!("writer {number} after {}", expected.is_some());
        store
            .put(path, Content::Bytes(text.as_bytes()), rule)
            .expect("asked")
            .map(|stamp| (text, stamp))
    };
    let won: Vec<_> = thread::scope(|scope| {
        let writers: Vec<_> =
            stores.iter().enumerate().map(|writer| scope.spawn(move || attempt(writer))).collect();
        writers.into_iter().filter_map(|writer| writer.join().expect("no panic")).collect()
    });
    let [(written, stamp)] = &won[..] else { panic!("{} winners", won.len()) };
    assert_eq!(text(stores[0].as_ref(), path).as_ref(), Some(written));
    stamp.clone()
}
