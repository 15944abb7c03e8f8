//! `lorad adapter` as an operator types it, against a whole server.
use crate::running::{Running, adapter, rescaled};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// What a command came to.
#[derive(Debug)]
struct Ran {
    status: i32,
    out: String,
    err: String,
}

impl Ran {
    /// What a success printed.
    fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        self.out
    }

    fn json(self) -> Value {
        serde_json::from_str(&self.ok()).expect("JSON")
    }

    /// What a failure with this status said.
    fn failed(self, status: i32) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.err.starts_with("lorad adapter: ") && self.out.is_empty(), "{self:?}");
        self.err
    }
}

/// A server with a store, and a place for files.
struct Desk {
    server: Running,
    files: TempDir,
}

impl Desk {
    async fn open(flags: &[&str]) -> Self {
        let files = TempDir::new().expect("a directory");
        let store = files.path().join("store");
        fs::create_dir(&store).expect("made");
        let kept = ["--adapters", store.to_str().expect("UTF-8")];
        Self { server: Running::start(&[&kept[..], flags].concat()).await, files }
    }

    async fn run(&self, args: &[&str]) -> Ran {
        run(&self.server.url, args).await
    }

    fn path(&self, name: &str) -> String {
        self.files.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    /// A directory with an adapter in it.
    fn directory(&self, name: &str, (config, weights): (Vec<u8>, Vec<u8>)) -> String {
        let directory = PathBuf::from(self.path(name));
        fs::create_dir_all(&directory).expect("made");
        fs::write(directory.join("adapter_config.json"), config).expect("written");
        fs::write(directory.join("adapter_model.safetensors"), weights).expect("written");
        self.path(name)
    }
}

async fn run(url: &str, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lorad"));
    command.arg("adapter").args(args).stdin(Stdio::null());
    command.env("LORAD_URL", url).env_remove("LORAD_ADMIN_KEY");
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.expect("no panic").expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran {
        status: output.status.code().expect("no signal"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

fn field<'a>(of: &'a Value, name: &str) -> &'a str {
    of[name].as_str().unwrap_or_else(|| panic!("no {name} in {of}"))
}

fn same_files(one: &Path, other: &Path) -> bool {
    ["adapter_config.json", "adapter_model.safetensors"]
        .iter()
        .all(|name| fs::read(one.join(name)).ok() == fs::read(other.join(name)).ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_is_pushed_swapped_rolled_back_pulled_and_removed() {
    let desk = Desk::open(&[]).await;
    let first = desk.directory("first", adapter("rate"));
    let second = desk.directory("second", rescaled("rate", 3));

    let report = desk.run(&["push", "salt", &first]).await.ok();
    for words in ["created", "norm of delta", "over restarts", "layer"] {
        assert!(report.contains(words), "{report}");
    }
    let again = desk.run(&["push", "salt", &first, "--json"]).await.json();
    assert_eq!(field(&again, "outcome"), "unchanged");
    let old = field(&again, "version").to_owned();

    let dry = desk.run(&["push", "salt", &second, "--dry-run", "--json"]).await.json();
    assert_eq!(field(&dry, "outcome"), "valid");
    let swap = ["push", "salt", &second, "--if-version", &old[..8], "--policy", "drain"];
    let swapped = desk.run(&[&swap[..], &["--probe", "--json"]].concat()).await.json();
    assert_eq!((field(&swapped, "outcome"), field(&swapped, "previous")), ("replaced", &old[..]));
    let new = field(&swapped, "version").to_owned();
    assert!(swapped["probe"]["adapter"].is_string(), "{swapped}");

    let list = desk.run(&["list", "--prefix", "sal"]).await.ok();
    assert!(list.starts_with("NAME") && list.contains(&new[..12]), "{list}");
    assert_eq!(list.lines().count(), 2, "{list}");
    let page = desk.run(&["show", "salt"]).await.ok();
    assert!(page.contains(&new) && page.contains(&old[..12]) && page.contains("current"), "{page}");

    let back = desk.run(&["rollback", "salt"]).await.ok();
    assert!(back.contains(&old[..12]) && back.contains(&new[..12]), "{back}");
    let there = desk.run(&["rollback", "salt", "--to", &new[..10], "--json"]).await.json();
    assert_eq!(field(&there, "version"), new);

    let (now, then) = (desk.path("now"), desk.path("then"));
    let pulled = desk.run(&["pull", "salt", &now]).await.ok();
    assert!(pulled.starts_with(&format!("salt@{}", &new[..12])), "{pulled}");
    assert!(same_files(Path::new(&now), Path::new(&second)));
    fs::create_dir(&then).expect("an empty directory will do");
    desk.run(&["pull", &format!("salt@{}", &old[..8]), &then]).await.ok();
    assert!(same_files(Path::new(&then), Path::new(&first)));

    let unasked = desk.run(&["rm", "salt"]).await.failed(2);
    assert!(unasked.contains("--yes"), "{unasked}");
    let lost = desk.run(&["rm", "salt", "--yes", "--if-version", &old]).await.failed(1);
    assert!(lost.contains("412 precondition_failed"), "{lost}");
    desk.run(&["rm", "salt", "--yes"]).await.ok();
    assert!(desk.run(&["list"]).await.ok().contains("no adapters"));
    desk.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_pushed_whole() {
    let desk = Desk::open(&[]).await;
    let directory = desk.directory("dir", adapter("rate"));
    let packed = desk.path("packed.tar");
    let mut tar = tar::Builder::new(fs::File::create(&packed).expect("a file"));
    tar.append_dir_all("rate", &directory).expect("packed");
    tar.finish().expect("whole");
    let by_tar = desk.run(&["push", "a", &packed, "--create", "--json"]).await.json();
    let by_directory = desk.run(&["push", "b", &directory, "--json"]).await.json();
    assert_eq!(by_tar["version"], by_directory["version"]);
    desk.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terms_change_one_by_one() {
    let desk = Desk::open(&[]).await;
    desk.run(&["push", "a", &desk.directory("a", adapter("rate"))]).await.ok();
    let set = desk.run(&["terms", "a", "--pin", "--max-requests", "4", "--share", "2"]).await.ok();
    assert_eq!(set, "a: pinned, share 2.0, max requests 4\n");
    let less = desk.run(&["terms", "a", "--no-pin", "--max-requests", "none"]).await.ok();
    assert_eq!(less, "a: share 2.0\n");
    assert_eq!(desk.run(&["terms", "a"]).await.ok(), less);
    let wrong = desk.run(&["terms", "a", "--share", "0"]).await.failed(1);
    assert!(wrong.contains("400 invalid_adapter_terms, at share"), "{wrong}");
    desk.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_is_split_flipped_rolled_back_and_removed() {
    let desk = Desk::open(&[]).await;
    let pushed = ["push", "a", &desk.directory("a", adapter("rate")), "--json"];
    let version = field(&desk.run(&pushed).await.json(), "version").to_owned();
    desk.run(&["push", "b", &desk.directory("b", rescaled("rate", 5))]).await.ok();

    let split = ["split", "chat", "a=90", "b=10", "--sticky-header", "x-user"];
    let set = desk.run(&[&split[..], &["--max-error-rate", "0.5"]].concat()).await.ok();
    for words in ["a=90 b=10", "created", "header x-user", "max error rate 0.5"] {
        assert!(set.contains(words), "{set}");
    }
    let flipped = desk.run(&["split", "chat", "b"]).await.ok();
    assert!(flipped.contains("before   a=90 b=10"), "{flipped}");
    assert!(desk.run(&["split", "chat", "--rollback"]).await.ok().contains("a=90 b=10"));
    assert!(desk.run(&["split"]).await.ok().contains("a=90 b=10"));
    let one = format!("a@{}=1", &version[..8]);
    let pinned = desk.run(&["split", "chat", &one, "--json"]).await.json();
    assert_eq!(field(&pinned["targets"][0], "model"), format!("a@{version}"));

    desk.run(&["rm", "a", "--yes"]).await.failed(1);
    desk.run(&["split", "chat", "--rm"]).await.failed(2);
    desk.run(&["split", "chat", "--rm", "--yes"]).await.ok();
    let gone = desk.run(&["split", "chat"]).await.failed(1);
    assert!(gone.contains("(404 "), "{gone}");
    desk.run(&["rm", "a", "--yes"]).await.ok();
    desk.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_says_why_and_changes_nothing() {
    let desk = Desk::open(&[]).await;
    let directory = desk.directory("a", adapter("rate"));
    desk.run(&["push", "a", &directory]).await.ok();

    for args in [
        &["show", "nobody"][..],
        &["rollback", "nobody"],
        &["pull", "nobody", &desk.path("x")],
        &["rm", "nobody", "--yes"],
        &["terms", "nobody", "--pin"],
    ] {
        let told = desk.run(args).await.failed(1);
        assert!(told.contains("`nobody`") && told.contains("404 adapter_not_found"), "{told}");
    }
    assert!(!Path::new(&desk.path("x")).exists());

    let other = desk.directory("other", rescaled("rate", 5));
    let taken = desk.run(&["push", "a", &other, "--create"]).await.failed(1);
    assert!(taken.contains("412 precondition_failed"), "{taken}");
    let unknown = desk.run(&["push", "a", &other, "--if-version", "00000000"]).await.failed(1);
    assert!(unknown.contains("begins with 00000000"), "{unknown}");
    let short = desk.run(&["rollback", "a", "--to", "abc"]).await.failed(2);
    assert!(short.contains("8 or more"), "{short}");

    let empty = desk.path("empty");
    fs::create_dir(&empty).expect("made");
    let broken = desk.directory("broken", (b"{".to_vec(), b"weights".to_vec()));
    let cut = desk.directory("cut", (adapter("rate").0, b"weights".to_vec()));
    for (path, words) in [
        (&empty, "there is no `adapter_config.json`"),
        (&broken, "is not a JSON object"),
        (&desk.path("none"), "does not exist"),
        (&cut, "400 invalid_adapter"),
    ] {
        let told = desk.run(&["push", "b", path]).await.failed(1);
        assert!(told.contains(words), "{told}");
    }
    let full = desk.run(&["pull", "a", &directory]).await.failed(1);
    assert!(full.contains("not empty"), "{full}");
    let names = desk.run(&["list", "--json"]).await.json();
    assert_eq!(names["total"], 1);
    desk.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_asked_for_and_never_shown() {
    let desk = Desk::open(&["--admin-key", "secret-of-admins"]).await;
    let directory = desk.directory("a", adapter("rate"));
    for wrong in [&[][..], &["--key", "wrong-secret"]] {
        let told = desk.run(&[&["push", "a", &directory], wrong].concat()).await.failed(1);
        assert!(told.contains("401 invalid_api_key") && told.contains("--key"), "{told}");
        assert!(!told.contains("secret"), "{told}");
    }
    let file = desk.path("key");
    fs::write(&file, "# for admins\nsecret-of-admins\n").expect("written");
    desk.run(&["push", "a", &directory, "--key-file", &file]).await.ok();
    desk.run(&["--key", "secret-of-admins", "list"]).await.ok();
    let help = desk.run(&["list", "--key", "secret-of-admins", "--help"]).await.ok();
    assert!(!help.contains("secret"), "{help}");
    desk.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named() {
    let told = run("http://127.0.0.1:1", &["list"]).await.failed(1);
    assert!(told.contains("http://127.0.0.1:1 does not answer"), "{told}");
    let told = run("127.0.0.1:1", &["list"]).await.failed(2);
    assert!(told.contains("--url"), "{told}");
}
