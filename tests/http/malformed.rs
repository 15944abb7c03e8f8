//! Malformed adapters, one defect each: the right answer, nothing left, nobody disturbed.
use crate::client::{Answer, Server, adapter_files};
use futures_util::join;
use reqwest::multipart::{Form, Part};
use serde_json::{Map, Value, json};
use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
};

/// An adapter in parts, to be broken.
struct Adapter {
    config: Map<String, Value>,
    header: Map<String, Value>,
    data: Vec<u8>,
}

const DOWN_A: &str = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight";
const DOWN_B: &str = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight";

impl Adapter {
    /// A golden one, which is sound.
    fn sound() -> Self {
        let files = adapter_files("llama", "layers");
        let [(_, config), (_, weights)] = files.named()[..] else { unreachable!("PEFT's form") };
        let (length, rest) = weights.split_at(8);
        let length = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
        let header = serde_json::from_slice(&rest[..length]).expect("a header");
        let config = serde_json::from_slice(config).expect("a config");
        Self { config, header, data: rest[length..].to_vec() }
    }

    fn files(&self) -> (Vec<u8>, Vec<u8>) {
        let config = serde_json::to_vec(&self.config).expect("JSON");
        let header = serde_json::to_string(&self.header).expect("JSON");
        (config, tensors(&header, &self.data))
    }

    /// Calls a tensor something else.
    fn rename(&mut self, name: &str, other: &str) {
        let tensor = self.header.remove(name).expect("a tensor");
        self.header.insert(other.to_owned(), tensor);
    }

    /// Makes a tensor's first number this.
    fn set(&mut self, name: &str, value: f32) {
        let start = self.header[name]["data_offsets"][0].as_u64().expect("an offset") as usize;
        self.data[start..start + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// A safetensors file with this header, whatever it says.
fn tensors(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_bytes(), data].concat()
}

struct Case {
    what: String,
    files: (Vec<u8>, Vec<u8>),
    reason: &'static str,
    /// What the message must say.
    told: &'static str,
}

fn broken(
    what: &str,
    told: &'static str,
    reason: &'static str,
    defect: impl FnOnce(&mut Adapter),
) -> Case {
    let mut adapter = Adapter::sound();
    defect(&mut adapter);
    Case { what: what.into(), files: adapter.files(), reason, told }
}

fn field(name: &str, value: Value, told: &'static str, reason: &'static str) -> Case {
    broken(&format!("{name}: {value}"), told, reason, |adapter| {
        adapter.config.insert(name.to_owned(), value);
    })
}

fn weights(what: &str, told: &'static str, bytes: Vec<u8>) -> Case {
    let (config, _) = Adapter::sound().files();
    let reason = if told == "pickle" { UNSUPPORTED } else { INVALID };
    Case { what: what.into(), files: (config, bytes), reason, told }
}

const INVALID: &str = "invalid_adapter";
const UNSUPPORTED: &str = "unsupported_adapter";

/// Files that no program of good will writes.
fn files() -> Vec<Case> {
    let (_, sound) = Adapter::sound().files();
    let long = |length: u64| [&length.to_le_bytes()[..], &sound[8..]].concat();
    let one = |shape: &str, offsets: &str, bytes: usize| {
        let header = format!(
            "{{\"{DOWN_A}\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}"
        );
        tensors(&header, &vec![0; bytes])
    };
    let (header, data) = {
        let adapter = Adapter::sound();
        (serde_json::to_string(&adapter.header).expect("JSON"), adapter.data)
    };
    let twice =
        format!("{{\"x\":{0},\"x\":{0}}}", r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let many: Vec<_> = (0..20_000)
        .map(|n| format!(r#""{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#))
        .collect();
    vec![
        weights("7 bytes", "7 bytes", vec![0; 7]),
        weights("header of 0", "broken", long(0)),
        weights("header over the file", "broken", long(1 << 20)),
        weights("header of 2^31", "header", long(1 << 31)),
        weights("header of 2^63", "header", long(1 << 63)),
        weights("header of u64::MAX", "header", long(u64::MAX)),
        weights("cut", "broken", sound[..sound.len() - 4].to_vec()),
        weights("bytes behind", "broken", [&sound[..], b"more"].concat()),
        weights("space before the header", "", tensors(&format!(" {header}"), &data)),
        weights("not UTF-8", "", tensors("\u{fffd}", &data)),
        weights("deep", "", tensors(&deep, b"")),
        weights("one name twice", "twice", tensors(&twice, &[0; 4])),
        weights("a crowd", "tensors", tensors(&format!("{{{}}}", many.join(",")), b"")),
        weights("an overlap", "", one("[1,1]", "[0,4],\"x\":1", 4)),
        weights("reversed offsets", "", one("[1,1]", "[4,0]", 4)),
        weights("negative offsets", "", one("[1,1]", "[-4,0]", 4)),
        weights("a hole", "", one("[1,1]", "[4,8]", 8)),
        weights("an endless shape", "", one("[0,18446744073709551615]", "[0,0]", 0)),
        weights("a shape that wraps", "", one("[4294967296,4294967296]", "[0,0]", 0)),
        weights("a vector", "", one("[4]", "[0,16]", 16)),
        weights("a number", "", one("[]", "[0,4]", 4)),
        weights("a cube", "", one("[1,2,2]", "[0,16]", 16)),
        weights("a thousand axes", "", one(&format!("[{}1]", "1,".repeat(999)), "[0,4]", 4)),
        weights("a pickle", "pickle", b"\x80\x02}q\0.".to_vec()),
        weights("a zip", "pickle", b"PK\x03\x04 and so on".to_vec()),
    ]
}

/// Sound files that no base like ours can serve.
fn contents() -> Vec<Case> {
    let dtype = |dtype: &'static str, told| {
        broken(dtype, told, UNSUPPORTED, move |adapter| {
            adapter.header[DOWN_B]["dtype"] = json!(dtype);
        })
    };
    let number = |value: f32| {
        let what = format!("{value} in the weights");
        broken(&what, "down_proj", INVALID, move |adapter| adapter.set(DOWN_B, value))
    };
    vec![
        dtype("I32", "I32"),
        dtype("U32", "U32"),
        number(f32::NAN),
        number(f32::INFINITY),
        number(f32::NEG_INFINITY),
        broken("A without B", "lora_B", INVALID, |a| {
            a.rename(DOWN_B, "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight");
        }),
        broken("another inner rank", "", INVALID, |a| {
            a.header[DOWN_A]["shape"] = json!([2, 256]);
        }),
        broken("block 9999", "9999", INVALID, |a| {
            a.rename(DOWN_A, "base_model.model.model.layers.9999.mlp.down_proj.lora_A.weight");
            a.rename(DOWN_B, "base_model.model.model.layers.9999.mlp.down_proj.lora_B.weight");
        }),
        broken("an unknown module", "warp_proj", INVALID, |a| {
            a.rename(DOWN_A, "base_model.model.model.layers.1.mlp.warp_proj.lora_A.weight");
            a.rename(DOWN_B, "base_model.model.model.layers.1.mlp.warp_proj.lora_B.weight");
        }),
        broken("a path for a name", "", INVALID, |a| a.rename(DOWN_A, "../../etc/passwd")),
        field("r", json!(8), "", INVALID),
        field("r", json!(0), "rank", INVALID),
        field("r", json!(1_u64 << 31), "", INVALID),
        field("r", json!(-1), "rank", INVALID),
        field("r", json!("4"), "rank", INVALID),
        field("lora_alpha", json!("12"), "lora_alpha", INVALID),
        field("lora_alpha", Value::Null, "lora_alpha", INVALID),
        field("lora_alpha", json!(1e308), "", INVALID),
        field("peft_type", json!("IA3"), "IA3", UNSUPPORTED),
        field("peft_type", json!(7), "peft_type", UNSUPPORTED),
        field("task_type", json!("SEQ_CLS"), "SEQ_CLS", UNSUPPORTED),
        field("layer_replication", json!([[0, 1]]), "layer_replication", UNSUPPORTED),
        field("use_qalora", json!(true), "use_qalora", UNSUPPORTED),
        field("use_magic", json!(true), "use_magic", UNSUPPORTED),
    ]
}

/// Malformed adapters for a base of their own, several of which PEFT loads without a word.
fn fixtures(directory: &Path) -> Vec<(Case, Option<Vec<u8>>)> {
    let cases = [
        ("wrong_in_dim", "63", INVALID),
        ("rank_mismatch", "", INVALID),
        ("missing_B", "lora_B", INVALID),
        ("nan", "", INVALID),
        ("header_len_huge", "header", INVALID),
        ("empty", "", INVALID),
        ("bad_json", "JSON", INVALID),
        ("no_peft_type", "peft_type", INVALID),
        ("ia3", "IA3", UNSUPPORTED),
        ("r_zero", "rank", INVALID),
        ("layer_replication", "layer_replication", UNSUPPORTED),
        ("task_mismatch", "SEQ_CLS", UNSUPPORTED),
        ("pickle_only", "safe_serialization=True", UNSUPPORTED),
    ];
    let read = |name: &str, file: &str| fs::read(directory.join(name).join(file)).ok();
    let case = |(name, told, reason): (&str, &'static str, &'static str)| {
        let config = read(name, "adapter_config.json").expect("a config");
        let weights = read(name, "adapter_model.safetensors").unwrap_or_default();
        let pickle = read(name, "adapter_model.bin");
        (Case { what: name.into(), files: (config, weights), reason, told }, pickle)
    };
    cases.into_iter().map(case).collect()
}

/// What is wrong with the answer, if anything.
async fn refuse(server: &Server, case: &Case, pickle: Option<&[u8]>) -> Option<String> {
    let (config, weights) = &case.files;
    let request = server.request("PUT", "/admin/adapters/bad");
    let request = if let Some(pickle) = pickle {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in [("adapter_config.json", &config[..]), ("adapter_model.bin", pickle)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes).expect("memory");
        }
        request.body(tar.into_inner().expect("memory"))
    } else {
        let part = |bytes: &[u8]| Part::bytes(bytes.to_vec());
        request.multipart(Form::new().part("config", part(config)).part("weights", part(weights)))
    };
    let answer = Answer::of(request).await;
    let error = answer.json()["error"].clone();
    let message = error["message"].as_str().unwrap_or_default();
    let is_right = answer.status == 400
        && error["reason"] == case.reason
        && message.contains(case.told)
        && (1..1100).contains(&message.len())
        && !["/tmp", "incoming"].iter().any(|place| message.contains(place));
    (!is_right).then(|| format!("{}: {}", case.what, answer.text))
}

/// What an adapter says, event by event.
async fn streamed(server: &Server, model: &str) -> String {
    let body = json!({"model": model, "prompt": [5, 6, 7], "max_tokens": 48, "temperature": 0,
                      "ignore_eos": true, "stream": true});
    let events = server.post("/v1/completions", &body).await.events();
    let text = |event: &String| {
        let event: Value = serde_json::from_str(event).ok()?;
        Some(event["choices"][0]["text"].as_str()?.to_owned())
    };
    events.iter().filter_map(text).collect()
}

async fn rejections(server: &Server) -> f64 {
    let metrics = server.get("/metrics").await.text;
    let line = metrics.lines().find(|line| line.contains("result=\"rejected\""));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

/// Everything below a directory, but for the place where uploads wait.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

async fn names(server: &Server) -> Value {
    let listed = server.get("/admin/adapters").await.ok();
    let entries = listed["adapters"].as_array().expect("a list").iter();
    entries.map(|entry| json!([entry["name"], entry["version"]])).collect()
}

async fn none_is_published(server: &Server, other: &str, cases: &[(Case, Option<Vec<u8>>)]) {
    let alone = streamed(server, other).await;
    let before = (names(server).await, tree(server.store()));
    let done = Cell::new(false);
    let uploads = async {
        let mut wrong = Vec::new();
        for (case, pickle) in cases {
            wrong.extend(refuse(server, case, pickle.as_deref()).await);
        }
        done.set(true);
        wrong
    };
    let company = async {
        while !done.get() {
            assert_eq!(streamed(server, other).await, alone);
        }
    };
    let (wrong, ()) = join!(uploads, company);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((names(server).await, tree(server.store())), before);
    assert_eq!(rejections(server).await, cases.len() as f64);
    server.get("/admin/adapters/bad").await.error(404);
    assert_eq!(streamed(server, other).await, alone);
}

#[tokio::test]
async fn no_malformed_adapter_is_published_or_disturbs_another() {
    let cases: Vec<_> = files().into_iter().chain(contents()).map(|case| (case, None)).collect();
    none_is_published(&Server::golden("llama"), "all-linear", &cases).await;
}

#[tokio::test]
async fn what_peft_loads_silently_is_refused_too() {
    let Some(directory) = std::env::var_os("LORAD_TEST_FIXTURES") else { return };
    let base = PathBuf::from(directory).join("tiny/llama");
    none_is_published(&Server::of(&base), "a", &fixtures(&base.join("bad"))).await;
}

#[tokio::test]
async fn odd_but_sound_adapters_are_published() {
    let server = Server::golden("llama");
    for (what, value) in [("zeros", 0.0), ("denormals", 1e-40)] {
        let mut adapter = Adapter::sound();
        for number in adapter.data.chunks_exact_mut(4) {
            number.copy_from_slice(&f32::to_le_bytes(value));
        }
        let (config, weights) = adapter.files();
        let form = Form::new().part("config", Part::bytes(config));
        let form = form.part("weights", Part::bytes(weights));
        let put = Answer::of(server.request("PUT", "/admin/adapters/odd").multipart(form)).await;
        assert!(put.status.is_success(), "{what}: {}", put.text);
        let told = put.json()["warnings"].to_string();
        assert_eq!(told.contains("every delta is zero"), value == 0.0, "{what}: {told}");
    }
}

#[tokio::test]
async fn an_adapter_whose_output_is_no_number_does_not_pass_a_probe() {
    let server = Server::golden("llama");
    let mut adapter = Adapter::sound();
    for number in adapter.data.chunks_exact_mut(4) {
        number.copy_from_slice(&f32::to_le_bytes(1e25));
    }
    let (config, weights) = adapter.files();
    let form = Form::new().part("config", Part::bytes(config));
    let form = form.part("weights", Part::bytes(weights));
    let put = server.request("PUT", "/admin/adapters/odd?probe=true").multipart(form);
    let error = Answer::of(put).await.error(422);
    assert_eq!(error["reason"], "probe_failed", "{error}");
    assert!(error["message"].as_str().expect("text").contains("not a number"), "{error}");
    server.get("/admin/adapters/odd").await.error(404);
    let layers = json!({"model": "layers", "prompt": [5, 6, 7], "max_tokens": 4});
    server.post("/v1/completions", &layers).await.ok();
}
