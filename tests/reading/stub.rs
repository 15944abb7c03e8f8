//! An engine that says what the test tells it to, behind a service that reads.
use futures_util::{FutureExt, future::BoxFuture};
use lorad::{
    adapter::{AdapterError, AdapterLease, AdapterRef, AdapterVersion, VersionId},
    engine::{EngineError, EngineSnapshot, Event, EventStream, FinishReason, Submission},
    generation::{
        Abilities, Backend, EmbeddingSetup, EncodeConfig, EncodeInput, EncodeRequest, Generator,
        HeadKind, Labels, ModelCard, Pooling, Priority, Reading, SamplingOptions, TextSetup,
        ToolCallSetting, Truncation, Wanted, WeightedAdapter,
    },
    lora::{ClassHead, LoraWeights},
    telemetry::Metrics,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Tokens of the longest text.
pub(crate) const CONTEXT: usize = 16;
/// Bert's kind of tokenizer: `[CLS]` is 2, `[SEP]` 3.
pub(crate) const TOKENIZER: &[u8] = include_bytes!("../golden/bert_embed/tokenizer.json");

/// What the engine gives for a text.
type Answer = dyn Fn(&Submission) -> Event + Send + Sync;

/// Answers at once, or keeps what it is given until the test has it answered.
pub(crate) struct Stub {
    pub(crate) submissions: Mutex<Vec<Submission>>,
    held: Mutex<Vec<UnboundedSender<Event>>>,
    pub(crate) leases: Mutex<usize>,
    pub(crate) answer: Option<Box<Answer>>,
    /// Texts that there is room for at a time.
    pub(crate) places: usize,
    /// Most texts that were there at the same time.
    pub(crate) most: Mutex<usize>,
}

impl Stub {
    /// For each text what `answer` says, at once.
    pub(crate) fn saying(
        answer: impl Fn(&Submission) -> Vec<f32> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::telling(move |submission| Event::Output { values: answer(submission) })
    }

    /// The same with any event.
    pub(crate) fn telling(
        answer: impl Fn(&Submission) -> Event + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { answer: Some(Box::new(answer)), ..Self::new(usize::MAX) })
    }

    /// Holds what comes, so many at a time.
    pub(crate) fn holding(places: usize) -> Arc<Self> {
        Arc::new(Self::new(places))
    }

    fn new(places: usize) -> Self {
        let (submissions, held, leases, most) = Default::default();
        Self { submissions, held, leases, answer: None, places, most }
    }

    pub(crate) fn submissions(&self) -> MutexGuard<'_, Vec<Submission>> {
        self.submissions.lock().unwrap()
    }

    /// Those that wait now.
    pub(crate) fn held(&self) -> usize {
        self.held.lock().unwrap().iter().filter(|sender| !sender.is_closed()).count()
    }

    /// Reads the text that has waited longest, which then is `values`.
    pub(crate) fn release(&self, values: Vec<f32>) {
        let sender = self.held.lock().unwrap().remove(0);
        read(&sender, Event::Output { values });
    }

    /// The same of the one that came last.
    pub(crate) fn release_last(&self, values: Vec<f32>) {
        let sender = self.held.lock().unwrap().pop().unwrap();
        read(&sender, Event::Output { values });
    }

    /// Takes a place for somebody else's text.
    pub(crate) fn occupy(&self, places: usize) -> Vec<EventStream> {
        let one = |_| {
            let (sender, stream) = unbounded_channel();
            self.held.lock().unwrap().push(sender);
            stream
        };
        (0..places).map(one).collect()
    }
}

/// All that is said of a text.
fn read(sender: &UnboundedSender<Event>, event: Event) {
    let started = Event::Started { cached_tokens: 1, queued: Duration::from_millis(3) };
    let fails = matches!(event, Event::Failed(_));
    let end = (!fails).then_some(Event::Finished { reason: FinishReason::Length });
    for event in [started, event].into_iter().chain(end) {
        // A caller that has gone hears nothing.
        let _ = sender.send(event);
    }
}

/// `classifier` labels texts, `tagger` tokens, `judge` gives one score; the others change embeddings.
fn weights(name: &str) -> LoraWeights {
    let mut weights = LoraWeights::default();
    let labels = match name {
        "classifier" => labels(HeadKind::Sequence, &["no", "yes"]),
        "tagger" => labels(HeadKind::Token, &["O", "B-PER", "I-PER"]),
        "judge" => {
            Labels { reading: Reading::Independent, ..labels(HeadKind::Sequence, &["fits"]) }
        }
        "late" => {
            weights.set_invocation([7_u32]);
            labels(HeadKind::Sequence, &["no", "yes"])
        }
        _ => return weights,
    };
    let shape = (labels.names.len(), 2);
    let weight =
        candle_core::Tensor::zeros(shape, candle_core::DType::F32, &candle_core::Device::Cpu);
    weights.set_class_head(ClassHead { labels, weight: weight.unwrap(), bias: None });
    weights
}

pub(crate) fn labels(kind: HeadKind, names: &[&str]) -> Labels {
    let names = names.iter().map(ToString::to_string).collect();
    Labels { kind, names, reading: Reading::OneOf }
}

impl Backend for Stub {
    fn lease<'a>(
        &'a self,
        wanted: &'a AdapterRef,
    ) -> BoxFuture<'a, Result<AdapterLease, AdapterError>> {
        *self.leases.lock().unwrap() += 1;
        let name = wanted.name.clone();
        let result = if name.as_str() == "nobody" {
            Err(AdapterError::NotFound(name))
        } else {
            let id = VersionId::of(&[name.as_str().as_bytes()]);
            let weights = weights(name.as_str());
            Ok(AdapterLease::new(name, Arc::new(AdapterVersion { id, weights })))
        };
        async { result }.boxed()
    }

    fn submit(&self, submission: Submission) -> Result<EventStream, EngineError> {
        let waiting = self.held();
        if waiting >= self.places {
            return Err(EngineError::Overloaded { waiting });
        }
        let (sender, stream) = unbounded_channel();
        match &self.answer {
            Some(answer) => read(&sender, answer(&submission)),
            None => self.held.lock().unwrap().push(sender),
        }
        let mut most = self.most.lock().unwrap();
        *most = (*most).max(self.held());
        self.submissions().push(submission);
        Ok(stream)
    }

    fn snapshot(&self) -> EngineSnapshot {
        EngineSnapshot::default()
    }

    fn is_alive(&self) -> bool {
        true
    }
}

/// A base that only reads: embeddings of four numbers, and no head of its own.
pub(crate) fn embeds() -> Abilities {
    let prompts = [("query", "the "), ("plain", "")];
    let embedding = EmbeddingSetup {
        pooling: Pooling::Mean,
        normalize: true,
        dimensions: 4,
        shortens: true,
        max_tokens: None,
        prompts: prompts.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
        default_prompt: None,
    };
    Abilities { generates: false, embedding: Some(embedding), labels: None }
}

/// One that labels texts and does nothing else.
pub(crate) fn labels_texts(labels: Labels) -> Abilities {
    Abilities { generates: false, embedding: None, labels: Some(labels) }
}

pub(crate) fn tokenizer() -> tokenizers::Tokenizer {
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(TOKENIZER).unwrap();
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).unwrap();
    tokenizer
}

/// The service, and where it counts.
pub(crate) fn service(stub: &Arc<Stub>, abilities: Abilities) -> (Generator, Metrics) {
    let text = TextSetup {
        tokenizer: tokenizers::Tokenizer::from_bytes(TOKENIZER).unwrap(),
        chat_template: None,
        special_tokens: BTreeMap::new(),
        add_bos: None,
        sampling: SamplingOptions::default(),
        tool_calls: ToolCallSetting::Auto,
    };
    let model = ModelCard {
        name: "tiny".into(),
        aliases: Vec::new(),
        root: "tiny".into(),
        max_context: CONTEXT,
        vocab: tokenizer().get_vocab_size(true),
        device: "cpu".into(),
        precision: "f32".into(),
        abilities,
    };
    let metrics = Metrics::new("tiny");
    let generator = Generator::new(stub.clone(), text, model, metrics.clone()).unwrap();
    let config = EncodeConfig { window: 4, ..EncodeConfig::default() };
    (generator.reading_as(config), metrics)
}

pub(crate) fn reader(stub: &Arc<Stub>) -> Generator {
    service(stub, embeds()).0
}

pub(crate) fn named(adapters: &[&str]) -> Vec<WeightedAdapter> {
    let one = |name: &&str| WeightedAdapter {
        adapter: name.parse().unwrap(),
        weight: 1.0,
        field: format!("the field of {name}"),
    };
    adapters.iter().map(one).collect()
}

pub(crate) fn embedding() -> Wanted {
    Wanted::Embedding { normalize: None, dimensions: None, prompt: None }
}

pub(crate) fn texts(texts: &[&str], wanted: Wanted) -> EncodeRequest {
    EncodeRequest {
        inputs: texts.iter().map(|text| EncodeInput::Text((*text).to_owned())).collect(),
        field: "input",
        add_special_tokens: true,
        adapters: Vec::new(),
        wanted,
        truncation: Truncation::default(),
        priority: Priority::Normal,
    }
}
