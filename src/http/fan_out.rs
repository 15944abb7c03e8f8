//! Several prompts of one HTTP request, generated side by side.
use super::{
    ApiError, AppState,
    access::Access,
    shadow::Mirror,
    split::{Split, Tally},
};
use crate::{
    adapter::Permit,
    generation::{
        Completion, FinishedBecause, GenerateError, GenerateEvent, GenerateRequest, Generation,
        PromptTokens, ServedAdapter, Token, Usage, WeightedAdapter,
    },
};
use futures_util::{
    StreamExt,
    stream::{BoxStream, SelectAll},
};
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// The answers to all prompts, interleaved; answer `i` of prompt `p` has the index `p * n + i`.
///
/// Dropping it cancels whatever still runs.
pub(super) struct Answers {
    streams: SelectAll<BoxStream<'static, Result<GenerateEvent, GenerateError>>>,
    count: usize,
    served: Vec<ServedAdapter>,
    prompts: Vec<Arc<[u32]>>,
    /// Places among the requests of each adapter, for as long as any answer runs.
    _permits: Vec<Permit>,
    tally: Tally,
    mirror: Option<Mirror>,
    access: Option<Access>,
}

impl Answers {
    /// Starts every request; they all have the same adapters and the same `n`.
    ///
    /// # Errors
    /// The first request that is refused; those before it are cancelled. 429 where an adapter takes no more.
    pub(super) async fn start(
        app: &AppState,
        requests: Vec<GenerateRequest>,
        split: Split,
    ) -> Result<Self, ApiError> {
        let access = Access::current();
        if let Some(access) = &access {
            access.starts(&requests);
        }
        let adapters = requests.first().map_or(&[][..], |request| &request.adapters);
        let permits = admit(app, adapters)?;
        let shadow = app.shadows.prepare(app, &split, &requests);
        let mut tally = split.begin(app);
        let mut streams = SelectAll::new();
        let (mut count, mut served, mut prompts) = (0, Vec::new(), Vec::new());
        for mut request in requests {
            let (first, n) = (count, request.n);
            pin(&mut request, &served);
            let generation: Generation = match app.generator.generate(request).await {
                Ok(generation) => generation,
                Err(error) => {
                    tally.failed(&error);
                    return Err(error.into());
                }
            };
            served.clone_from(&generation.served);
            if let Some(access) = &access {
                access.started(generation.prompt_tokens, &served);
            }
            prompts.push(generation.prompt().into());
            streams.push(generation.map(move |event| Ok(shift(event?, first))).boxed());
            count += n;
            // A hundred short prompts are tokenised here one after the other; others want the thread too.
            tokio::task::yield_now().await;
        }
        // The real answer is on its way before its shadow is.
        let mirror = shadow.map(|shadow| app.shadows.start(app, shadow, (count, tally.begun())));
        Ok(Self { streams, count, served, prompts, tally, mirror, access, _permits: permits })
    }

    /// What changes the base in all of them.
    pub(super) fn served(&self) -> &[ServedAdapter] {
        &self.served
    }

    /// The tokens of each prompt, as the model sees them.
    pub(super) fn prompts(&self) -> &[Arc<[u32]>] {
        &self.prompts
    }

    /// They end with this, and the client is told.
    pub(super) fn failed(&self, error: &ApiError) {
        if let Some(access) = &self.access {
            access.failed(error);
        }
    }

    /// Until the server ends, and with it what still runs.
    pub(super) fn ending(&self) -> impl Future<Output = ()> + use<> {
        let drain = self.tally.drain().clone();
        async move { drain.ending().await }
    }

    /// The next event of any answer; `None` when all have ended.
    pub(super) async fn next(&mut self) -> Option<Result<GenerateEvent, GenerateError>> {
        let event = self.streams.next().await;
        match &event {
            Some(Ok(event)) => {
                if let Some(access) = &self.access {
                    access.event(event);
                }
                if let Some(mirror) = &mut self.mirror {
                    mirror.event(event);
                }
            }
            Some(Err(error)) => {
                self.tally.failed(error);
                self.mirror = None;
            }
            None => {
                self.access.iter().for_each(Access::over);
                self.tally.answered();
                self.mirror.take().into_iter().for_each(Mirror::end);
            }
        }
        event
    }

    /// Waits for all answers, by index.
    ///
    /// # Errors
    /// The first failure; the others are cancelled.
    pub(super) async fn collect(mut self) -> Result<Vec<Completion>, ApiError> {
        let mut gathered: Vec<Gathered> = (0..self.count).map(|_| Gathered::default()).collect();
        let mut prompts: BTreeMap<usize, (Range<usize>, PromptTokens)> = BTreeMap::new();
        while let Some(event) = self.next().await {
            match event? {
                GenerateEvent::Prompt { answers, text, tokens } => {
                    let first = prompts.entry(answers.start);
                    let (_, prompt) = first.or_insert_with(|| (answers, PromptTokens::default()));
                    prompt.text.push_str(&text);
                    prompt.tokens.extend(tokens);
                    // Pieces of one prompt come without a wait between them; others want the thread too.
                    tokio::task::yield_now().await;
                }
                GenerateEvent::Delta { index, text, tokens } => {
                    gathered[index].text.push_str(&text);
                    gathered[index].tokens.extend(tokens);
                }
                GenerateEvent::Finished { index, because, usage } => {
                    gathered[index].end = Some((because, usage));
                }
            }
        }
        for (answers, prompt) in prompts.into_values() {
            let prompt = Arc::new(prompt);
            let answers = gathered.get_mut(answers).into_iter().flatten();
            answers.for_each(|answer| answer.prompt = Some(Arc::clone(&prompt)));
        }
        gathered.into_iter().enumerate().map(|(index, answer)| answer.complete(index)).collect()
    }
}

/// However many prompts or texts it has, it is one request of each adapter.
///
/// # Errors
/// 429 where one of them takes no more.
pub(super) fn admit(app: &AppState, adapters: &[WeightedAdapter]) -> Result<Vec<Permit>, ApiError> {
    app.registry.admit(adapters.iter().map(|one| &one.adapter.name)).map_err(|error| {
        let full = adapters.iter().find(|one| error.name() == Some(&one.adapter.name));
        let field = full.map(|one| one.field.as_str()).unwrap_or_default();
        ApiError::from(error).with_param(field)
    })
}

/// All prompts of one response are answered by the versions of the first, whatever is published meanwhile.
fn pin(request: &mut GenerateRequest, served: &[ServedAdapter]) {
    for wanted in request.adapters.iter_mut().map(|one| &mut one.adapter) {
        let mut same = served.iter().filter(|one| one.name == wanted.name);
        if let (None, Some(one), None) = (wanted.version, same.next(), same.next()) {
            wanted.version = Some(one.version);
        }
    }
}

#[derive(Default)]
struct Gathered {
    text: String,
    tokens: Vec<Token>,
    prompt: Option<Arc<PromptTokens>>,
    end: Option<(FinishedBecause, Usage)>,
}

impl Gathered {
    fn complete(self, index: usize) -> Result<Completion, ApiError> {
        let Some((because, usage)) = self.end else {
            tracing::error!(index, "a generation ended without a reason");
            return Err(ApiError::internal("generation_cut_short"));
        };
        let Self { text, tokens, prompt, .. } = self;
        Ok(Completion { index, text, tokens, prompt, because, usage })
    }
}

fn shift(event: GenerateEvent, by: usize) -> GenerateEvent {
    match event {
        GenerateEvent::Prompt { answers, text, tokens } => {
            let answers = answers.start + by..answers.end + by;
            GenerateEvent::Prompt { answers, text, tokens }
        }
        GenerateEvent::Delta { index, text, tokens } => {
            GenerateEvent::Delta { index: index + by, text, tokens }
        }
        GenerateEvent::Finished { index, because, usage } => {
            GenerateEvent::Finished { index: index + by, because, usage }
        }
    }
}
