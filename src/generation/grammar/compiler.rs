//! Grammars from clients, compiled where they can do no harm.
use super::{GrammarError, source::Source, vocabulary::Vocabulary};
use crate::{generation::tokenizer::Tokenizer, telemetry::Metrics};
use llguidance::{
    Logger, Matcher, ParserFactory,
    api::{GrammarInit, ParserLimits, StopReason},
    earley::SlicedBiasComputer,
    toktrie::{InferenceCapabilities, TokEnv},
};
use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    sync::{OnceCell, Semaphore, oneshot},
    time::timeout,
};

/// Nobody waits longer than this for a grammar to be compiled, nor for a place to compile it.
const TIME_LIMIT: Duration = Duration::from_secs(1);
/// Compiled at once. Those that take too long are not waited for, but keep their place until they are done.
const PLACES: usize = 2;
/// Room for deep recursion; only what is used is real memory.
const STACK_BYTES: usize = 64 << 20;
/// What a cached grammar takes beside its lexer, roughly, for each byte of its source.
const BYTES_PER_BYTE: usize = 64;

/// Compiles for one model.
pub(super) struct Compiler {
    tokenizer: Arc<Tokenizer>,
    vocab: usize,
    factory: OnceCell<Arc<ParserFactory>>,
    places: Arc<Semaphore>,
    time_limit: Duration,
}

/// A grammar at its start, which nobody changes.
pub(super) struct Compiled {
    pub(super) start: Matcher,
    /// The token that stands for the end.
    pub(super) end: u32,
    /// What it takes, roughly.
    pub(super) bytes: usize,
}

impl Compiler {
    pub(super) fn new(tokenizer: Arc<Tokenizer>, vocab: usize) -> Self {
        let places = Arc::new(Semaphore::new(PLACES));
        Self { tokenizer, vocab, factory: OnceCell::new(), places, time_limit: TIME_LIMIT }
    }

    /// The grammar of `source`.
    ///
    /// # Errors
    /// When it is wrong or too much, or all places are taken.
    pub(super) async fn compile(
        &self,
        source: Source,
        metrics: &Metrics,
    ) -> Result<Arc<Compiled>, GrammarError> {
        let factory = self.factory().await?;
        let began = Instant::now();
        let result = self.compile_with(factory, source).await;
        let label = result.as_ref().map_or_else(GrammarError::label, |_| "ok");
        metrics.grammar_compiled(label, began.elapsed());
        result
    }

    async fn compile_with(
        &self,
        factory: Arc<ParserFactory>,
        source: Source,
    ) -> Result<Arc<Compiled>, GrammarError> {
        let place = timeout(self.time_limit, self.places.clone().acquire_owned()).await;
        let place = place.map_err(|_| GrammarError::Busy)?.map_err(|_| GrammarError::Broken)?;
        let end = self.vocab as u32;
        let compiled = on_a_thread(move || {
            let compiled = compile(&factory, source, end);
            drop(place);
            compiled
        });
        let too_slow = |_| GrammarError::TooSlow { seconds: self.time_limit.as_secs() };
        timeout(self.time_limit, compiled).await.map_err(too_slow)?
    }

    /// What every grammar of this model needs of its tokens. It takes its time, once.
    async fn factory(&self) -> Result<Arc<ParserFactory>, GrammarError> {
        let made = self.factory.get_or_try_init(|| {
            let (tokenizer, vocab) = (self.tokenizer.clone(), self.vocab);
            on_a_thread(move || factory(tokenizer, vocab).map(Arc::new))
        });
        made.await.cloned()
    }
}

/// Not tokio's: a pool that grammars could fill would be everybody's.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GrammarError> + Send + 'static,
) -> Result<T, GrammarError> {
    let (done, result) = oneshot::channel();
    let thread = thread::Builder::new().name("grammar".into()).stack_size(STACK_BYTES);
    // Nobody listens any more when it took too long.
    let started = thread.spawn(move || drop(done.send(work())));
    started.map_err(|_| GrammarError::Busy)?;
    result.await.unwrap_or(Err(GrammarError::Broken))
}

fn factory(tokenizer: Arc<Tokenizer>, vocab: usize) -> Result<ParserFactory, GrammarError> {
    let tokens: TokEnv = Arc::new(Vocabulary::new(tokenizer, vocab));
    let slices = SlicedBiasComputer::general_slices();
    let made = ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices);
    made.map_err(|error| {
        tracing::error!(%error, "the tokens cannot be prepared for grammars");
        GrammarError::Broken
    })
}

/// What one token of one answer may cost: nobody's step may wait long for it. A few of llguidance's own limits would let a
/// step take seconds.
fn limits(source: &Source) -> ParserLimits {
    ParserLimits {
        // About ten milliseconds.
        step_lexer_fuel: 100_000,
        // Each answer has a lexer of its own, and each state takes a kilobyte or two.
        max_lexer_states: 20_000,
        // A step of an ambiguous grammar takes the cube of this; what is plain may be long.
        max_items_in_row: if source.is_plain() { 4000 } else { 300 },
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

fn compile(
    factory: &ParserFactory,
    source: Source,
    end: u32,
) -> Result<Arc<Compiled>, GrammarError> {
    let (of_source, limits) = (source.len() * BYTES_PER_BYTE, limits(&source));
    let parser = factory.create_parser_from_init_ext(
        GrammarInit::Serialized(source.parse()?),
        Logger::new(0, 0),
        InferenceCapabilities::default(),
        limits,
    );
    let parser = parser.map_err(|error| GrammarError::of_compiler(&format!("{error:#}")))?;
    let bytes = of_source + parser.parser.lexer_stats().num_bytes;
    let start = Matcher::new(Ok(parser));
    let mut trial = start.deep_clone();
    match take_first_token(&mut trial) {
        Ok(()) => Ok(Arc::new(Compiled { start, end, bytes })),
        Err(message) => Err(first_token(&trial, &message)),
    }
}

/// Finds what an answer may begin with, and begins it where there is no choice: text without a choice is found as far as
/// it goes, so that it is over a limit shows only when it is taken.
fn take_first_token(trial: &mut Matcher) -> Result<(), String> {
    let mask = trial.compute_mask_or_eos().map_err(|error| error.to_string())?;
    let mut allowed = mask.iter();
    match (allowed.next(), allowed.next()) {
        (Some(forced), None) if !trial.is_stopped() => {
            trial.consume_token(forced).map_err(|error| error.to_string())
        }
        _ => Ok(()),
    }
}

/// Why not even the first token can be told.
fn first_token(trial: &Matcher, message: &str) -> GrammarError {
    match (trial.stop_reason(), GrammarError::of_compiler(message)) {
        (StopReason::LexerTooComplex | StopReason::ParserTooComplex, _) => {
            let message = "the schema or grammar is too complex to find an answer's first token";
            GrammarError::TooComplex(message.into())
        }
        (StopReason::NoExtensionBias, _) => {
            GrammarError::Invalid("the schema or grammar matches nothing".into())
        }
        (_, error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generation::{AnswerForm, testing},
        telemetry::{EngineFigures, Exposition},
    };

    fn compiler(time_limit: Duration) -> Compiler {
        let tokenizer = Tokenizer::new(testing::byte_level(), None, None).expect("a tokenizer");
        Compiler { time_limit, ..Compiler::new(Arc::new(tokenizer), 320) }
    }

    fn source() -> Source {
        let many = (0..1024).map(|index| format!("{index} choices")).collect();
        Source::of(AnswerForm::Choice(many)).expect("choices")
    }

    #[tokio::test]
    async fn nobody_waits_for_a_place_or_a_slow_grammar_for_long() {
        let metrics = Metrics::new("x");
        let compiler = compiler(Duration::from_millis(1));
        let places = compiler.places.clone().acquire_many_owned(PLACES as u32).await;
        let error = compiler.compile(source(), &metrics).await.err();
        assert_eq!(error, Some(GrammarError::Busy));
        drop(places);
        let compiler = Compiler { time_limit: Duration::ZERO, ..compiler };
        let error = compiler.compile(source(), &metrics).await.err();
        assert_eq!(error, Some(GrammarError::TooSlow { seconds: 0 }));
        // It keeps its place until it is done.
        let all = compiler.places.acquire_many(PLACES as u32).await.expect("open");
        drop(all);
        let text = metrics.expose(&EngineFigures::default(), Exposition::Prometheus);
        assert!(text.contains("result=\"busy\"} 1\n"), "{text}");
        assert!(text.contains("result=\"too_complex\"} 1\n"), "{text}");
    }

    #[tokio::test]
    async fn text_without_a_choice_has_an_end() {
        let (metrics, compiler) = (Metrics::new("x"), compiler(Duration::from_mins(1)));
        let regex = |text: &str| Source::of(AnswerForm::Regex(text.into())).expect("a regex");
        let error = compiler.compile(regex("a{1000000}"), &metrics).await.err();
        assert!(matches!(error, Some(GrammarError::TooComplex(_))), "{error:?}");
        let compiled =
            compiler.compile(regex("a{10000}b"), &metrics).await.expect("long, but not too long");
        let mut answer = compiled.start.deep_clone();
        for _ in 0..20 {
            let mask = answer.compute_mask_or_eos().expect("a next token");
            let forced: Vec<u32> = mask.iter().collect();
            let text = compiler.tokenizer.pieces().bytes(forced[0]);
            assert!(forced.len() == 1 && text.iter().all(|byte| *byte == b'a'), "{forced:?}");
            answer.consume_token(forced[0]).expect("the only one");
        }
    }

    #[tokio::test]
    async fn a_thread_that_panics_is_our_failure() {
        let worked = on_a_thread(|| -> Result<(), _> { panic!("on purpose") }).await;
        assert_eq!(worked, Err(GrammarError::Broken));
    }
}
