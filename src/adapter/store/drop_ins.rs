//! Adapters that somebody else put into a store: they are served from where they lie.
//!
//! `NAME/adapter_config.json` with `NAME/adapter_model.safetensors` beside it; without a config the `NAME/adapter.gguf`, or
//! the only `NAME/*.gguf`; where no such directory is, `NAME.gguf`. Names that begin with a dot are nobody's adapter.
use super::{
    ObjectInfo, Objects, Stamp,
    place::{Place, RETIRED_MARKS},
};
use crate::adapter::{
    AdapterError, AdapterLimits,
    format::{
        AdapterFiles, CONFIG_FILE, GGUF_ENDING, GGUF_FILE, MAX_CONFIG_BYTES, MODEL_CONFIG_FILE,
        WEIGHTS_FILE, missing_weights, pickle_among,
    },
    store::{Content, WriteRule},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

/// An adapter that somebody else put there, as a listing shows it: nothing of it has been read.
#[derive(Clone, Debug)]
pub struct DropIn {
    /// What it wants to be called; may not be a valid name.
    pub name_text: String,
    /// Which files it is.
    pub kind: DropInKind,
    /// Differs whenever one of its files does.
    pub stamp: Stamp,
    /// When the last one of its files was written.
    pub modified: SystemTime,
    /// Size of all its files.
    pub bytes: u64,
}

/// The paths of an adapter's files in its store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DropInKind {
    /// As PEFT's `save_pretrained` writes it.
    Peft {
        /// Of `adapter_config.json`.
        config: String,
        /// Of `adapter_model.safetensors`, which may be missing.
        weights: Option<String>,
        /// The pickle that lies there in place of the weights.
        pickle: Option<&'static str>,
        /// Of the `config.json` that lies there too, of the model that the adapter was trained in.
        model: Option<String>,
    },
    /// As llama.cpp's converter writes it.
    Gguf {
        /// Of the file.
        path: String,
    },
}

/// The files at the top, and those in each directory at the top, by name.
#[derive(Default)]
struct Places<'a> {
    files: BTreeMap<&'a str, &'a ObjectInfo>,
    directories: BTreeMap<&'a str, BTreeMap<&'a str, &'a ObjectInfo>>,
}

/// Every drop-in of a store, by name, from one listing.
///
/// # Errors
/// When the store fails.
pub fn find(objects: &dyn Objects) -> Result<Vec<DropIn>, AdapterError> {
    let listed = objects.list("")?;
    let mut places = Places::default();
    for info in &listed {
        match info.path.split_once('/') {
            None => drop(places.files.insert(&info.path, info)),
            Some((directory, file)) if !file.contains('/') => {
                places.directories.entry(directory).or_default().insert(file, info);
            }
            Some(_) => {}
        }
    }
    let beside = places.files.keys().filter_map(|file| file.strip_suffix(GGUF_ENDING));
    let names: BTreeSet<&str> = places.directories.keys().copied().chain(beside).collect();
    let visible = names.into_iter().filter(|name| !name.is_empty() && !name.starts_with('.'));
    Ok(visible.filter_map(|name| places.adapter(name)).collect())
}

impl Places<'_> {
    fn adapter(&self, name: &str) -> Option<DropIn> {
        let in_directory = self.directories.get(name).and_then(|files| directory(name, files));
        in_directory.or_else(|| {
            let file = self.files.get(format!("{name}{GGUF_ENDING}").as_str())?;
            Some(gguf(name, file))
        })
    }
}

/// The adapter that the files in one directory are.
pub(super) fn directory(name: &str, files: &BTreeMap<&str, &ObjectInfo>) -> Option<DropIn> {
    let Some(config) = files.get(CONFIG_FILE) else {
        return gguf_among(files).map(|file| gguf(name, file));
    };
    let weights = files.get(WEIGHTS_FILE);
    let model = files.get(MODEL_CONFIG_FILE);
    let kind = DropInKind::Peft {
        config: config.path.clone(),
        weights: weights.map(|weights| weights.path.clone()),
        pickle: pickle_among(|pickle| files.contains_key(pickle)),
        model: model.map(|model| model.path.clone()),
    };
    let files: Vec<_> = [Some(config), weights, model].into_iter().flatten().copied().collect();
    Some(drop_in(name, kind, &files))
}

/// The file that a directory without a config is, unless an adapter was retired from it: then it is one only by the name
/// that the server gives.
fn gguf_among<'a>(files: &BTreeMap<&str, &'a ObjectInfo>) -> Option<&'a ObjectInfo> {
    if let Some(file) = files.get(GGUF_FILE) {
        return Some(file);
    }
    if RETIRED_MARKS.iter().any(|mark| files.contains_key(mark)) {
        return None;
    }
    let mut found = files.iter().filter(|(name, _)| is_gguf(name)).map(|(_, file)| *file);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

pub(super) fn is_gguf(name: &str) -> bool {
    !name.starts_with('.') && name.ends_with(GGUF_ENDING)
}

fn gguf(name: &str, file: &ObjectInfo) -> DropIn {
    drop_in(name, DropInKind::Gguf { path: file.path.clone() }, &[file])
}

fn drop_in(name: &str, kind: DropInKind, files: &[&ObjectInfo]) -> DropIn {
    DropIn {
        name_text: name.to_owned(),
        kind,
        stamp: together(files.iter().map(|file| (file.path.as_str(), &file.stamp))),
        modified: files.iter().map(|file| file.modified).max().unwrap_or(UNIX_EPOCH),
        bytes: files.iter().map(|file| file.bytes).sum(),
    }
}

fn together<'a>(files: impl Iterator<Item = (&'a str, &'a Stamp)>) -> Stamp {
    let each: Vec<_> = files.map(|(path, stamp)| format!("{path} {}", stamp.0)).collect();
    Stamp(each.join("; "))
}

/// Reads a drop-in as it was listed.
///
/// # Errors
/// When a file is missing, over a limit or no adapter's, when one has changed since, and when the store fails.
pub fn read(
    objects: &dyn Objects,
    found: &DropIn,
    limits: &AdapterLimits,
) -> Result<AdapterFiles, AdapterError> {
    let get = |path: &String, limit| {
        let read = objects.get(path, limit)?;
        read.ok_or_else(|| changed(found)).map(|(bytes, stamp)| (bytes, (path.clone(), stamp)))
    };
    let limit = limits.max_adapter_bytes;
    let (files, stamps): (_, Vec<(String, Stamp)>) = match &found.kind {
        DropInKind::Peft { weights: None, pickle, .. } => return Err(missing_weights(*pickle)),
        DropInKind::Peft { config, weights: Some(weights), model, .. } => {
            let (config, first) = get(config, MAX_CONFIG_BYTES)?;
            let (weights, second) = get(weights, limit)?;
            let model = model.as_ref().map(|model| get(model, MAX_CONFIG_BYTES)).transpose()?;
            let (model, third) = model.unzip();
            let files = AdapterFiles::Peft { config, weights }.beside(model.as_ref())?;
            (files, [first, second].into_iter().chain(third).collect())
        }
        DropInKind::Gguf { path } => {
            let (bytes, stamp) = get(path, limit)?;
            (gguf_files(path, bytes)?, vec![stamp])
        }
    };
    if together(stamps.iter().map(|(path, stamp)| (path.as_str(), stamp))) != found.stamp {
        return Err(changed(found));
    }
    Ok(files)
}

fn gguf_files(path: &str, bytes: Bytes) -> Result<AdapterFiles, AdapterError> {
    let name = path.rsplit('/').next().unwrap_or(path);
    AdapterFiles::of_gguf(name, Some(bytes))
}

fn changed(found: &DropIn) -> AdapterError {
    AdapterError::Unreachable(format!(
        "the files of adapter `{}` change at this moment: try again when they are whole",
        found.name_text
    ))
}

/// Removes a drop-in's files and no others, all or nothing: what is left by a crash is no adapter.
///
/// # Errors
/// When the store is read-only or fails.
pub fn remove(objects: &dyn Objects, found: &DropIn) -> Result<(), AdapterError> {
    let name = &found.name_text;
    if let Some(root) = objects.directory().filter(|_| objects.is_writable()) {
        return Ok(Place::new(root, name).clear()?);
    }
    let in_directory = format!("{name}/");
    let mut paths = Vec::new();
    let (mark, rest) = match &found.kind {
        DropInKind::Peft { config, weights, .. } => {
            // What the config hid must not come back without it.
            paths.extend([format!("{name}{GGUF_ENDING}"), format!("{in_directory}{GGUF_FILE}")]);
            (config, weights.as_ref())
        }
        DropInKind::Gguf { path } => {
            if path.starts_with(&in_directory) {
                paths.push(format!("{name}{GGUF_ENDING}"));
            }
            (path, None)
        }
    };
    if mark.starts_with(&in_directory) {
        let others = objects.list(&in_directory)?;
        let is_other = |info: &ObjectInfo| {
            let file = info.path.strip_prefix(&in_directory);
            file.is_some_and(|file| is_gguf(file) && file != GGUF_FILE) && info.path != *mark
        };
        if others.iter().any(is_other) {
            let sign = format!("{in_directory}{}", RETIRED_MARKS[0]);
            objects.put(&sign, Content::Bytes(&[]), WriteRule::Always)?;
        }
    }
    paths.push(mark.clone());
    paths.extend(rest.cloned());
    paths.iter().try_for_each(|path| objects.delete(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::store::{DirectoryObjects, open};
    use std::{fs, sync::Arc};

    fn put(store: &dyn Objects, path: &str, text: &str) {
        store.put(path, Content::Bytes(text.as_bytes()), WriteRule::Always).expect("written");
    }

    /// The same in a directory and in a bucket.
    fn everywhere(test: impl Fn(&dyn Objects)) {
        let root = tempfile::tempdir().expect("a directory");
        test(&DirectoryObjects::open(root.path()).expect("opened"));
        let bucket: Arc<dyn Objects> = open("memory:///prefix").expect("opened");
        test(&*bucket);
    }

    fn names(store: &dyn Objects) -> Vec<String> {
        find(store).expect("listed").into_iter().map(|found| found.name_text).collect()
    }

    fn one(store: &dyn Objects, name: &str) -> DropIn {
        let found = find(store).expect("listed");
        found.into_iter().find(|found| found.name_text == name).expect("there")
    }

    fn paths(store: &dyn Objects) -> BTreeSet<String> {
        store.list("").expect("listed").into_iter().map(|info| info.path).collect()
    }

    fn read_one(store: &dyn Objects, name: &str) -> Result<AdapterFiles, AdapterError> {
        read(store, &one(store, name), &AdapterLimits::default())
    }

    const FILES: [(&str, &str); 15] = [
        ("peft/adapter_config.json", "{}"),
        ("peft/adapter_model.safetensors", "weights"),
        ("peft/checkpoint-1/adapter_config.json", "{}"),
        ("peft/export.gguf", "GGUF"),
        ("named/adapter.gguf", "GGUF named"),
        ("named/other.gguf", "GGUF"),
        ("only/model-f16.gguf", "GGUF only"),
        ("two/one.gguf", "GGUF"),
        ("two/two.gguf", "GGUF"),
        ("beside.gguf", "GGUF beside"),
        ("peft.gguf", "GGUF hidden by the directory"),
        ("only/notes.txt", ""),
        ("empty/notes.txt", ""),
        ("pickle/adapter_config.json", "{}"),
        ("pickle/adapter_model.bin", "pickle"),
    ];

    fn put_all(store: &dyn Objects) {
        for (path, text) in FILES {
            put(store, path, text);
        }
    }

    #[test]
    fn what_is_an_adapter_is_found_and_read() {
        everywhere(|store| {
            put_all(store);
            put(store, ".hidden/adapter_config.json", "{}");
            assert_eq!(names(store), ["beside", "named", "only", "peft", "pickle"]);
            let found = one(store, "peft");
            assert_eq!(found.bytes, 9);
            let expected = DropInKind::Peft {
                config: "peft/adapter_config.json".to_owned(),
                weights: Some("peft/adapter_model.safetensors".to_owned()),
                pickle: None,
                model: None,
            };
            assert_eq!(found.kind, expected);
            for (name, text) in
                [("named", "GGUF named"), ("only", "GGUF only"), ("beside", "GGUF beside")]
            {
                let files = read_one(store, name).expect("read");
                assert!(matches!(&files, AdapterFiles::Gguf(bytes) if bytes == text), "{files:?}");
            }
            let files = read_one(store, "peft").expect("read");
            assert!(matches!(&files, AdapterFiles::Peft { weights, .. } if weights == "weights"));
        });
    }

    #[test]
    fn what_is_no_adapter_says_why() {
        everywhere(|store| {
            put(store, "pickle/adapter_config.json", "{}");
            put(store, "pickle/adapter_model.bin", "pickle");
            put(store, "bare/adapter_config.json", "{}");
            put(store, "text.gguf", "no");
            put(store, "large.gguf", "GGUF too large");
            for (name, words) in [
                ("pickle", "`adapter_model.bin` is a pickle"),
                ("bare", "there is no `adapter_model.safetensors`"),
                ("text", "`text.gguf` is not a GGUF file"),
            ] {
                let error = read_one(store, name).expect_err("no adapter").to_string();
                assert!(error.contains(words), "{error}");
            }
            let limits = AdapterLimits { max_adapter_bytes: 5, ..AdapterLimits::default() };
            let error = read(store, &one(store, "large"), &limits).expect_err("too large");
            assert!(matches!(error, AdapterError::TooLarge { limit: 5, .. }), "{error:?}");
        });
    }

    #[test]
    fn a_file_that_changed_since_it_was_listed_is_noticed() {
        everywhere(|store| {
            put(store, "a/adapter_config.json", "{}");
            put(store, "a/adapter_model.safetensors", "old");
            let found = one(store, "a");
            assert_eq!(one(store, "a").stamp, found.stamp);
            let limits = AdapterLimits::default();
            for change in ["new", "newer"] {
                put(store, "a/adapter_model.safetensors", change);
                let error = read(store, &found, &limits).expect_err("changed").to_string();
                assert!(error.contains("try again"), "{error}");
            }
            store.delete("a/adapter_config.json").expect("deleted");
            assert!(read(store, &found, &limits).is_err());
        });
    }

    #[test]
    fn removing_one_leaves_what_is_not_its_own_and_brings_nothing_back() {
        everywhere(|store| {
            put_all(store);
            for name in ["peft", "named", "only", "beside"] {
                remove(store, &one(store, name)).expect("removed");
                assert!(!names(store).contains(&name.to_owned()), "{name}");
            }
            assert_eq!(names(store), ["pickle"]);
            let left: Vec<_> =
                paths(store).into_iter().filter(|path| !path.contains("/.")).collect();
            let expected = [
                "empty/notes.txt",
                "named/other.gguf",
                "only/notes.txt",
                "peft/checkpoint-1/adapter_config.json",
                "peft/export.gguf",
                "pickle/adapter_config.json",
                "pickle/adapter_model.bin",
                "two/one.gguf",
                "two/two.gguf",
            ];
            assert_eq!(left, expected);
            put(store, "peft/adapter_config.json", "{}");
            assert!(names(store).contains(&"peft".to_owned()), "somebody made it one again");
        });
    }

    #[cfg(unix)]
    #[test]
    fn of_a_linked_training_run_only_the_link_goes() {
        let (root, run) = (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
        fs::write(run.path().join(CONFIG_FILE), "{}").expect("written");
        fs::write(run.path().join(WEIGHTS_FILE), "weights").expect("written");
        std::os::unix::fs::symlink(run.path(), root.path().join("run")).expect("linked");
        let store = DirectoryObjects::open(root.path()).expect("opened");
        read_one(&store, "run").expect("read");
        remove(&store, &one(&store, "run")).expect("removed");
        assert!(names(&store).is_empty() && run.path().join(CONFIG_FILE).exists());
    }
}
