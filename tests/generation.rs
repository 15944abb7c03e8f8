//! Text in, text out, with an engine that says what the test tells it to.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
use futures_util::{FutureExt, future::BoxFuture};
use lorad::{
    adapter::{AdapterError, AdapterLease, AdapterRef, AdapterVersion, VersionId},
    engine::{
        EngineError, EngineSnapshot, Event, EventStream, FinishReason, Submission, TokenLogprobs,
    },
    error::{Classified, ErrorKind},
    generation::{
        Abilities, Backend, FinishedBecause, GenerateError, GenerateEvent, GenerateRequest,
        Generator, ModelCard, Priority, Prompt, SamplingOptions, StopReason, TextSetup,
        ToolCallSetting, WeightedAdapter,
    },
    lora::LoraWeights,
    telemetry::{EngineFigures, Exposition, Metrics},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

const TOKENIZER: &[u8] = include_bytes!("golden/llama/tokenizer.json");
const TEMPLATE: &str = include_str!("golden/llama/chat_template.jinja");
const END: u32 = 2;
const CONTEXT: usize = 256;

/// Keeps what it is given, and sends what the test sends.
#[derive(Default)]
struct Stub {
    submissions: Mutex<Vec<Submission>>,
    senders: Mutex<Vec<UnboundedSender<Event>>>,
    leases: Mutex<usize>,
    places: Option<usize>,
}

impl Stub {
    fn submissions(&self) -> MutexGuard<'_, Vec<Submission>> {
        self.submissions.lock().unwrap()
    }

    fn send(&self, index: usize, event: Event) {
        self.senders.lock().unwrap()[index].send(event).unwrap();
    }

    fn say(&self, index: usize, text: &str) {
        for id in ids(text) {
            self.send(index, Event::Token { id, logprobs: None });
        }
    }

    fn finish(&self, index: usize, reason: FinishReason) {
        self.send(index, Event::Finished { reason });
    }

    fn begin(&self, index: usize) {
        let queued = Duration::from_millis(1);
        self.send(index, Event::Started { cached_tokens: 3, queued });
    }

    fn is_cancelled(&self, index: usize) -> bool {
        self.senders.lock().unwrap()[index].is_closed()
    }

    fn hang_up(&self) {
        self.senders.lock().unwrap().clear();
    }
}

impl Backend for Stub {
    fn lease<'a>(
        &'a self,
        wanted: &'a AdapterRef,
    ) -> BoxFuture<'a, Result<AdapterLease, AdapterError>> {
        let result = if ["rate", "sql"].contains(&wanted.name.as_str()) {
            *self.leases.lock().unwrap() += 1;
            let (name, id) =
                (wanted.name.clone(), VersionId::of(&[wanted.name.as_str().as_bytes()]));
            let weights = LoraWeights::default();
            Ok(AdapterLease::new(name, Arc::new(AdapterVersion { id, weights })))
        } else {
            Err(AdapterError::NotFound(wanted.name.clone()))
        };
        async { result }.boxed()
    }

    fn submit(&self, submission: Submission) -> Result<EventStream, EngineError> {
        let mut senders = self.senders.lock().unwrap();
        if self.places.is_some_and(|places| senders.len() >= places) {
            return Err(EngineError::Overloaded { waiting: senders.len() });
        }
        let (sender, stream) = unbounded_channel();
        senders.push(sender);
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

/// These adapters, each named by a field of its own.
fn named(adapters: &[(&str, f32)]) -> Vec<WeightedAdapter> {
    let one = |(at, (name, weight)): (usize, &(&str, f32))| WeightedAdapter {
        adapter: name.parse().unwrap(),
        weight: *weight,
        field: format!("field {at}"),
    };
    adapters.iter().enumerate().map(one).collect()
}

fn tokenizer() -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_bytes(TOKENIZER).unwrap()
}

fn ids(text: &str) -> Vec<u32> {
    tokenizer().encode_fast(text, false).unwrap().get_ids().to_vec()
}

fn metrics() -> Metrics {
    Metrics::new("tiny")
}

fn service(stub: &Arc<Stub>, chat_template: Option<&str>, metrics: Metrics) -> Generator {
    let text = TextSetup {
        tokenizer: tokenizer(),
        chat_template: chat_template.map(str::to_owned),
        special_tokens: BTreeMap::new(),
        add_bos: None,
        sampling: SamplingOptions::default(),
        tool_calls: ToolCallSetting::Auto,
    };
    let vocab = tokenizer().get_vocab_size(true);
    let model = ModelCard {
        name: "tiny".into(),
        aliases: Vec::new(),
        root: "tiny".into(),
        max_context: CONTEXT,
        vocab,
        device: "cpu".into(),
        precision: "f32".into(),
        abilities: Abilities::default(),
    };
    Generator::new(stub.clone(), text, model, metrics).unwrap()
}

fn start() -> (Arc<Stub>, Generator) {
    let stub = Arc::new(Stub::default());
    let generator = service(&stub, None, metrics());
    (stub, generator)
}

fn request(text: &str) -> GenerateRequest {
    GenerateRequest {
        prompt: Prompt::Text { text: text.into(), add_special_tokens: true },
        adapters: Vec::new(),
        sampling: SamplingOptions::default(),
        max_tokens: Some(16),
        default_max_tokens: None,
        stop: Vec::new(),
        include_stop: false,
        skip_special_tokens: true,
        n: 1,
        truncate_prompt_tokens: None,
        shows_prompt: false,
        cache_salt: None,
        bad_words: Vec::new(),
        constraint: None,
        priority: Priority::Normal,
    }
}

async fn refused(generator: &Generator, request: GenerateRequest) -> GenerateError {
    generator.generate(request).await.err().expect("refused")
}

#[tokio::test]
async fn an_answer_has_its_text_its_tokens_and_its_usage() {
    let (stub, generator) = start();
    let generation = generator.generate(request("Hello")).await.unwrap();
    let prompt_tokens = generation.prompt_tokens;
    assert_eq!(generation.prompt(), ids("Hello"));
    stub.begin(0);
    stub.say(0, " wörld €🚀");
    stub.finish(0, FinishReason::EndOfSequence);
    let completions = generation.collect().await.unwrap();
    let [answer] = completions.as_slice() else { panic!("one answer") };
    assert_eq!(answer.text, " wörld €🚀");
    assert_eq!(answer.because, FinishedBecause::Stop(StopReason::EndOfSequence));
    let said = ids(" wörld €🚀");
    assert_eq!(answer.tokens.iter().map(|token| token.id).collect::<Vec<_>>(), said);
    let bytes: Vec<u8> = answer.tokens.iter().flat_map(|token| token.bytes.clone()).collect();
    assert_eq!(bytes, " wörld €🚀".as_bytes());
    let shown: Vec<_> = answer.tokens.iter().map(|token| token.shown.as_str()).collect();
    assert_eq!(shown.concat(), answer.text);
    assert!(shown.contains(&"🚀") && shown.contains(&""), "{shown:?}");
    assert_eq!(answer.usage.prompt_tokens, prompt_tokens);
    assert_eq!(answer.usage.completion_tokens, said.len());
    assert_eq!(answer.usage.cached_tokens, 3);
}

#[tokio::test]
async fn a_stop_string_over_several_tokens_ends_the_answer_and_cancels_its_sequence() {
    let (stub, generator) = start();
    let stop = vec!["\n\nQ:".to_owned()];
    for (include_stop, text) in [(false, " yes"), (true, " yes\n\nQ:")] {
        let request = GenerateRequest { stop: stop.clone(), include_stop, ..request("A:") };
        let generation = generator.generate(request).await.unwrap();
        let index = stub.submissions().len() - 1;
        stub.begin(index);
        stub.say(index, " yes\n\nQ: and then");
        let answers = generation.collect().await.unwrap();
        assert_eq!(answers[0].text, text);
        let because = FinishedBecause::Stop(StopReason::Text(stop[0].clone()));
        assert_eq!(answers[0].because, because);
        assert_eq!(answers[0].usage.completion_tokens, ids(" yes\n\nQ:").len());
        assert_eq!(answers[0].usage.cached_tokens, 3);
        assert_eq!(answers[0].usage.queued, Duration::from_millis(1));
        assert!(stub.is_cancelled(index));
    }
}

#[tokio::test]
async fn a_sequence_is_cancelled_at_its_stop_string_while_the_others_run_on() {
    let (stub, generator) = start();
    let request = GenerateRequest { n: 2, stop: vec!["!".into()], ..request("Go") };
    let mut generation = generator.generate(request).await.unwrap();
    stub.say(1, " on!");
    while !matches!(
        generation.next().await.unwrap().unwrap(),
        GenerateEvent::Finished { index: 1, .. }
    ) {}
    assert!(stub.is_cancelled(1) && !stub.is_cancelled(0));
    stub.say(0, " far");
    stub.finish(0, FinishReason::Length);
    let event = generation.next().await.unwrap().unwrap();
    assert!(matches!(event, GenerateEvent::Delta { index: 0, ref text, .. } if text == " far"));
}

#[tokio::test]
async fn stop_strings_wait_for_the_least_number_of_tokens() {
    let (stub, generator) = start();
    let sampling = SamplingOptions { min_tokens: ids(" a!").len(), ..SamplingOptions::default() };
    let request = GenerateRequest { sampling, stop: vec!["!".into()], ..request("Go") };
    let generation = generator.generate(request).await.unwrap();
    stub.say(0, " a!");
    stub.say(0, " b!");
    assert_eq!(generation.collect().await.unwrap()[0].text, " a! b");
}

#[tokio::test]
async fn answers_share_one_lease_and_have_seeds_of_their_own() {
    let (stub, generator) = start();
    let sampling = SamplingOptions { seed: Some(u64::MAX), ..SamplingOptions::default() };
    let adapters = named(&[("rate", 1.0)]);
    let request = GenerateRequest { n: 3, sampling, adapters, ..request("Go") };
    let generation = generator.generate(request).await.unwrap();
    let seeds: Vec<u64> = stub.submissions().iter().map(|s| s.sampling.seed()).collect();
    assert_eq!(seeds, [u64::MAX, 0, 1]);
    assert!(stub.submissions().iter().all(|s| s.adapters.parts().len() == 1));
    assert_eq!(*stub.leases.lock().unwrap(), 1);
    for index in [2, 0, 1] {
        stub.say(index, &format!(" {index}"));
        stub.finish(index, FinishReason::Length);
    }
    let texts: Vec<_> =
        generation.collect().await.unwrap().into_iter().map(|answer| answer.text).collect();
    assert_eq!(texts, [" 0", " 1", " 2"]);
}

#[tokio::test]
async fn a_mix_is_leased_whole_or_not_at_all() {
    let (stub, generator) = start();
    let adapters = named(&[("rate", 0.7), ("sql", 0.5), ("sql", -0.5), ("rate", 0.1)]);
    let _running = generator.generate(GenerateRequest { adapters, ..request("Go") }).await.unwrap();
    {
        let submissions = stub.submissions();
        let [part] = submissions[0].adapters.parts() else { panic!("one has weight") };
        assert_eq!(part.lease.name.as_str(), "rate");
        assert!((part.weight - 0.8).abs() < 1e-6);
    }
    let adapters = named(&[("rate", 1.0), ("nobody", 1.0)]);
    let error = refused(&generator, GenerateRequest { adapters, ..request("Go") }).await;
    assert_eq!((error.code(), error.param()), ("adapter_not_found", Some("field 1")));
    let adapters = named(&[("rate", 1.0), ("sql", f32::NAN)]);
    let error = refused(&generator, GenerateRequest { adapters, ..request("Go") }).await;
    assert_eq!((error.code(), error.param()), ("invalid_value", Some("adapters")));
    assert_eq!(stub.submissions().len(), 1);
}

#[tokio::test]
async fn without_a_seed_every_request_has_another() {
    let (stub, generator) = start();
    let _first = generator.generate(request("Go")).await.unwrap();
    let _second = generator.generate(request("Go")).await.unwrap();
    let seeds: Vec<u64> = stub.submissions().iter().map(|s| s.sampling.seed()).collect();
    assert_ne!(seeds[0], seeds[1]);
}

#[tokio::test]
async fn no_answer_waits_for_a_talkative_one() {
    let (stub, generator) = start();
    let mut generation =
        generator.generate(GenerateRequest { n: 2, ..request("Go") }).await.unwrap();
    let mut order = Vec::new();
    for _ in 0..3 {
        stub.say(0, " a");
        stub.say(1, " b");
        for _ in 0..2 {
            match generation.next().await.unwrap().unwrap() {
                GenerateEvent::Delta { index, .. } => order.push(index),
                other => panic!("nothing has ended: {other:?}"),
            }
        }
    }
    assert_eq!(order.iter().filter(|index| **index == 0).count(), 3);
    assert!(order.chunks(2).all(|pair| pair[0] != pair[1]), "{order:?}");
}

#[tokio::test]
async fn a_failure_ends_everything_and_says_what_it_is() {
    let (stub, generator) = start();
    let mut generation =
        generator.generate(GenerateRequest { n: 2, ..request("Go") }).await.unwrap();
    stub.say(0, " a");
    assert!(generation.next().await.unwrap().is_ok());
    stub.send(0, Event::Failed(EngineError::Step));
    let error = generation.next().await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Internal, "step_failed"));
    assert!(generation.next().await.is_none());
    assert!(stub.is_cancelled(0) && stub.is_cancelled(1));
}

#[tokio::test]
async fn an_engine_that_goes_away_is_an_error_not_an_end() {
    let (stub, generator) = start();
    let generation = generator.generate(request("Go")).await.unwrap();
    stub.say(0, " a");
    stub.hang_up();
    let error = generation.collect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn dropping_the_stream_cancels_every_answer() {
    let (stub, generator) = start();
    let mut generation =
        generator.generate(GenerateRequest { n: 3, ..request("Go") }).await.unwrap();
    stub.say(1, " a");
    generation.next().await.unwrap().unwrap();
    drop(generation);
    assert!((0..3).all(|index| stub.is_cancelled(index)));
}

#[tokio::test]
async fn a_full_queue_takes_all_answers_or_none() {
    let stub = Arc::new(Stub { places: Some(1), ..Stub::default() });
    let generator = service(&stub, None, metrics());
    let error = refused(&generator, GenerateRequest { n: 2, ..request("Go") }).await;
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(stub.is_cancelled(0));
}

#[tokio::test]
async fn an_unknown_adapter_is_named_and_nothing_runs() {
    let (stub, generator) = start();
    let adapters = named(&[("nobody", 1.0)]);
    let error = refused(&generator, GenerateRequest { adapters, ..request("Go") }).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("`nobody`"), "{error}");
    assert!(stub.submissions().is_empty());
}

#[tokio::test]
async fn the_context_bounds_prompt_and_answer() {
    let (stub, generator) = start();
    let prompt = |length| Prompt::Tokens(vec![10; length]);
    let ask =
        |length, max_tokens| GenerateRequest { prompt: prompt(length), max_tokens, ..request("") };
    let error = refused(&generator, ask(250, Some(7))).await.to_string();
    assert!(error.contains("length is 256 tokens") && error.contains("contains 250"), "{error}");
    let error = refused(&generator, ask(CONTEXT, None)).await;
    assert_eq!(error.code(), "context_length_exceeded");
    for (length, max_tokens, granted) in [(250, Some(6), 6), (250, None, 6), (255, None, 1)] {
        let _running = generator.generate(ask(length, max_tokens)).await.unwrap();
        let submissions = stub.submissions();
        assert_eq!(submissions.last().unwrap().sampling.options().max_tokens, granted);
    }
}

#[tokio::test]
async fn a_default_budget_takes_what_the_context_leaves() {
    let (stub, generator) = start();
    for (length, granted) in [(10, 16), (250, 6)] {
        let prompt = Prompt::Tokens(vec![10; length]);
        let (max_tokens, default_max_tokens) = (None, Some(16));
        let request = GenerateRequest { prompt, max_tokens, default_max_tokens, ..request("") };
        let _running = generator.generate(request).await.unwrap();
        let submissions = stub.submissions();
        assert_eq!(submissions.last().unwrap().sampling.options().max_tokens, granted);
    }
}

#[tokio::test]
async fn a_prompt_is_cut_to_what_leaves_the_answer_its_tokens() {
    let (_, generator) = start();
    let cut = async |keep, max_tokens| {
        let prompt = Prompt::Tokens(vec![10; 1000]);
        let truncate_prompt_tokens = Some(keep);
        let request = GenerateRequest { prompt, max_tokens, truncate_prompt_tokens, ..request("") };
        generator.generate(request).await.unwrap().prompt_tokens
    };
    assert_eq!(cut(4, None).await, 4);
    assert_eq!(cut(CONTEXT, Some(16)).await, CONTEXT - 16);
    assert_eq!(cut(CONTEXT, None).await, CONTEXT - 1);
    assert_eq!(cut(usize::MAX, Some(CONTEXT - 1)).await, 1);
}

#[tokio::test]
async fn a_field_that_is_wrong_is_named() {
    let (stub, generator) = start();
    let greedy = SamplingOptions { temperature: -1.0, ..SamplingOptions::default() };
    let wrong = [
        ("prompt", request("")),
        ("prompt", GenerateRequest { prompt: Prompt::Tokens(vec![1, 1 << 20]), ..request("") }),
        ("n", GenerateRequest { n: 0, ..request("Go") }),
        ("n", GenerateRequest { n: 129, ..request("Go") }),
        ("stop", GenerateRequest { stop: vec![String::new()], ..request("Go") }),
        ("stop", GenerateRequest { stop: vec!["x".into(); 33], ..request("Go") }),
        ("max_tokens", GenerateRequest { max_tokens: Some(0), ..request("Go") }),
        ("temperature", GenerateRequest { sampling: greedy, ..request("Go") }),
        (
            "truncate_prompt_tokens",
            GenerateRequest { truncate_prompt_tokens: Some(0), ..request("Go") },
        ),
    ];
    for (field, request) in wrong {
        let error = refused(&generator, request).await;
        assert_eq!(error.param(), Some(field), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
    assert!(stub.submissions().is_empty());
}

#[tokio::test]
async fn special_tokens_are_counted_and_shown_only_when_wanted() {
    let (stub, generator) = start();
    for (skip_special_tokens, text) in [(true, " a"), (false, " a<|im_end|>")] {
        let request = GenerateRequest { skip_special_tokens, ..request("Go") };
        let generation = generator.generate(request).await.unwrap();
        let index = stub.submissions().len() - 1;
        stub.say(index, " a");
        stub.send(index, Event::Token { id: END, logprobs: None });
        stub.finish(index, FinishReason::Length);
        let answers = generation.collect().await.unwrap();
        assert_eq!(answers[0].text, text);
        assert_eq!(answers[0].usage.completion_tokens, ids(" a").len() + 1);
        assert!(answers[0].tokens.last().unwrap().special);
    }
}

#[tokio::test]
async fn log_probabilities_name_the_token_and_the_others() {
    let (stub, generator) = start();
    let generation = generator.generate(request("Go")).await.unwrap();
    let [a, b] = [ids(" a")[0], ids(" b")[0]];
    let logprobs = Some(TokenLogprobs { chosen: -0.5, rank: 2, top: vec![(b, -0.25), (a, -0.5)] });
    stub.send(0, Event::Token { id: a, logprobs });
    stub.finish(0, FinishReason::StopToken(7));
    let answer = generation.collect().await.unwrap().remove(0);
    assert_eq!(answer.because, FinishedBecause::Stop(StopReason::Token(7)));
    let token = &answer.tokens[0];
    assert_eq!((token.text.as_str(), token.logprob), (" a", Some(-0.5)));
    let top: Vec<_> = token.top.iter().map(|t| (t.text.as_str(), t.logprob)).collect();
    assert_eq!(top, [(" b", Some(-0.25)), (" a", Some(-0.5))]);
}

fn chat(text: &str) -> GenerateRequest {
    let prompt = Prompt::Chat {
        documents: Vec::new(),
        messages: vec![serde_json::json!({"role": "user", "content": text})],
        tools: Vec::new(),
        add_generation_prompt: true,
        continue_final_message: false,
        variables: serde_json::Map::new(),
    };
    GenerateRequest { prompt, ..request("") }
}

#[tokio::test]
async fn a_conversation_becomes_what_the_template_writes() {
    let stub = Arc::new(Stub::default());
    let generator = service(&stub, Some(TEMPLATE), metrics());
    assert!(generator.has_chat_template());
    let generation = generator.generate(chat("Hi")).await.unwrap();
    let text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(generation.prompt(), ids(text));
    assert_eq!(generator.detokenize(generation.prompt().to_vec()).await.unwrap(), text);
    // Long enough for another thread.
    let long = "word ".repeat(5000);
    let request = GenerateRequest { truncate_prompt_tokens: Some(5), ..chat(&long) };
    let generation = generator.generate(request).await.unwrap();
    assert_eq!(generation.prompt(), &ids(text)[ids(text).len() - 5..]);
}

#[tokio::test]
async fn a_model_without_a_template_says_where_to_go() {
    let (_, generator) = start();
    assert!(!generator.has_chat_template());
    let error = refused(&generator, chat("Hi")).await;
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("/v1/completions"), "{error}");
}

#[tokio::test]
async fn text_goes_to_tokens_and_back() {
    let (_, generator) = start();
    let text = "Two words, ünd €.";
    let tokens = generator.tokenize(text.into(), false).await.unwrap();
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.bytes.clone()).collect();
    assert_eq!(bytes, text.as_bytes());
    let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
    assert_eq!(generator.detokenize(ids).await.unwrap(), text);
    for wrong in [vec![u32::MAX], vec![10; 4 * CONTEXT + 1]] {
        assert_eq!(generator.detokenize(wrong).await.unwrap_err().param(), Some("tokens"));
    }
}

#[tokio::test]
async fn a_text_that_cannot_fit_is_refused_without_being_tokenised() {
    let stub = Arc::new(Stub::default());
    let generator = service(&stub, Some(TEMPLATE), metrics());
    let text = "a".repeat(8 << 20);
    for wrong in [request(&text), chat(&text)] {
        let error = refused(&generator, wrong).await;
        assert_eq!(error.code(), "context_length_exceeded");
        assert!(error.to_string().contains("contains at least"), "{error}");
    }
    let error = generator.tokenize(text, false).await.unwrap_err();
    assert_eq!(error.code(), "context_length_exceeded");
    let longer_than_the_context = "a b c ".repeat(CONTEXT / 2);
    assert!(generator.tokenize(longer_than_the_context, false).await.unwrap().len() > CONTEXT);
}

#[tokio::test]
async fn what_happened_is_counted_once_an_answer() {
    let stub = Arc::new(Stub::default());
    let metrics = metrics();
    let generator = service(&stub, None, metrics.clone());
    let adapters = named(&[("rate", 1.0)]);
    let generation =
        generator.generate(GenerateRequest { n: 3, adapters, ..request("Go") }).await.unwrap();
    (0..2).for_each(|index| stub.begin(index));
    stub.say(0, " a");
    stub.finish(0, FinishReason::Length);
    stub.finish(1, FinishReason::EndOfSequence);
    let mut generation = generation;
    for _ in 0..3 {
        generation.next().await.unwrap().unwrap();
    }
    drop(generation);
    let text = metrics.expose(&EngineFigures::default(), Exposition::Prometheus);
    let count = |name: &str, label: &str| {
        let line = text.lines().find(|line| line.starts_with(name) && line.contains(label));
        line.and_then(|line| line.rsplit(' ').next()).unwrap_or("none").to_owned()
    };
    assert_eq!(count("lorad_requests_total", "adapter=\"rate\""), "1");
    for outcome in ["length", "stop", "abort"] {
        assert_eq!(count("vllm:request_success_total", outcome), "1", "{outcome}");
    }
    assert_eq!(count("vllm:time_to_first_token_seconds_count", ""), "1");
    assert_eq!(count("vllm:request_queue_time_seconds_count", ""), "2");
}
