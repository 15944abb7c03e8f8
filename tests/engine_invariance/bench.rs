//! A base model, its adapters, and the answers that PyTorch, transformers and PEFT gave.
use lorad::{
    adapter::{AdapterFiles, AdapterLease, AdapterLimits, AdapterVersion, format},
    engine::{
        AdapterMix, ByteSize, EngineConfig, EngineHandle, Event, EventStream, ModelRunner,
        Priority, SamplingOptions, SamplingParams, Submission, TokenLogprobs,
    },
    kernel::{Kernels, KvChoice, KvPrecision, KvShape, Precision},
    model::{LoadOptions, LoadedModel, ModelSource, Progress, load},
};
use serde_json::Value;
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Tokens of a prompt and of an answer of the real model, so that all arrangements take minutes.
const LONGEST_PROMPT: usize = 64;
const MOST_TOKENS: usize = 12;
/// Two that all adapters share and one of the adapter's own, where it has one.
const PROMPTS_EACH: usize = 3;

/// One prompt and its right answer.
pub(crate) struct Case {
    /// As the mix is called: `pirate`, or `mix-0.7pirate-0.3sql`.
    pub(crate) adapter: Option<String>,
    pub(crate) prompt: Vec<u32>,
    /// Greedy, past any end of sequence.
    pub(crate) answer: Vec<u32>,
}

/// How the engine is set up.
pub(crate) struct Arrangement {
    pub(crate) name: &'static str,
    pub(crate) blocks: usize,
    pub(crate) config: EngineConfig,
}

/// Tokens and log-probabilities of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) tokens: Vec<u32>,
    pub(crate) logprobs: Vec<TokenLogprobs>,
}

pub(crate) struct Bench {
    directory: PathBuf,
    kernels: Arc<dyn Kernels>,
    precision: Precision,
    kv_precision: KvChoice,
    leases: HashMap<String, AdapterLease>,
    pub(crate) cases: Vec<Case>,
}

impl Bench {
    /// A base under `tests/golden`.
    pub(crate) fn tiny(base: &str, kernels: Arc<dyn Kernels>) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(base);
        let records = ["golden.json", "family.json"].map(|name| directory.join(name));
        let records = records.iter().filter(|record| record.is_file()).map(|record| json(record));
        let case = |case: &Value| Case {
            adapter: case["adapter"].as_str().map(Into::into),
            prompt: numbers(&case["prompt"]),
            answer: numbers(&case["greedy"]),
        };
        let cases = records.flat_map(|record| {
            record.as_array().expect("a list").iter().map(case).collect::<Vec<_>>()
        });
        let cases = cases.collect();
        Self::new(directory.clone(), &directory.join("adapters"), kernels, cases)
    }

    /// `SmolLM2` from `model` with the adapters and answers of `fixtures`.
    pub(crate) fn smollm2(
        model: PathBuf,
        fixtures: &Path,
        names: &[&str],
        kernels: Arc<dyn Kernels>,
    ) -> Self {
        let mut cases = Vec::new();
        for name in names {
            let golden = json(&fixtures.join("golden").join(format!("{name}.json")));
            let prompts = golden["prompts"].as_array().expect("a list").iter();
            let short = prompts.map(|prompt| (numbers(&prompt["ids"]), prompt));
            let short = short.filter(|(ids, _)| ids.len() <= LONGEST_PROMPT);
            for (ids, prompt) in short.take(PROMPTS_EACH) {
                let mut answer = numbers(&prompt["greedy_ids"]);
                answer.truncate(safe(&prompt["margins"]).min(MOST_TOKENS));
                let adapter = (*name != "base").then(|| (*name).into());
                cases.push(Case { adapter, prompt: ids, answer });
            }
        }
        Self::new(model, &fixtures.join("adapters"), kernels, cases)
    }

    fn new(
        directory: PathBuf,
        adapters: &Path,
        kernels: Arc<dyn Kernels>,
        cases: Vec<Case>,
    ) -> Self {
        let (precision, kv_precision) = (Precision::F32, KvChoice::Auto);
        let leases = HashMap::new();
        let mut bench = Self { directory, kernels, precision, kv_precision, leases, cases };
        let model = bench.model();
        let mixes = bench.cases.iter().filter_map(|case| case.adapter.as_deref());
        for (name, _) in mixes.flat_map(parts) {
            let limits = AdapterLimits::default();
            let files = AdapterFiles::read(&adapters.join(name), &limits).expect("files");
            let parsed = format::parse(&files, &model.weights, &limits);
            let version = AdapterVersion {
                id: files.version(),
                weights: parsed.expect("an adapter").weights,
            };
            let lease = AdapterLease::new(name.parse().expect("a name"), Arc::new(version));
            bench.leases.insert(name.into(), lease);
        }
        bench
    }

    /// With base weights in another precision than f32.
    pub(crate) fn at(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// With keys and values in another precision than the base weights ask for.
    pub(crate) fn keeping(self, kv_precision: KvPrecision) -> Self {
        Self { kv_precision: KvChoice::Fixed(kv_precision), ..self }
    }

    /// With the prompts of each mix's adapters, asked of the whole mix; nobody has recorded the answers.
    pub(crate) fn mixed(mut self, mixes: &[&str]) -> Self {
        for mix in mixes {
            let parts = parts(mix);
            let is_of_mix =
                |case: &&Case| parts.iter().any(|(name, _)| case.adapter.as_deref() == Some(*name));
            let of_mix = self.cases.iter().filter(is_of_mix).map(|case| Case {
                adapter: Some((*mix).into()),
                prompt: case.prompt.clone(),
                answer: vec![0; case.answer.len()],
            });
            let of_mix: Vec<_> = of_mix.collect();
            assert!(of_mix.len() > 1, "{mix} has prompts");
            self.cases.extend(of_mix);
        }
        self
    }

    fn model(&self) -> LoadedModel {
        let source = ModelSource::Directory(self.directory.clone());
        let options = LoadOptions {
            precision: self.precision,
            kv_precision: self.kv_precision,
            max_positions: None,
            kv_cache_bytes: None,
            pooling: None,
            progress: Progress::Hidden,
        };
        load(&source, self.kernels.as_ref(), &options).expect("a model")
    }

    /// An engine of its own, with nothing in its caches.
    pub(crate) fn engine(&self, arrangement: &Arrangement) -> EngineHandle {
        let lm = self.model().lm;
        let dims = lm.kv_dims();
        let shape = KvShape {
            layers: dims.layers,
            blocks: arrangement.blocks,
            block_size: arrangement.config.block_size,
            kv_heads: dims.kv_heads,
            head_dim: dims.head_dim,
            precision: dims.precision,
        };
        let kv_cache_bytes = ByteSize(shape.blocks * self.kernels.kv_block_bytes(shape));
        let config = EngineConfig { kv_cache_bytes, ..arrangement.config.clone() };
        let runner = ModelRunner::new(lm, self.kernels.clone(), &config).expect("memory");
        EngineHandle::spawn(runner, &config, Vec::new()).expect("a thread")
    }

    /// Asks for `case`'s answer, greedy or drawn with a seed of the case's own.
    pub(crate) fn submit(&self, engine: &EngineHandle, case: usize, greedy: bool) -> EventStream {
        let seed = Some(case as u64);
        let temperature = if greedy { 0.0 } else { 0.8 };
        let Case { adapter, prompt, answer } = &self.cases[case];
        let max_tokens = answer.len();
        let options = SamplingOptions {
            temperature,
            seed,
            max_tokens,
            logprobs: Some(2),
            ..Default::default()
        };
        let parts = adapter.iter().flat_map(|name| parts(name));
        let leased = parts.map(|(name, weight)| (self.leases[name].clone(), weight));
        let submission = Submission {
            output: None,
            second_text: None,
            prompt: prompt.clone(),
            adapters: AdapterMix::new(leased).expect("a mix"),
            sampling: SamplingParams::new(options, usize::MAX, 0).expect("in range"),
            constraint: None,
            priority: Priority::Normal,
            cache_salt: None,
        };
        engine.submit(submission).expect("room")
    }
}

/// The adapters of a mix with their weights; any other name is all of one adapter.
fn parts(name: &str) -> Vec<(&str, f32)> {
    let Some(mix) = name.strip_prefix("mix-") else { return vec![(name, 1.0)] };
    let part = |part| {
        let (weight, name) = str::split_at(part, part.find(char::is_alphabetic)?);
        Some((name, weight.parse().ok()?))
    };
    mix.split('-').map(|text| part(text).expect("a weight and a name")).collect()
}

/// Waits for `tokens` more of the answer, or its end.
pub(crate) fn listen(stream: &mut EventStream, answer: &mut Answer, tokens: usize) {
    let wanted = answer.tokens.len().saturating_add(tokens);
    while answer.tokens.len() < wanted {
        match stream.blocking_recv() {
            Some(Event::Started { .. } | Event::Prompt { .. } | Event::Output { .. }) => {}
            Some(Event::Token { id, logprobs }) => {
                answer.tokens.push(id);
                answer.logprobs.extend(logprobs);
            }
            Some(Event::Finished { .. }) | None => return,
            Some(Event::Failed(error)) => panic!("{error}"),
        }
    }
}

/// How many tokens come before the first one that another order of additions could change.
fn safe(margins: &Value) -> usize {
    let margins = margins.as_array().expect("a list");
    let narrow = margins.iter().position(|margin| margin.as_f64().expect("a number") < 5e-3);
    narrow.unwrap_or(margins.len())
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

fn numbers(list: &Value) -> Vec<u32> {
    let number = |value: &Value| value.as_u64().expect("a token") as u32;
    list.as_array().expect("a list").iter().map(number).collect()
}
