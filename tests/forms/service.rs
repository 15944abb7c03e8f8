//! The text service with an engine that only keeps the forms it is given.
use futures_util::{FutureExt, future::BoxFuture};
use lorad::{
    adapter::{AdapterError, AdapterLease, AdapterRef},
    engine::{EngineError, EngineSnapshot, EventStream, Submission, TokenConstraint},
    generation::{
        Abilities, AnswerForm, Backend, Constraint, GenerateError, GenerateRequest, Generator,
        ModelCard, Priority, Prompt, SamplingOptions, TextSetup, ToolCallSetting,
    },
    telemetry::Metrics,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokenizers::Tokenizer;
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc::unbounded_channel,
};

/// A form of one answer.
pub(crate) type Form = Box<dyn TokenConstraint>;

#[derive(Default)]
struct Keeper(Mutex<Vec<Form>>);

impl Backend for Keeper {
    fn lease<'a>(
        &'a self,
        wanted: &'a AdapterRef,
    ) -> BoxFuture<'a, Result<AdapterLease, AdapterError>> {
        async { Err(AdapterError::NotFound(wanted.name.clone())) }.boxed()
    }

    fn submit(&self, submission: Submission) -> Result<EventStream, EngineError> {
        self.0.lock().expect("no panic").extend(submission.constraint);
        Ok(unbounded_channel().1)
    }

    fn snapshot(&self) -> EngineSnapshot {
        EngineSnapshot::default()
    }

    fn is_alive(&self) -> bool {
        true
    }
}

/// Compiles forms for one tokenizer.
pub(crate) struct Forms {
    keeper: Arc<Keeper>,
    pub(crate) generator: Generator,
    tokenizer: Tokenizer,
    pub(crate) runtime: Runtime,
    /// Held from a request to its forms.
    turn: Mutex<()>,
    pub(crate) vocab: usize,
}

impl Forms {
    /// With more ids than the tokenizer has tokens, as models have.
    pub(crate) fn of(tokenizer: &[u8]) -> Self {
        Self::counted(tokenizer, Metrics::new("x"))
    }

    /// The same, with metrics that somebody reads.
    pub(crate) fn counted(tokenizer: &[u8], metrics: Metrics) -> Self {
        let tokenizer = Tokenizer::from_bytes(tokenizer).expect("a tokenizer");
        let vocab = tokenizer.get_vocab_size(true) + 13;
        let text = TextSetup {
            tokenizer: tokenizer.clone(),
            chat_template: None,
            special_tokens: BTreeMap::new(),
            add_bos: None,
            sampling: SamplingOptions::default(),
            tool_calls: ToolCallSetting::Auto,
        };
        let keeper = Arc::new(Keeper::default());
        let (name, root) = ("x".to_owned(), "x".to_owned());
        let (aliases, max_context) = (Vec::new(), 4096);
        let (device, precision) = ("cpu".to_owned(), "f32".to_owned());
        let model = ModelCard {
            name,
            aliases,
            root,
            max_context,
            vocab,
            device,
            precision,
            abilities: Abilities::default(),
        };
        let generator = Generator::new(keeper.clone(), text, model, metrics);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build();
        let (generator, runtime) = (generator.expect("a service"), runtime.expect("threads"));
        Self { keeper, generator, tokenizer, runtime, turn: Mutex::default(), vocab }
    }

    /// `n` of this form.
    pub(crate) fn compile_all(
        &self,
        form: AnswerForm,
        n: usize,
    ) -> Result<Vec<Form>, GenerateError> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.runtime.block_on(self.generator.generate(request(form, n)))?;
        let forms = std::mem::take(&mut *self.keeper.0.lock().expect("no panic"));
        drop(turn);
        Ok(forms)
    }

    pub(crate) fn compile(&self, form: AnswerForm) -> Result<Form, GenerateError> {
        Ok(self.compile_all(form, 1)?.remove(0))
    }

    pub(crate) fn ids(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode_fast(text, false).expect("tokens").get_ids().to_vec()
    }
}

pub(crate) fn request(form: AnswerForm, n: usize) -> GenerateRequest {
    GenerateRequest {
        prompt: Prompt::Tokens(vec![5]),
        adapters: Vec::new(),
        sampling: SamplingOptions::default(),
        max_tokens: Some(100),
        default_max_tokens: None,
        stop: Vec::new(),
        include_stop: false,
        skip_special_tokens: true,
        n,
        truncate_prompt_tokens: None,
        shows_prompt: false,
        cache_salt: None,
        bad_words: Vec::new(),
        constraint: Some(Constraint { form, field: "field".into() }),
        priority: Priority::Normal,
    }
}
