//! What transformers and PEFT give, through the whole way: text, tokens, engine, model, numbers; alone and in company.
use clap::Parser;
use futures_util::future::join_all;
use lorad::{
    app::App,
    config::ServeConfig,
    generation::{
        EncodeInput, EncodeRequest, Encoded, EncodedValue, Entity, Generator, Pooling, Priority,
        Truncation, Wanted, WeightedAdapter,
    },
};
use safetensors::SafeTensors;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const TOLERANCE: f32 = 1e-3;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    config: ServeConfig,
}

/// A line of `golden.json`.
struct Case {
    adapter: Option<String>,
    input: EncodeInput,
    kind: String,
    tokens: usize,
    line: Value,
}

/// A base with its adapters, and what is known of it.
struct Golden {
    name: &'static str,
    generator: Generator,
    cases: Vec<Case>,
    file: Vec<u8>,
    /// Adapters are read from it when they are asked for.
    _store: TempDir,
}

fn directory(base: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden", base].iter().collect()
}

impl Golden {
    fn of(name: &'static str) -> Self {
        let at = directory(name);
        let store = TempDir::new().expect("a directory");
        copy(&at.join("adapters"), store.path());
        let line = [
            "lorad".as_ref(),
            "--model".as_ref(),
            at.as_os_str(),
            "--adapters".as_ref(),
            store.path().as_os_str(),
            "--device=cpu".as_ref(),
            "--precision=f32".as_ref(),
            "--threads=1".as_ref(),
            "--kv-cache-bytes=8MiB".as_ref(),
        ];
        let app = App::build(&Line::parse_from(line).config).expect("a server");
        let text = fs::read(at.join("golden.json")).expect("golden.json");
        let lines: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
        let file = fs::read(at.join("golden.safetensors")).expect("golden.safetensors");
        let cases = lines.into_iter().map(Case::of).collect();
        let generator = app.state().generator.clone();
        Self { name, generator, cases, file, _store: store }
    }

    fn numbers(&self, case: &Case, field: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.file).expect("tensors");
        let name = case.line[field].as_str().expect("a tensor's name");
        let tensor = tensors.tensor(name).expect("it is there");
        let bytes = tensor.data().as_chunks::<4>().0;
        bytes.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// What is asked for, and the numbers that must come of it; nothing where the service has no such question.
    fn asked(&self, case: &Case) -> Option<(Wanted, Vec<f32>)> {
        let is_pair = matches!(case.input, EncodeInput::Pair(..));
        match case.kind.as_str() {
            "embedding" => {
                let setup = self.generator.model().abilities.embedding.as_ref()?;
                let pooling = match case.line["pooling"].as_str() {
                    Some("mean") => Pooling::Mean,
                    Some("cls") => Pooling::First,
                    _ => Pooling::Last,
                };
                let normalize = Some(case.line["normalize"] == true);
                let wanted = Wanted::Embedding { normalize, dimensions: None, prompt: None };
                (setup.pooling == pooling).then(|| (wanted, self.numbers(case, "embedding")))
            }
            "sequence" => {
                Some((Wanted::Labels { raw: false }, self.numbers(case, "probabilities")))
            }
            "token" if is_pair => None,
            "token" => Some((Wanted::Labels { raw: false }, Vec::new())),
            other => panic!("{other}"),
        }
    }

    async fn read(&self, case: &Case, wanted: Wanted) -> Encoded {
        let adapters = case.adapter.iter().map(|name| WeightedAdapter {
            adapter: name.parse().expect("a name"),
            weight: 1.0,
            field: "model".into(),
        });
        let request = EncodeRequest {
            inputs: vec![case.input.clone()],
            field: "input",
            add_special_tokens: true,
            adapters: adapters.collect(),
            wanted,
            truncation: Truncation::default(),
            priority: Priority::Normal,
        };
        let read = self.generator.encode(request).await;
        read.unwrap_or_else(|error| panic!("{} {:?}: {error}", self.name, case.line))
    }

    /// The entities of a text that stand in the golden scores, by transformers' pipeline: their labels and probabilities.
    fn entities(&self, case: &Case) -> Vec<(String, f32)> {
        let names = case.labels();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut rows: Vec<Vec<f32>> = Vec::new();
        for scores in self.numbers(case, "scores").chunks(names.len()) {
            let sum: f32 = scores.iter().map(|score| score.exp()).sum();
            rows.push(scores.iter().map(|score| score.exp() / sum).collect());
        }
        let mut runs: Vec<(&str, Vec<f32>)> = Vec::new();
        for row in &rows[1..rows.len() - 1] {
            let best = (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b]));
            let best = best.expect("labels");
            let label = names[best].trim_start_matches("B-").trim_start_matches("I-");
            match runs.last_mut() {
                Some((last, scores)) if *last == label && !names[best].starts_with("B-") => {
                    scores.push(row[best]);
                }
                _ => runs.push((label, vec![row[best]])),
            }
        }
        let found = runs.into_iter().filter(|(label, _)| *label != "O");
        found.map(|(l, s)| (l.to_owned(), s.iter().sum::<f32>() / s.len() as f32)).collect()
    }

    fn check(&self, case: &Case, encoded: &Encoded, wanted: &[f32]) {
        let text = &encoded.texts[0];
        let what = || format!("{} {:?}", self.name, case.line);
        assert_eq!(text.tokens, case.tokens, "{}", what());
        match &text.value {
            EncodedValue::Vector(values) | EncodedValue::Scores(values) => {
                assert_eq!(values.len(), wanted.len(), "{}", what());
                let far = values.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(far <= TOLERANCE, "{far} {}", what());
            }
            EncodedValue::Entities(found) => {
                let wanted = self.entities(case);
                let labels =
                    |found: &[Entity]| found.iter().map(|e| e.label.clone()).collect::<Vec<_>>();
                let names: Vec<_> = wanted.iter().map(|(label, _)| label.clone()).collect();
                assert_eq!(labels(found), names, "{}", what());
                for (entity, (_, score)) in found.iter().zip(wanted) {
                    assert!((entity.score - score).abs() <= TOLERANCE, "{}", what());
                }
            }
            EncodedValue::Vectors(_) => panic!("nobody asked"),
        }
        if let Some(labels) = &encoded.labels {
            assert_eq!(labels.names.to_vec(), case.labels(), "{}", what());
        }
    }
}

impl Case {
    fn of(line: Value) -> Self {
        let text = |field: &str| line[field].as_str().map(ToOwned::to_owned);
        let first = text("text").expect("a text");
        let input = match text("pair") {
            Some(second) => EncodeInput::Pair(first, second),
            None => EncodeInput::Text(first),
        };
        let tokens = line["ids"].as_array().expect("ids").len();
        Self { adapter: text("adapter"), input, kind: text("kind").expect("a kind"), tokens, line }
    }

    fn labels(&self) -> Vec<String> {
        serde_json::from_value(self.line["labels"].clone()).expect("names")
    }
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

/// All cases one after the other, then all at once; how many there were.
async fn is_as_in_transformers(name: &'static str) -> usize {
    let golden = tokio::task::spawn_blocking(move || Golden::of(name)).await.expect("no panic");
    let asked = |case: &Case| golden.asked(case);
    let cases: Vec<_> = golden.cases.iter().filter_map(|case| Some((case, asked(case)?))).collect();
    let mut alone = Vec::new();
    for (case, (wanted, numbers)) in &cases {
        let encoded = golden.read(case, wanted.clone()).await;
        golden.check(case, &encoded, numbers);
        alone.push(encoded.texts);
    }
    let together = cases.iter().map(|(case, (wanted, _))| golden.read(case, wanted.clone()));
    let together: Vec<_> = join_all(together).await.into_iter().map(|one| one.texts).collect();
    assert_eq!(together, alone, "{name}: company changes no bit");
    cases.len()
}

macro_rules! goldens {
    ($($name:ident: $least:literal)*) => {$(
        #[tokio::test]
        async fn $name() {
            let cases = is_as_in_transformers(stringify!($name)).await;
            assert!(cases >= $least, "{cases} cases");
        }
    )*};
}

goldens! {
    bert_embed: 25
    bert_mlm: 10
    bert_seqcls: 40
    bert_tokcls: 8
    cross_encoder: 10
    distilbert_mlm: 3
    distilbert_seqcls: 30
    llama_seqcls: 11
    modernbert_embed: 10
    modernbert_mlm: 9
    modernbert_seqcls: 30
    qwen2_seqcls: 11
    roberta_mlm: 6
    roberta_seqcls: 30
    xlm_roberta_mlm: 3
}
