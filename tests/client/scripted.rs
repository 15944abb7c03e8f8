//! An engine that does what the test tells it to, behind the real HTTP server.
use futures_util::{FutureExt, future::BoxFuture};
use lorad::{
    adapter::{AdapterConfig, AdapterError, AdapterLease, AdapterRef, AdapterRegistry},
    engine::{
        EngineError, EngineSnapshot, Event, EventStream, FinishReason, Submission, TokenLogprobs,
    },
    generation::{
        Abilities, Backend, Generator, ModelCard, SamplingOptions, TextSetup, ToolCallSetting,
    },
    http::{AppState, HttpConfig},
    kernel::KernelError,
    lora::{FrozenBase, LoraLayout, Site},
    telemetry::Metrics,
};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

const TOKENIZER: &[u8] = include_bytes!("../golden/llama/tokenizer.json");
const TEMPLATE: &str = include_str!("../golden/llama/chat_template.jinja");

/// What the engine does with a submission.
pub(crate) enum Script {
    /// Says a token for every token asked for, at once.
    Echo,
    /// Refuses.
    Refuse(EngineError),
    /// Says one token, then fails.
    Fail,
    /// Says one token and gives the test the rest to say.
    Hold(UnboundedSender<UnboundedSender<Event>>),
    /// Panics.
    Panic,
    /// Has been at its step for a minute.
    Hang,
    /// Says these texts, one a submission, token by token.
    Say(Mutex<VecDeque<Vec<u32>>>),
}

impl Script {
    /// Says `texts`, one a submission.
    pub(crate) fn say(texts: &[&str]) -> Self {
        Self::Say(Mutex::new(texts.iter().map(|text| tokens(text)).collect()))
    }
}

/// The tokens of `text`.
pub(crate) fn tokens(text: &str) -> Vec<u32> {
    tokenizer().encode(text, false).expect("tokens").get_ids().to_vec()
}

struct Engine(Script);

impl Backend for Engine {
    fn lease<'a>(
        &'a self,
        wanted: &'a AdapterRef,
    ) -> BoxFuture<'a, Result<AdapterLease, AdapterError>> {
        async { Err(AdapterError::NotFound(wanted.name.clone())) }.boxed()
    }

    fn submit(&self, submission: Submission) -> Result<EventStream, EngineError> {
        let (sender, stream) = unbounded_channel();
        let send = |event| sender.send(event).expect("the stream lives");
        match &self.0 {
            Script::Refuse(error) => return Err(error.clone()),
            Script::Panic => panic!("told to"),
            Script::Echo => {
                for _ in 0..submission.sampling.options().max_tokens {
                    send(token());
                }
                send(finished());
            }
            Script::Fail => {
                send(token());
                send(Event::Failed(EngineError::Step));
            }
            Script::Hang => {}
            Script::Say(texts) => {
                let said = texts.lock().expect("no panic").pop_front().expect("a text");
                let wants = submission.sampling.options().logprobs.is_some();
                let logprobs =
                    || wants.then(|| TokenLogprobs { chosen: -0.5, rank: 1, top: Vec::new() });
                let most = submission.sampling.options().max_tokens;
                let is_cut = said.len() > most;
                for id in said.into_iter().take(most) {
                    send(Event::Token { id, logprobs: logprobs() });
                }
                let reason =
                    if is_cut { FinishReason::Length } else { FinishReason::EndOfSequence };
                send(Event::Finished { reason });
            }
            Script::Hold(test) => {
                send(token());
                test.send(sender).expect("the test waits");
            }
        }
        Ok(stream)
    }

    fn snapshot(&self) -> EngineSnapshot {
        EngineSnapshot { kv_blocks: 8, block_size: 16, ..EngineSnapshot::default() }
    }

    fn step_time(&self) -> Duration {
        if matches!(self.0, Script::Hang) { Duration::from_mins(1) } else { Duration::ZERO }
    }

    fn is_alive(&self) -> bool {
        !matches!(self.0, Script::Refuse(EngineError::Stopped))
    }
}

fn token() -> Event {
    Event::Token { id: 75, logprobs: None }
}

fn finished() -> Event {
    Event::Finished { reason: FinishReason::Length }
}

/// A base that no adapter can change.
struct NoLayers(LoraLayout);

impl FrozenBase for NoLayers {
    fn layout(&self) -> &LoraLayout {
        &self.0
    }

    fn weight_rows(&self, site: Site, _: Range<usize>) -> Result<Vec<f32>, KernelError> {
        Err(KernelError::Mismatch { operation: "weight", detail: format!("no {site}") })
    }

    fn embedding_rows(&self, _: Range<usize>) -> Result<Vec<f32>, KernelError> {
        Err(KernelError::Mismatch { operation: "embedding", detail: "no table".into() })
    }

    fn bias(&self, _: Site) -> Option<&[f32]> {
        None
    }
}

/// The tokenizer of `golden/llama`, and marks of tool calls that steer the model as tokens of their own.
fn tokenizer() -> tokenizers::Tokenizer {
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(TOKENIZER).expect("a tokenizer");
    let marks = ["[TOOL_CALLS]", "<|python_tag|>"];
    let marks = marks.map(|mark| tokenizers::AddedToken::from(mark, true));
    tokenizer.add_special_tokens(marks).expect("two tokens");
    tokenizer
}

/// A server's state with this engine, the tokenizer and the template of `golden/llama`, and no adapters.
pub(crate) fn scripted(script: Script, config: HttpConfig) -> AppState {
    templated(script, config, TEMPLATE, ToolCallSetting::Auto, 256)
}

/// The same with a template for tools, a setting for them, and room for both.
pub(crate) fn with_tools(script: Script, template: &str, tool_calls: ToolCallSetting) -> AppState {
    templated(script, HttpConfig::default(), template, tool_calls, 4096)
}

fn templated(
    script: Script,
    config: HttpConfig,
    template: &str,
    tool_calls: ToolCallSetting,
    max_context: usize,
) -> AppState {
    let text = TextSetup {
        tokenizer: tokenizer(),
        chat_template: Some(template.into()),
        special_tokens: BTreeMap::new(),
        add_bos: None,
        sampling: SamplingOptions::default(),
        tool_calls,
    };
    let (name, root) = ("tiny".to_owned(), "tiny".to_owned());
    let aliases = vec!["twin".to_owned()];
    let (device, precision) = ("cpu".to_owned(), "f32".to_owned());
    let vocab = 322;
    let card = ModelCard {
        name,
        aliases,
        root,
        max_context,
        vocab,
        device,
        precision,
        abilities: Abilities::default(),
    };
    let metrics = Metrics::new("tiny");
    let generator = Generator::new(Arc::new(Engine(script)), text, card, metrics.clone());
    let base = Arc::new(NoLayers(LoraLayout::default()));
    let registry = AdapterRegistry::new(base, &AdapterConfig::default(), None);
    AppState::new(generator.expect("a service"), registry, metrics, config)
}
