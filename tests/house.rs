//! The house rules a compiler does not check: which room may use which, headers, sizes, unsafe.
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each room and the rooms it may import, from the ground up. Anything absent is forbidden.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("telemetry", &[]),
    ("kernel", &[]),
    ("lora", &["kernel"]),
    ("gguf", &[]),
    ("hub", &[]),
    ("model", &["gguf", "hub", "kernel", "lora"]),
    ("adapter", &["error", "gguf", "hub", "lora"]),
    ("engine", &["error", "kernel", "lora", "model", "adapter"]),
    ("generation", &["error", "telemetry", "adapter", "engine"]),
    ("http", &["error", "telemetry", "adapter", "generation"]),
    ("bench", &["kernel", "lora", "model"]),
];

/// What stands above all rooms and may use each of them.
const ROOF: &[&str] = &["app.rs", "cli", "config.rs", "demo.rs", "lib.rs", "main.rs"];

/// Where `unsafe` may stand: the instruction sets, and the one memory map.
const UNSAFE_ALLOWED: &[&str] = &["kernel/", "model/checkpoint"];

/// A file that nears this, its tests included, wants a seam.
const MAX_LINES: usize = 600;

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.into()];
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries
        .flat_map(|entry| sources(&entry.expect("a readable checkout").path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a readable checkout")
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The first words after `crate::`, also of each arm of `crate::{…}`.
fn imported_rooms(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.flat_map(|line| [line, "\n"]).collect();
    code.match_indices("crate::")
        .flat_map(|(at, path)| first_words(&code[at + path.len()..]))
        .collect()
}

fn first_words(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let (mut depth, mut arms, mut start) = (0, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                arms.push(word(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    arms.retain(|arm| !arm.is_empty());
    arms
}

fn word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn rooms_import_only_what_lies_below_them() {
    let mut bad = Vec::new();
    for (room, allowed) in ROOMS {
        let mut files = sources(&src().join(room));
        files.extend(sources(&src().join(format!("{room}.rs"))));
        for file in files {
            for used in imported_rooms(&read(&file)) {
                let known = ROOMS.iter().any(|(name, _)| *name == used);
                if used != *room && known && !allowed.contains(&used.as_str()) {
                    bad.push(format!("{}: {room} may not use {used}", file.display()));
                }
                if ROOF.iter().any(|top| top.trim_end_matches(".rs") == used) {
                    bad.push(format!(
                        "{}: {room} may not use {used}, it stands above",
                        file.display()
                    ));
                }
            }
        }
    }
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}

#[test]
fn every_source_lies_in_a_room() {
    for entry in fs::read_dir(src()).expect("a readable checkout") {
        let name = entry.expect("a readable checkout").file_name().into_string().expect("UTF-8");
        let room = ROOMS.iter().any(|(room, _)| *room == name.trim_end_matches(".rs"));
        assert!(room || ROOF.contains(&name.as_str()), "src/{name} is in no room");
    }
}

#[test]
fn files_are_short_begin_with_their_purpose_and_keep_unsafe_in_its_place() {
    let mut bad = Vec::new();
    for path in sources(&src()) {
        let text = read(&path);
        let name = path.strip_prefix(src()).expect("below src").display().to_string();
        if text.lines().count() > MAX_LINES {
            bad.push(format!("{name}: over {MAX_LINES} lines"));
        }
        if !text.starts_with("//! ") {
            bad.push(format!("{name}: does not begin with what it is for"));
        }
        if text.contains("unsafe {") && !UNSAFE_ALLOWED.iter().any(|place| name.starts_with(place))
        {
            bad.push(format!("{name}: unsafe"));
        }
        if text.contains("cfg(feature") && !name.starts_with("kernel/") {
            bad.push(format!("{name}: only the kernel room knows features"));
        }
    }
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}

#[test]
fn imports_are_read_also_in_groups() {
    let text = "use crate::{\n adapter::{A, B},\n engine::C,\n};\nfn f() { crate::kernel::g() }\n// crate::http\n";
    assert_eq!(imported_rooms(text), ["adapter", "engine", "kernel"]);
}

#[test]
fn documents_name_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md"), root.join("src/lib.rs")];
    for folder in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(root.join(folder)).expect("a readable checkout");
        let files = entries.map(|entry| entry.expect("a readable checkout").path());
        documents.extend(files.filter(|file| file.is_file()));
    }
    for document in documents {
        let text = read(&document);
        for named in text.split('`').filter(|word| word.starts_with("tests/")) {
            assert!(root.join(named).exists(), "{}: {named} is not there", document.display());
        }
    }
}

/// The crate that is tested on Arm has the house's kernels, and should have the house's packages.
#[test]
fn the_kernels_alone_ask_for_the_same_packages() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [whole, alone] =
        ["Cargo.toml", "tests/aarch64/Cargo.toml"].map(|file| read(&root.join(file)));
    let (_, packages) = alone.split_once("[dependencies]").expect("packages");
    let (packages, _) = packages.split_once("[profile").expect("profiles after them");
    let packages: Vec<_> = packages.lines().filter(|line| line.contains('=')).collect();
    assert!(packages.len() > 5, "{packages:?}");
    for package in packages {
        assert!(
            whole.lines().any(|line| line == package),
            "the house has another than `{package}`"
        );
    }
}
