//! The real rooms behind a tiny model of `tests/golden`.
use futures_util::{FutureExt, future::BoxFuture};
use lorad::{
    adapter::{
        AdapterError, AdapterFiles, AdapterLease, AdapterLimits, AdapterRef, AdapterRegistry,
        PublishRule,
    },
    engine::{
        ByteSize, EngineConfig, EngineError, EngineHandle, EngineSnapshot, EventStream,
        ModelRunner, Submission,
    },
    generation::{Backend, Generator, ModelCard, TextSetup},
    http::{AppState, HttpConfig},
    kernel::{self, DeviceChoice, KernelConfig, Precision},
    model::{self, LoadOptions, ModelSource, Progress},
    telemetry::Metrics,
};
use serde_json::Value;
use std::{fs, num::NonZeroUsize, path::PathBuf, sync::Arc};

/// Registry and engine as the generator sees them.
struct Rooms {
    registry: AdapterRegistry,
    engine: EngineHandle,
}

impl Backend for Rooms {
    fn lease<'a>(
        &'a self,
        wanted: &'a AdapterRef,
    ) -> BoxFuture<'a, Result<AdapterLease, AdapterError>> {
        self.registry.lease(wanted).boxed()
    }

    fn submit(&self, submission: Submission) -> Result<EventStream, EngineError> {
        self.engine.submit(submission)
    }

    fn snapshot(&self) -> EngineSnapshot {
        EngineSnapshot::clone(&self.engine.snapshot())
    }

    fn is_alive(&self) -> bool {
        self.engine.is_alive()
    }
}

/// A line of `golden.json`.
pub(crate) struct Case {
    pub(crate) adapter: Option<String>,
    pub(crate) prompt: Vec<u64>,
    pub(crate) greedy: Vec<u64>,
}

fn directory(base: &str) -> PathBuf {
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

/// A base of `tests/golden` with all its adapters, on one CPU thread in f32.
pub(crate) async fn golden(base: &str, config: HttpConfig) -> AppState {
    let device = DeviceChoice::Cpu;
    let threads = NonZeroUsize::new(1);
    let kernels = kernel::open(&KernelConfig { device, precision: Precision::F32, threads });
    let kernels = kernels.expect("a CPU");
    let options =
        LoadOptions { precision: Precision::F32, max_positions: None, progress: Progress::Hidden };
    let source = ModelSource::Directory(directory(base));
    let loaded = model::load(&source, kernels.as_ref(), &options).expect("a model");
    let card = ModelCard {
        name: loaded.facts.name.clone(),
        root: base.to_owned(),
        max_context: loaded.facts.max_positions,
        vocab: loaded.facts.vocab,
    };

    let layout = loaded.lm.lora_layout().clone();
    let registry = AdapterRegistry::new(layout, AdapterLimits::default(), None);
    for entry in fs::read_dir(directory(base).join("adapters")).expect("adapters") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        let files = adapter_files(base, &name);
        let name = name.parse().expect("a name");
        registry.publish(name, files, PublishRule::Create).await.expect("published");
    }

    let config_of_engine =
        EngineConfig { kv_cache_bytes: ByteSize(8 << 20), ..EngineConfig::default() };
    let runner = ModelRunner::new(loaded.lm, kernels, &config_of_engine).expect("a runner");
    let engine = EngineHandle::spawn(runner, &config_of_engine, loaded.text.eos_ids);
    let backend = Rooms { registry: registry.clone(), engine: engine.expect("a thread") };
    let text = TextSetup {
        tokenizer: loaded.text.tokenizer,
        chat_template: loaded.text.chat_template,
        special_tokens: loaded.text.special_tokens,
        add_bos: loaded.text.add_bos,
    };
    let metrics = Metrics::new(&card.name);
    let generator = Generator::new(Arc::new(backend), text, card, metrics.clone());
    AppState::new(generator.expect("a service"), registry, metrics, config)
}
