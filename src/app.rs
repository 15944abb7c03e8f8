//! Puts the rooms together: settings in, a server that can be run out.
use crate::{
    adapter::{
        AdapterConfig, AdapterError, AdapterLease, AdapterName, AdapterRef, AdapterRegistry,
        Departure, LoraModuleError, NameKeeper, PublishRule, SwapPolicy,
        alias::{AliasError, Aliases},
        upload::Staging,
    },
    config::ServeConfig,
    demo,
    engine::{EngineError, EngineHandle, EngineSnapshot, EventStream, ModelRunner, Submission},
    generation::{
        Abilities, Backend, EmbeddingSetup, EncodeConfig, GenerateError, Generator, ModelCard,
        SamplingOptions, TextSetup,
    },
    http::{self, AppState, Entrance},
    kernel::{self, KernelError, Kernels},
    lora::{FrozenBase, LoraLayout},
    model::{
        self, BaseWeights, EmbeddingFacts, LoadOptions, LoadedModel, ModelError, ModelFacts,
        ModelSource, Progress, SamplingDefaults,
    },
    telemetry::{Metrics, Traces, TracesError},
};
use futures_util::{FutureExt, future::BoxFuture};
use std::{
    future::Future,
    io,
    net::TcpListener,
    path::Path,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The device.
    #[error("the device cannot be used")]
    Kernel(#[from] KernelError),
    /// The KV cache or the adapters' slots.
    #[error("the engine cannot be set up")]
    Engine(#[source] KernelError),
    /// The base model.
    #[error("the base model cannot be loaded")]
    Model(#[from] ModelError),
    /// The directory of adapters, or one of the embedded ones.
    #[error("the adapters cannot be loaded")]
    Adapter(#[from] AdapterError),
    /// One of those that the settings name.
    #[error("an adapter of the settings cannot be served")]
    Module(#[from] LoraModuleError),
    /// What is stored of aliases.
    #[error("the aliases cannot be loaded")]
    Alias(#[from] AliasError),
    /// The tokenizer or the chat template.
    #[error("the model's text files cannot be used")]
    Text(#[from] GenerateError),
    /// The way to the collector.
    #[error("traces cannot be sent")]
    Traces(#[from] TracesError),
    /// A thread or a socket.
    #[error("the operating system refused")]
    Io(#[from] io::Error),
}

/// A server with its model loaded and its engine running.
pub struct App {
    state: AppState,
    engine: EngineHandle,
    base: BaseWeights,
    /// How often to look for what others have written to the store.
    refresh: Duration,
}

impl App {
    /// Loads the base model and the adapters, and starts the engine. Blocks.
    ///
    /// # Errors
    /// See [`AppError`].
    pub fn build(config: &ServeConfig) -> Result<Self, AppError> {
        let traces = Traces::start(&config.traces)?;
        let kernels = kernel::open(&config.kernel)?;
        tracing::info!(device = kernels.describe(), "computing");
        let source = source(config)?;
        let LoadedModel { lm, weights: base, facts, text, embedding } =
            load(&source, config, kernels.as_ref())?;
        log_facts(&facts);
        let device = kernels.device();
        let runner = ModelRunner::new(lm, kernels, &config.engine).map_err(AppError::Engine)?;
        let engine = EngineHandle::spawn(runner, &config.engine, text.eos_ids.clone())?;
        let abilities = abilities(base.layout(), embedding);
        let card = model_card(config, &source, &facts, (&engine, device), abilities);
        let registry = registry(Arc::new(base.clone()), &config.adapter, &source, &engine, &card)?;
        let metrics = Metrics::with(&card.name, card.max_context, &config.metrics);
        let setup = TextSetup {
            tokenizer: text.tokenizer,
            chat_template: text.chat_template,
            special_tokens: text.special_tokens,
            add_bos: text.add_bos,
            sampling: sampling(text.sampling),
            tool_calls: config.tool_calls.tool_call_format,
        };
        let rooms = Arc::new(Rooms { registry: registry.clone(), engine: engine.clone() });
        let generator = Generator::new(rooms, setup, card, metrics.clone())?;
        let generator = generator.reading_as(reading(config));
        log_tools(&generator);
        let staging = staging(registry.objects().directory())?;
        let aliases = aliases(&registry, &generator.model().name)?;
        for module in config.adapter.lora_modules.iter().flat_map(|modules| &modules.0) {
            module.publish(&registry)?;
        }
        let state = AppState::new(generator, registry, metrics, config.http.clone());
        let state = state.with_staging(staging).with_aliases(aliases).with_traces(traces);
        let seconds = config.adapter.adapter_refresh_seconds;
        let refresh = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Ok(Self { state, engine, base, refresh })
    }

    /// The base's weights, for whoever wants to see that they stay the same.
    pub fn base(&self) -> &BaseWeights {
        &self.base
    }

    /// What the routes work on.
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// Answers on `listener` until `shutdown`, then lets running requests finish.
    ///
    /// # Errors
    /// When the listener fails, and when the engine ends before its time.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let (config, entrance) = (self.state.config.clone(), Entrance::default());
        let listening = http::listen(listener, &config, entrance.clone(), shutdown);
        self.serve_at(entrance, listening).await
    }

    /// The same behind a door where somebody listens already.
    ///
    /// # Errors
    /// As [`App::serve`].
    pub async fn serve_at(
        self,
        entrance: Entrance,
        listening: impl Future<Output = io::Result<()>>,
    ) -> io::Result<()> {
        let traces = self.state.traces.clone();
        entrance.open(self.state.clone());
        let upkeep = tokio::spawn(self.state.registry.clone().keep_up(self.refresh));
        let follow = tokio::spawn(self.state.aliases.clone().keep_up(self.refresh));
        let mut listening = pin!(listening);
        let served = tokio::select! {
            served = &mut listening => served,
            // What it worked on has failed; nothing can be answered any more, and a new process could.
            () = self.engine.ended() => {
                entrance.close();
                listening.await.and(Err(io::Error::other("the engine has ended; see the log")))
            }
        };
        upkeep.abort();
        follow.abort();
        self.engine.drain();
        tokio::task::spawn_blocking(move || traces.finish()).await.map_err(io::Error::other)?;
        served
    }
}

/// As many texts of one request at a time as keep the engine busy, and never the whole queue.
fn reading(config: &ServeConfig) -> EncodeConfig {
    let engine = &config.engine;
    let window = engine.max_sequences.saturating_mul(2).min(engine.max_waiting.div_ceil(2));
    EncodeConfig { window, ..config.encode }
}

fn source(config: &ServeConfig) -> Result<ModelSource, ModelError> {
    match config.model.named()? {
        Some(_) => config.model.source(),
        None => Ok(ModelSource::Embedded(demo::BASE)),
    }
}

fn load(
    source: &ModelSource,
    config: &ServeConfig,
    kernels: &dyn Kernels,
) -> Result<LoadedModel, ModelError> {
    let options = LoadOptions {
        precision: config.kernel.precision,
        kv_precision: config.kernel.kv_precision,
        max_positions: config.model.max_model_len,
        kv_cache_bytes: Some(config.engine.kv_cache_bytes.0),
        pooling: config.model.pooling,
        progress: Progress::Shown,
    };
    model::load(source, kernels, &options)
}

/// The makers' settings over neutral ones.
fn sampling(makers: SamplingDefaults) -> SamplingOptions {
    let neutral = SamplingOptions::default();
    let or = |value: Option<f64>, neutral: f32| value.map_or(neutral, |value| value as f32);
    SamplingOptions {
        temperature: or(makers.temperature, neutral.temperature),
        top_p: or(makers.top_p, neutral.top_p),
        top_k: makers.top_k.map_or(neutral.top_k, |top_k| top_k as usize),
        repetition_penalty: or(makers.repetition_penalty, neutral.repetition_penalty),
        ..neutral
    }
}

fn log_facts(facts: &ModelFacts) {
    tracing::info!(
        model = facts.name,
        architecture = facts.architecture,
        parameters = facts.parameters,
        weight_bytes = facts.weight_bytes,
        precision = %facts.precision,
        kv_precision = %facts.kv_precision,
        max_positions = facts.max_positions,
        "base model loaded"
    );
}

/// How tools are called, or why they cannot be.
fn log_tools(generator: &Generator) {
    match generator.tool_calls() {
        Ok(calls) => tracing::info!(format = calls.format().as_str(), "tools can be called"),
        Err(error) => tracing::info!(reason = %error, "tools cannot be called"),
    }
}

fn model_card(
    config: &ServeConfig,
    source: &ModelSource,
    facts: &ModelFacts,
    (engine, device): (&EngineHandle, &str),
    abilities: Abilities,
) -> ModelCard {
    let root = match source {
        ModelSource::Embedded(_) => demo::NAME.to_owned(),
        _ => facts.name.clone(),
    };
    let mut names = config.model.served_model_name.iter().cloned();
    ModelCard {
        name: names.next().unwrap_or_else(|| root.clone()),
        aliases: names.collect(),
        root,
        max_context: engine.max_sequence_tokens(),
        vocab: facts.vocab,
        device: device.to_owned(),
        precision: facts.precision.to_string(),
        abilities,
    }
}

/// What the base can be asked for.
fn abilities(layout: &LoraLayout, embedding: Option<EmbeddingFacts>) -> Abilities {
    let setup = |facts: EmbeddingFacts| EmbeddingSetup {
        pooling: facts.pooling,
        normalize: facts.normalize,
        dimensions: facts.dimensions,
        shortens: facts.shortens,
        max_tokens: facts.max_tokens,
        prompts: facts.prompts,
        default_prompt: facts.default_prompt,
    };
    Abilities {
        generates: layout.generates(),
        embedding: embedding.map(setup),
        labels: layout.class_head().and_then(|head| head.base.clone()),
    }
}

/// The registry with everything that is there at start: the directory's adapters, or the embedded ones.
fn registry(
    base: Arc<dyn FrozenBase>,
    config: &AdapterConfig,
    source: &ModelSource,
    engine: &EngineHandle,
    card: &ModelCard,
) -> Result<AdapterRegistry, AppError> {
    let (registry, report) = AdapterRegistry::open(config, base, &card.name)?;
    registry.consult(Arc::new(BaseNames(card.aliases.clone())));
    let forgetful = engine.clone();
    registry.on_departure(move |departure| {
        end(&forgetful, departure);
        if departure.last {
            forgetful.forget(departure.version);
        }
    });
    if config.adapters.is_some() {
        let (loaded, skipped) = (report.loaded.len(), report.skipped.len());
        tracing::info!(loaded, skipped, "adapters read");
    } else if matches!(source, ModelSource::Embedded(_)) {
        for (name, files) in demo::adapters() {
            registry.publish_blocking(&name, &files, PublishRule::Create)?;
        }
    }
    Ok(registry)
}

/// Ends the requests of a version under the name that means it no more, when its owner wants that.
fn end(engine: &EngineHandle, departure: &Departure) {
    match departure.policy {
        SwapPolicy::Pin => {}
        // A time beyond all times is never.
        SwapPolicy::Drain(time) => {
            if let Some(at) = Instant::now().checked_add(time) {
                engine.end(departure.name.clone(), departure.version, Some(at));
            }
        }
        SwapPolicy::Cancel => engine.end(departure.name.clone(), departure.version, None),
    }
}

/// Where uploads wait: beside the adapters that they become, or where that may not be written, with the system's
/// temporary files.
fn staging(adapters: Option<&Path>) -> io::Result<Staging> {
    let Some(directory) = adapters else { return Staging::temporary() };
    Staging::open(&directory.join(".lorad/incoming")).or_else(|error| {
        tracing::warn!(%error, "uploads wait in the system's temporary directory");
        Staging::temporary()
    })
}

/// The aliases that lie beside the registry's adapters, and a say for them in what adapters are called.
fn aliases(registry: &AdapterRegistry, base: &str) -> Result<Aliases, AppError> {
    let store = registry.is_durable().then(|| Arc::clone(registry.objects()));
    let aliases = Aliases::new(base, store);
    aliases.refresh()?;
    registry.consult(Arc::new(aliases.clone()));
    Ok(aliases)
}

/// The base's other names, which no adapter may have.
struct BaseNames(Vec<String>);

impl NameKeeper for BaseNames {
    fn may_publish(&self, name: &AdapterName) -> Result<(), AdapterError> {
        if self.0.iter().any(|base| name.as_str().eq_ignore_ascii_case(base)) {
            let message = format!("`{name}` is a name of the base model; an adapter needs another");
            return Err(AdapterError::InvalidName(message));
        }
        Ok(())
    }

    fn may_retire(&self, _: &AdapterName) -> Result<(), AdapterError> {
        Ok(())
    }
}

/// The generator's view of the registry and the engine.
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
        self.engine.snapshot()
    }

    fn is_alive(&self) -> bool {
        self.engine.is_alive()
    }

    fn step_time(&self) -> Duration {
        self.engine.step_time()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        config: ServeConfig,
    }

    #[tokio::test]
    async fn a_server_whose_engine_ends_before_its_time_ends_with_an_error() {
        let line = Line::parse_from(["lorad", "--threads=1", "--kv-cache-bytes=8MiB"]);
        let app = App::build(&line.config).expect("the demo");
        let engine = app.engine.clone();
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let serving = tokio::spawn(app.serve(listener, std::future::pending()));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!serving.is_finished(), "it serves for as long as the engine lives");
        // As a panic does: the thread is gone, and nobody has asked the server to end.
        engine.drain();
        let served = tokio::time::timeout(Duration::from_secs(20), serving).await.expect("an end");
        let error = served.expect("no panic").expect_err("not a clean end");
        assert!(error.to_string().contains("the engine has ended"), "{error}");
    }
}
