//! Hostile conversations, templates and schedules: the text service answers or refuses, and never falls.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
use futures_util::{FutureExt, future::BoxFuture};
use lorad::{
    adapter::{AdapterError, AdapterLease, AdapterRef},
    engine::{EngineError, EngineSnapshot, Event, EventStream, FinishReason, Submission},
    error::{Classified, ErrorKind},
    generation::{
        Abilities, Backend, GenerateError, GenerateRequest, Generator, ModelCard, Priority, Prompt,
        SamplingOptions, TextSetup, ToolCallSetting,
    },
    telemetry::Metrics,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::{
    fs,
    sync::{Arc, LazyLock, Mutex},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc::{UnboundedSender, unbounded_channel},
};

static TOKENIZER: LazyLock<tokenizers::Tokenizer> = LazyLock::new(|| {
    tokenizers::Tokenizer::from_bytes(include_bytes!("golden/llama/tokenizer.json")).unwrap()
});

static GOLDEN: LazyLock<Vec<Generator>> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/chat_templates");
    let files = fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let golden = files.map(|file| serde_json::from_slice::<Value>(&file).unwrap());
    golden.map(|golden| with_template(golden["template"].as_str().unwrap()).unwrap()).collect()
});

/// Hands its senders to the test.
#[derive(Default)]
struct Stub(Mutex<Vec<UnboundedSender<Event>>>);

impl Backend for Stub {
    fn lease<'a>(
        &'a self,
        wanted: &'a AdapterRef,
    ) -> BoxFuture<'a, Result<AdapterLease, AdapterError>> {
        async { Err(AdapterError::NotFound(wanted.name.clone())) }.boxed()
    }

    fn submit(&self, _: Submission) -> Result<EventStream, EngineError> {
        let (sender, stream) = unbounded_channel();
        self.0.lock().unwrap().push(sender);
        Ok(stream)
    }

    fn snapshot(&self) -> EngineSnapshot {
        EngineSnapshot::default()
    }

    fn is_alive(&self) -> bool {
        true
    }
}

fn service(stub: Arc<Stub>, template: Option<&str>) -> Result<Generator, GenerateError> {
    let text = TextSetup {
        tokenizer: TOKENIZER.clone(),
        chat_template: template.map(str::to_owned),
        special_tokens: [("bos_token", "<s>"), ("eos_token", "</s>")]
            .map(|(name, token)| (name.to_owned(), token.to_owned()))
            .into(),
        add_bos: None,
        sampling: SamplingOptions::default(),
        tool_calls: ToolCallSetting::Auto,
    };
    let vocab = TOKENIZER.get_vocab_size(true);
    let model = ModelCard {
        name: "x".into(),
        aliases: Vec::new(),
        root: "x".into(),
        max_context: 4096,
        vocab,
        device: "cpu".into(),
        precision: "f32".into(),
        abilities: Abilities::default(),
    };
    Generator::new(stub, text, model, Metrics::new("x"))
}

fn with_template(source: &str) -> Result<Generator, GenerateError> {
    service(Arc::default(), Some(source))
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z{}%<|>\n é]{0,8}".prop_map(Value::from),
    ];
    let keys = ["role", "content", "type", "text", "tool_calls", "function", "arguments", "name"];
    leaf.prop_recursive(4, 16, 4, move |inner| {
        let key = prop::sample::select(keys.map(str::to_owned).to_vec());
        let fields = prop::collection::vec((key, inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn message() -> impl Strategy<Value = Value> {
    let roles = ["system", "user", "assistant", "tool", "developer", ""];
    let text = "SECRET[a-z{}%<|>\n é]{0,8}".prop_map(Value::from);
    let content = prop_oneof![
        text.clone(),
        text.prop_map(|text| json!([{"type": "text", "text": text}])),
        any_json(),
    ];
    let formed = (prop::sample::select(roles.to_vec()), content, any_json()).boxed();
    prop_oneof![
        3 => formed.clone().prop_map(|(role, content, _)| json!({"role": role, "content": content})),
        1 => formed.prop_map(|(role, content, calls)| {
            json!({"role": role, "content": content, "tool_calls": calls})
        }),
        1 => any_json(),
    ]
}

fn chat(messages: Vec<Value>, tools: Vec<Value>, continued: bool) -> Prompt {
    Prompt::Chat {
        documents: Vec::new(),
        messages,
        tools,
        add_generation_prompt: !continued,
        continue_final_message: continued,
        variables: Map::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_conversation_is_rendered_or_refused_without_quoting_it(
        which: prop::sample::Index,
        messages in prop::collection::vec(message(), 0..5),
        tools in prop::collection::vec(any_json(), 0..3),
        continued: bool,
    ) {
        let generator = which.get(&GOLDEN);
        let prompt = chat(messages, tools, continued);
        if let Err(error) = runtime().block_on(generator.tokenize_prompt(prompt)) {
            prop_assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            prop_assert!(!error.to_string().contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn any_template_is_compiled_or_refused(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "{%", "%}", "{{", "}}", "{#", "#}", "-", "+", " generation ", "endgeneration", "if",
                "endif", "for", "in", "endfor", "set", "messages", "m", ".content", "['role']", "=",
                "==", "[", "]", "(", ")", "|", "tojson", "trim", "\n", " ", "'", "é", "range", "9",
                "raise_exception", "strftime_now", "namespace", "macro", "endmacro", "break",
            ]),
            0..24,
        ),
    ) {
        if let Ok(generator) = with_template(&parts.concat()) {
            let prompt = chat(vec![json!({"role": "user", "content": "hello"})], Vec::new(), false);
            let _rendered = runtime().block_on(generator.tokenize_prompt(prompt));
        }
    }
}

/// What happens in a schedule: an answer gets a token, or the reader takes an event.
#[derive(Clone, Debug)]
enum Move {
    Token(usize, u32),
    Read,
}

fn schedule() -> impl Strategy<Value = Vec<Move>> {
    let step = prop_oneof![
        3 => (0usize..3, 3u32..500).prop_map(|(answer, token)| Move::Token(answer, token)),
        1 => Just(Move::Read),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn any_schedule_gives_each_answer_its_own_text_in_order(
        moves in schedule(),
        stop in prop::option::of("[a-e ]{1,2}"),
    ) {
        let stub = Arc::new(Stub::default());
        let generator = service(stub.clone(), None).unwrap();
        let request = GenerateRequest {
            prompt: Prompt::Tokens(vec![5]),
            adapters: Vec::new(),
            sampling: SamplingOptions::default(),
            max_tokens: Some(100),
            default_max_tokens: None,
            stop: stop.clone().into_iter().collect(),
            include_stop: false,
            skip_special_tokens: true,
            n: 3,
            truncate_prompt_tokens: None,
        shows_prompt: false,
        cache_salt: None,
        bad_words: Vec::new(),
        constraint: None,
        priority: Priority::Normal,
        };
        let mut generation = runtime().block_on(generator.generate(request)).unwrap();
        let (mut sent, mut got) = (vec![Vec::new(); 3], vec![String::new(); 3]);
        let mut ended = [false; 3];
        let senders = stub.0.lock().unwrap().clone();
        let mut take = |generation: &mut lorad::generation::Generation| {
            use lorad::generation::GenerateEvent::{Delta, Finished, Prompt};
            match generation.next().now_or_never() {
                None | Some(None) => return false,
                Some(Some(Ok(Delta { index, text, .. }))) => {
                    assert!(!ended[index], "nothing comes after the end");
                    got[index].push_str(&text);
                }
                Some(Some(Ok(Finished { index, .. }))) => {
                    assert!(!std::mem::replace(&mut ended[index], true), "one end an answer");
                }
                Some(Some(Ok(Prompt { .. }))) => panic!("it is not asked for"),
                Some(Some(Err(error))) => panic!("{error}"),
            }
            true
        };
        for step in moves {
            match step {
                Move::Token(answer, id) => {
                    sent[answer].push(id);
                    let _ended = senders[answer].send(Event::Token { id, logprobs: None });
                }
                Move::Read => {
                    take(&mut generation);
                }
            }
        }
        for sender in &senders {
            let reason = FinishReason::Length;
            let _ended = sender.send(Event::Finished { reason });
        }
        while take(&mut generation) {}
        prop_assert_eq!(ended, [true; 3]);
        for (ids, text) in sent.iter().zip(got) {
            let whole = TOKENIZER.decode(ids, true).unwrap();
            let wanted = match &stop {
                Some(stop) => whole.split(stop).next().unwrap_or_default().to_owned(),
                None => whole,
            };
            prop_assert_eq!(text, wanted);
        }
    }
}
