//! The whole server behind a tiny model of `tests/golden`.
use clap::Parser;
use lorad::{
    adapter::{AdapterFiles, AdapterLimits},
    app::App,
    config::ServeConfig,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    config: ServeConfig,
}

/// A line of `golden.json`.
pub(crate) struct Case {
    pub(crate) adapter: Option<String>,
    pub(crate) prompt: Vec<u64>,
    pub(crate) greedy: Vec<u64>,
}

pub(crate) fn directory(base: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden", base].iter().collect()
}

/// What transformers and PEFT answer.
pub(crate) fn cases(base: &str) -> Vec<Case> {
    let text = fs::read(directory(base).join("golden.json")).expect("golden.json");
    let lines: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    let ids = |value: &Value| serde_json::from_value(value.clone()).expect("token ids");
    let case = |line: &Value| Case {
        adapter: line["adapter"].as_str().map(ToOwned::to_owned),
        prompt: ids(&line["prompt"]),
        greedy: ids(&line["greedy"]),
    };
    lines.iter().map(case).collect()
}

/// The two files of an adapter.
pub(crate) fn adapter_files(base: &str, name: &str) -> AdapterFiles {
    let directory = directory(base).join("adapters").join(name);
    AdapterFiles::read(&directory, &AdapterLimits::default()).expect("an adapter")
}

/// The base in `directory` with all its adapters, on one CPU thread in f32, and where it keeps uploads.
pub(crate) fn serving(directory: &Path, flags: &[&str]) -> (App, TempDir) {
    let store = TempDir::new().expect("a directory");
    copy(&directory.join("adapters"), store.path());
    (serving_from(directory, store.path(), flags), store)
}

/// The base in `model` with the adapters of `store`, and with more flags.
fn serving_from(model: &Path, store: &Path, flags: &[&str]) -> App {
    let line = [
        "lorad".as_ref(),
        "--model".as_ref(),
        model.as_os_str(),
        "--adapters".as_ref(),
        store.as_os_str(),
        "--device=cpu".as_ref(),
        "--precision=f32".as_ref(),
        "--threads=1".as_ref(),
        "--kv-cache-bytes=8MiB".as_ref(),
    ];
    let line = line.into_iter().chain(flags.iter().map(AsRef::as_ref));
    App::build(&Line::parse_from(line).config).expect("a server")
}

/// A base of `tests/golden` with the adapters of `store`, and with more flags.
pub(crate) fn over(base: &str, store: &Path, flags: &[&str]) -> App {
    serving_from(&directory(base), store, flags)
}

/// The adapters of a base, in a directory that a server may write to.
pub(crate) fn adapters(base: &str) -> TempDir {
    let store = TempDir::new().expect("a directory");
    copy(&directory(base).join("adapters"), store.path());
    store
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
        } else {
            fs::copy(source, target).expect("a copy");
        }
    }
}
