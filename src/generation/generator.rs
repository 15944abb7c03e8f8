//! From a request to running sequences: render, tokenise, check, lease, submit.
use super::{
    Abilities, Backend, EncodeConfig, EngineSnapshot, GenerateError, GenerateRequest, Generation,
    INLINE_BYTES, Prompt, SamplingOptions, SamplingParams, Token, Usage, WeightedAdapter,
    account::{self, Account},
    answer::Answer,
    bad_words,
    chat_template::{Chat, ChatTemplate},
    echo::{Added, Echo},
    grammar::{Form, Grammars},
    meter::Meter,
    text_stream::{TextOptions, TextStream},
    tokenizer::Tokenizer,
    tool_calls::{Seen, ToolCallSetting, ToolCalls, ToolSupport},
};
use crate::{
    adapter::AdapterLease,
    engine::{AdapterMix, EngineError, EventStream, Priority, Submission},
    telemetry::Metrics,
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Most answers to one prompt.
const MAX_ANSWERS: usize = 128;
/// Most stop strings of a request.
const MAX_STOP_STRINGS: usize = 32;
/// Longest stop string: its length bounds how far a stream's text lags behind its tokens.
const MAX_STOP_BYTES: usize = 1024;
/// As much work as a word that answers must not contain makes.
const WORD_BYTES: usize = 32;
/// More tokens are turned to text on a blocking thread.
const INLINE_TOKENS: usize = 8192;
/// What is only tokenised, or turned back, may be this many contexts long.
pub(super) const CONTEXTS: usize = 4;

/// The base model as clients know it.
#[derive(Clone, Debug)]
pub struct ModelCard {
    /// What requests call it.
    pub name: String,
    /// What they may call it too.
    pub aliases: Vec<String>,
    /// Where it came from: a hub id, a directory's or a file's name.
    pub root: String,
    /// Tokens that prompt and answer may have together: what the model was made for, or less
    /// where less fits the KV cache.
    pub max_context: usize,
    /// Width of the logits.
    pub vocab: usize,
    /// What it is computed on: `cpu`, `cuda` or `metal`.
    pub device: String,
    /// How its weights are kept: `f32`, `bf16`, `int8` or `int4`.
    pub precision: String,
    /// What it can be asked for.
    pub abilities: Abilities,
}

impl ModelCard {
    /// Every name that it has; the first one is its own.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name).chain(&self.aliases).map(String::as_str)
    }

    /// Whether `name` means it.
    pub fn is_called(&self, name: &str) -> bool {
        self.names().any(|own| own == name)
    }
}

/// What a checkpoint says about text.
#[derive(Clone)]
pub struct TextSetup {
    /// `tokenizer.json`, or what a GGUF file has in its place.
    pub tokenizer: tokenizers::Tokenizer,
    /// The Jinja2 template of conversations.
    pub chat_template: Option<String>,
    /// `bos_token`, `eos_token`, … as templates name them → the token.
    pub special_tokens: BTreeMap<String, String>,
    /// Whether a text begins with `bos_token`; `None` leaves it to the tokenizer's own rule.
    pub add_bos: Option<bool>,
    /// How the model's makers sample it; neutral where they do not say.
    pub sampling: SamplingOptions,
    /// How the model writes tool calls.
    pub tool_calls: ToolCallSetting,
}

/// The service. Cloning it is cheap.
#[derive(Clone)]
pub struct Generator(pub(super) Arc<Inner>, pub(super) EncodeConfig);

pub(super) struct Inner {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    grammars: Grammars,
    tools: ToolSupport,
    sampling: SamplingOptions,
    model: ModelCard,
    metrics: Metrics,
    /// Where requests that are nobody's are counted; it is never shown.
    unseen: Metrics,
}

impl Generator {
    /// # Errors
    /// When the tokenizer's decoder cannot stream, or the chat template is not a template.
    pub fn new(
        backend: Arc<dyn Backend>,
        text: TextSetup,
        model: ModelCard,
        metrics: Metrics,
    ) -> Result<Self, GenerateError> {
        let bos = text.special_tokens.get("bos_token").map(String::as_str);
        let tokenizer = Arc::new(Tokenizer::new(text.tokenizer, text.add_bos, bos)?);
        let template = text
            .chat_template
            .map(|source| ChatTemplate::compile(&source, text.special_tokens))
            .transpose()?;
        let grammars = Grammars::new(tokenizer.clone(), model.vocab, metrics.clone());
        let seen = template.as_ref().map(Seen::of).unwrap_or_default();
        let tools = ToolSupport::new(seen, text.tool_calls, |mark| tokenizer.special(mark));
        let inner = Inner {
            backend,
            tokenizer,
            template,
            grammars,
            tools,
            sampling: text.sampling,
            unseen: Metrics::new(&model.name),
            model,
            metrics,
        };
        Ok(Self(Arc::new(inner), EncodeConfig::default()))
    }

    /// The base model.
    pub fn model(&self) -> &ModelCard {
        &self.0.model
    }

    /// What a dialect may take for the sampling fields that a request leaves out.
    pub fn default_sampling(&self) -> &SamplingOptions {
        &self.0.sampling
    }

    /// Whether the model can be given conversations.
    pub fn has_chat_template(&self) -> bool {
        self.0.template.is_some()
    }

    /// How the model writes tool calls.
    ///
    /// # Errors
    /// When it cannot be given tools.
    pub fn tool_calls(&self) -> Result<&ToolCalls, GenerateError> {
        self.0.tools.calls()
    }

    /// What the engine did last.
    pub fn snapshot(&self) -> EngineSnapshot {
        self.0.backend.snapshot()
    }

    /// Whether the engine still takes requests.
    pub fn is_alive(&self) -> bool {
        self.0.backend.is_alive()
    }

    /// How long the engine has been at its present step; nothing while it waits for work.
    pub fn step_time(&self) -> Duration {
        self.0.backend.step_time()
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    /// When the tokenizer's own rules fail.
    pub async fn tokenize(
        &self,
        text: String,
        add_special_tokens: bool,
    ) -> Result<Vec<Token>, GenerateError> {
        self.tokenize_prompt(Prompt::Text { text, add_special_tokens }).await
    }

    /// The tokens of any prompt, a conversation's as the template renders it.
    ///
    /// # Errors
    /// When the template or the tokenizer refuse it.
    pub async fn tokenize_prompt(&self, prompt: Prompt) -> Result<Vec<Token>, GenerateError> {
        let is_short = size(&prompt) <= INLINE_BYTES;
        let described = |inner: &Inner| {
            let ids = inner.ids(prompt, Some(inner.model.max_context.saturating_mul(CONTEXTS)))?;
            Ok(ids.into_iter().map(|id| inner.tokenizer.token(id)).collect())
        };
        self.work(is_short, described).await
    }

    /// The text of `ids`, special tokens included.
    ///
    /// # Errors
    /// When the tokenizer has no such token, or there are more than any answer has.
    pub async fn detokenize(&self, ids: Vec<u32>) -> Result<String, GenerateError> {
        let most = self.0.model.max_context.saturating_mul(CONTEXTS);
        if ids.len() > most {
            let message = format!("`tokens` may have {most} tokens, not {}", ids.len());
            return Err(invalid("tokens", message));
        }
        let is_short = ids.len() <= INLINE_TOKENS;
        self.work(is_short, move |inner| inner.text(&ids)).await
    }

    /// Lets the tokenizer work on a text of any length that the model may be given, on a blocking thread.
    pub(super) async fn on_tokenizer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tokenizer) -> Result<T, GenerateError> + Send + 'static,
    ) -> Result<T, GenerateError> {
        self.work(false, move |inner| work(&inner.tokenizer)).await
    }

    /// Those that are text.
    pub(super) fn without_special(&self, mut ids: Vec<u32>) -> Vec<u32> {
        ids.retain(|id| !self.0.tokenizer.pieces().is_special(*id));
        ids
    }

    /// Starts the answers to a request.
    ///
    /// # Errors
    /// When a field is wrong, the prompt does not fit, the adapter cannot be had, or the engine is
    /// full or gone.
    pub async fn generate(&self, request: GenerateRequest) -> Result<Generation, GenerateError> {
        self.start(request, None).await
    }

    /// The same, with a version that was leased already beside the adapters that the request names.
    pub(super) async fn generate_with(
        &self,
        lease: AdapterLease,
        request: GenerateRequest,
    ) -> Result<Generation, GenerateError> {
        self.start(request, Some(lease)).await
    }

    async fn start(
        &self,
        request: GenerateRequest,
        leased: Option<AdapterLease>,
    ) -> Result<Generation, GenerateError> {
        self.check_base()?;
        check(&request)?;
        let GenerateRequest { prompt, adapters, mut sampling, n, bad_words, .. } = request;
        let shows_prompt = request.shows_prompt || sampling.prompt_logprobs.is_some();
        let is_short = size(&prompt) + bad_words.len() * WORD_BYTES <= INLINE_BYTES;
        let shown_tokens = self.shown_tokens(&prompt);
        // What is cut afterwards may be of any length.
        let fits = request.truncate_prompt_tokens.is_none();
        let most = fits.then_some(self.0.model.max_context);
        let work = move |inner: &Inner| {
            let text = spelled(&prompt).filter(|_| shows_prompt).map(ToOwned::to_owned);
            let ids = inner.ids(prompt, most)?;
            let added = text.map(|text| Added::around(&inner.tokenizer, &text, &ids));
            let bad_words = bad_words::runs(&inner.tokenizer, &bad_words)?;
            Ok((ids, added.unwrap_or_default(), bad_words))
        };
        let (mut prompt, added, bad_words) = self.work(is_short, work).await?;
        sampling.bad_words.extend(bad_words);
        if let Some(keep) = request.truncate_prompt_tokens {
            let keep = keep.min(self.room(request.max_tokens.unwrap_or(1)));
            prompt.drain(..prompt.len().saturating_sub(keep));
        }
        self.check_prompt(&prompt)?;
        let (asked, default) = (request.max_tokens, request.default_max_tokens);
        let max_tokens = self.budget(prompt.len(), asked, default)?;
        sampling.max_tokens = max_tokens;
        let options = TextOptions {
            stop: request.stop.into(),
            include_stop: request.include_stop,
            skip_special_tokens: request.skip_special_tokens,
            shown_tokens,
            min_tokens: sampling.min_tokens,
        };
        let echo = shows_prompt.then(|| {
            let tokenizer = self.0.tokenizer.clone();
            Echo::new(tokenizer, prompt.clone(), added, sampling.prompt_logprobs, n)
        });
        let sampling = self.sampling(&sampling, n)?;
        let form = match request.constraint {
            Some(wanted) => Some(self.0.grammars.form(wanted).await?),
            None => None,
        };
        let fields: Vec<_> = adapters.iter().map(|adapter| adapter.field.clone()).collect();
        let mut leases = self.lease(adapters).await?;
        leases.iter().zip(&fields).try_for_each(|((lease, _), field)| generates(lease, field))?;
        leases.extend(leased.map(|lease| (lease, 1.0)));
        let served = account::served(&leases);
        let mix = AdapterMix::new(leases)?;
        let salt = request.cache_salt.map(Into::into);
        let order = (request.priority, salt);
        let streams = self.submit((&prompt, form.as_ref()), &mix, sampling, order)?;
        let account = Account::new(self.metrics(request.priority).clone(), &served);
        if form.is_some() {
            self.metrics(request.priority).constrained(n);
        }
        account.accepted(prompt.len(), n, max_tokens);
        let answer = |(index, events)| self.answer(index, events, &prompt, &options, &account);
        let answers = streams.into_iter().enumerate().map(answer).collect();
        Ok(Generation::new(prompt, account::told(&served), echo, answers))
    }

    /// The marks of tool calls are text where there may be calls.
    fn shown_tokens(&self, prompt: &Prompt) -> Vec<u32> {
        match prompt {
            Prompt::Chat { tools, .. } if !tools.is_empty() => self.0.tools.marks(),
            _ => Vec::new(),
        }
    }

    /// Pins every version of a mix, or none.
    pub(super) async fn lease(
        &self,
        wanted: Vec<WeightedAdapter>,
    ) -> Result<Vec<(AdapterLease, f32)>, GenerateError> {
        let mut parts = Vec::with_capacity(wanted.len());
        for WeightedAdapter { adapter, weight, field } in wanted {
            match self.0.backend.lease(&adapter).await {
                Ok(lease) => parts.push((lease, weight)),
                Err(error) => return Err(GenerateError::Adapter { error, field }),
            }
        }
        Ok(parts)
    }

    /// All answers or none: what is queued when one is refused is dropped, and so cancelled.
    fn submit(
        &self,
        (prompt, form): (&[u32], Option<&Form>),
        adapters: &AdapterMix,
        sampling: Vec<SamplingParams>,
        (priority, cache_salt): (Priority, Option<Arc<str>>),
    ) -> Result<Vec<EventStream>, GenerateError> {
        let submit = |sampling| {
            self.0.backend.submit(Submission {
                prompt: prompt.to_vec(),
                adapters: adapters.clone(),
                sampling,
                output: None,
                second_text: None,
                constraint: form.map(Form::constraint),
                priority,
                cache_salt: cache_salt.clone(),
            })
        };
        Ok(sampling.into_iter().map(submit).collect::<Result<_, EngineError>>()?)
    }

    pub(super) fn metrics(&self, priority: Priority) -> &Metrics {
        match priority {
            Priority::Normal | Priority::Low => &self.0.metrics,
            Priority::Shadow => &self.0.unseen,
        }
    }

    fn answer(
        &self,
        index: usize,
        events: EventStream,
        prompt: &[u32],
        options: &TextOptions,
        account: &Account,
    ) -> Answer {
        let tokenizer = self.0.tokenizer.clone();
        let text = TextStream::new(tokenizer.clone(), options.clone(), prompt);
        let usage = Usage { prompt_tokens: prompt.len(), ..Usage::default() };
        let meter = Meter::start(account.clone(), prompt.len());
        Answer { index, events, text, tokenizer, usage, meter }
    }

    /// Works here if that is short, else on a blocking thread.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        is_short: bool,
        work: impl FnOnce(&Inner) -> Result<T, GenerateError> + Send + 'static,
    ) -> Result<T, GenerateError> {
        if is_short {
            return work(&self.0);
        }
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.map_err(|error| GenerateError::Internal(error.to_string()))?
    }

    /// Whether the base continues texts at all.
    fn check_base(&self) -> Result<(), GenerateError> {
        if self.0.model.abilities.generates {
            return Ok(());
        }
        let name = &self.0.model.name;
        let message = format!(
            "`{name}` reads texts and does not continue them; ask for embeddings or labels"
        );
        let (code, field) = ("model_does_not_generate", "model".to_owned());
        Err(GenerateError::Unfit { code, field, message })
    }

    fn check_prompt(&self, prompt: &[u32]) -> Result<(), GenerateError> {
        if prompt.is_empty() {
            return Err(invalid("prompt", "the prompt has no tokens; give at least one".into()));
        }
        let vocab = self.0.model.vocab;
        match prompt.iter().find(|id| **id as usize >= vocab) {
            Some(id) => {
                Err(invalid("prompt", format!("token {id} is not below the vocabulary's {vocab}")))
            }
            None => Ok(()),
        }
    }

    /// Tokens of a prompt that leave the context enough for an answer; at least 1.
    fn room(&self, answer: usize) -> usize {
        self.0.model.max_context.saturating_sub(answer).max(1)
    }

    /// How many new tokens the answer may have. A default is no demand: less will do.
    fn budget(
        &self,
        prompt: usize,
        asked: Option<usize>,
        default: Option<usize>,
    ) -> Result<usize, GenerateError> {
        let context = self.0.model.max_context;
        let left = context.saturating_sub(prompt);
        match asked {
            Some(asked) if asked <= left => Ok(asked),
            None if left > 0 => Ok(default.map_or(left, |default| default.min(left))),
            _ => Err(GenerateError::ContextLength { context, prompt, asked: asked.unwrap_or(1) }),
        }
    }

    /// One set of parameters an answer: the answer's index is added to the seed. The first one judges the prompt.
    fn sampling(
        &self,
        options: &SamplingOptions,
        n: usize,
    ) -> Result<Vec<SamplingParams>, GenerateError> {
        let seed = options.seed.unwrap_or_else(rand::random);
        let params = (0..n as u64).map(|index| {
            let seed = seed.wrapping_add(index);
            let prompt_logprobs = options.prompt_logprobs.filter(|_| index == 0);
            let options = SamplingOptions { seed: Some(seed), prompt_logprobs, ..options.clone() };
            SamplingParams::new(options, self.0.model.vocab, seed)
        });
        Ok(params.collect::<Result<_, _>>()?)
    }
}

impl Inner {
    /// The tokens of `prompt`. A text that must have more than `most` is refused before it is tokenised.
    fn ids(&self, prompt: Prompt, most: Option<usize>) -> Result<Vec<u32>, GenerateError> {
        match prompt {
            Prompt::Tokens(ids) => Ok(ids),
            Prompt::Text { text, add_special_tokens } => {
                self.encode(&text, add_special_tokens, most)
            }
            Prompt::Chat {
                messages,
                tools,
                documents,
                add_generation_prompt,
                continue_final_message,
                variables,
            } => {
                let Some(template) = &self.template else {
                    let message = "this model has no chat template; send a plain prompt to \
                                   /v1/completions instead";
                    return Err(invalid("messages", message.into()));
                };
                if !tools.is_empty() {
                    self.tools.calls()?;
                }
                let chat = Chat {
                    messages,
                    tools,
                    documents,
                    add_generation_prompt,
                    continue_final_message,
                    variables,
                };
                // The template writes the special tokens itself.
                self.encode(&template.render(chat, SystemTime::now())?, false, most)
            }
        }
    }

    fn encode(
        &self,
        text: &str,
        add_special_tokens: bool,
        most: Option<usize>,
    ) -> Result<Vec<u32>, GenerateError> {
        let least = self.tokenizer.least(text);
        if most.is_some_and(|most| least > most) {
            return Err(GenerateError::TextTooLong { context: self.model.max_context, least });
        }
        self.tokenizer.encode(text, add_special_tokens)
    }

    fn text(&self, ids: &[u32]) -> Result<String, GenerateError> {
        if let Some(id) = ids.iter().find(|id| !self.tokenizer.pieces().contains(**id)) {
            return Err(invalid("tokens", format!("the tokenizer has no token {id}")));
        }
        Ok(self.tokenizer.decode(ids))
    }
}

fn check(request: &GenerateRequest) -> Result<(), GenerateError> {
    if !(1..=MAX_ANSWERS).contains(&request.n) {
        let message = format!("`n` must be between 1 and {MAX_ANSWERS}, not {}", request.n);
        return Err(invalid("n", message));
    }
    if request.stop.len() > MAX_STOP_STRINGS {
        let message = format!("`stop` must have at most {MAX_STOP_STRINGS} strings");
        return Err(invalid("stop", message));
    }
    if request.stop.iter().any(|stop| !(1..=MAX_STOP_BYTES).contains(&stop.len())) {
        let message = format!("each string of `stop` must have 1 to {MAX_STOP_BYTES} bytes");
        return Err(invalid("stop", message));
    }
    bad_words::check(&request.bad_words)?;
    let shows_prompt = request.shows_prompt || request.sampling.prompt_logprobs.is_some();
    if request.max_tokens == Some(0) && !shows_prompt {
        return Err(invalid("max_tokens", "`max_tokens` must be at least 1, not 0".into()));
    }
    if request.truncate_prompt_tokens == Some(0) {
        let message = "`truncate_prompt_tokens` must be at least 1, not 0";
        return Err(invalid("truncate_prompt_tokens", message.into()));
    }
    Ok(())
}

/// Whether an adapter is made for answers.
fn generates(lease: &AdapterLease, field: &str) -> Result<(), GenerateError> {
    if lease.weights.class_head().is_none() {
        return Ok(());
    }
    let message =
        format!("adapter `{}` labels texts and does not continue them; ask for labels", lease.name);
    let (code, field) = ("adapter_does_not_generate", field.to_owned());
    Err(GenerateError::Unfit { code, field, message })
}

/// The text that a prompt's tokens stand for, where the tokenizer may put more around it.
fn spelled(prompt: &Prompt) -> Option<&str> {
    match prompt {
        Prompt::Text { text, add_special_tokens: true } => Some(text),
        Prompt::Text { .. } | Prompt::Tokens(_) | Prompt::Chat { .. } => None,
    }
}

/// Roughly the bytes of text in a prompt.
fn size(prompt: &Prompt) -> usize {
    match prompt {
        Prompt::Tokens(_) => 0,
        Prompt::Text { text, .. } => text.len(),
        Prompt::Chat { messages, tools, documents, variables, .. } => {
            let values = messages.iter().chain(tools).chain(documents);
            values.chain(variables.values()).map(json_size).sum()
        }
    }
}

fn json_size(value: &serde_json::Value) -> usize {
    use serde_json::Value::{Array, Object, String};
    match value {
        String(text) => text.len(),
        Array(values) => values.iter().map(json_size).sum(),
        Object(fields) => fields.iter().map(|(key, value)| key.len() + json_size(value)).sum(),
        _ => 1,
    }
}

fn invalid(field: &'static str, message: String) -> GenerateError {
    GenerateError::Invalid { field, message }
}
