//! A model of two numbers a token, and an engine around it.
use lorad::{
    adapter::{AdapterLease, AdapterVersion, VersionId},
    engine::{
        AdapterMix, ByteSize, EngineConfig, EngineHandle, Event, EventStream, FinishReason,
        HeadKind, Labels, ModelRunner, Output, Pooling, Priority, Reading, SamplingOptions,
        SamplingParams, Submission, TokenLogprobs,
    },
    kernel::{
        AttentionArgs, KernelError, Kernels, KvPrecision, LoraTarget, Precision, Reach, Reference,
        Result, RopeKvArgs, RopeTable,
    },
    lora::{
        ClassHead, ClassHeadShape, LoraLayout, LoraWeights, LowRank, Projection, Site, SiteShape,
    },
    model::{BaseModel, KvDims, StepContext, StepOutput, WantedOutput},
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

pub(crate) const VOCAB: usize = 64;
pub(crate) const CONTEXT: usize = 60;
/// Bytes one token takes in the KV cache: keys and values of one layer, two f32 each.
pub(crate) const TOKEN_BYTES: usize = 16;
/// A step with this token in it fails.
pub(crate) const FAILS: u32 = 62;
/// What follows this token is not a number.
pub(crate) const NOT_A_NUMBER: u32 = 61;
/// A step with this token in it panics.
pub(crate) const PANICS: u32 = 63;

const SITE: Site = Site::block(0, Projection::Q);
const SHAPE: SiteShape = SiteShape { in_features: 2, out_features: 2 };

/// Labels of the base's own head.
pub(crate) const BASE_LABELS: [&str; 3] = ["no", "perhaps", "yes"];

/// What a test sees and holds of the model.
#[derive(Default)]
pub(crate) struct Control {
    /// Steps go on while nobody holds it.
    pub(crate) gate: Mutex<()>,
    /// Steps that have begun.
    pub(crate) begun: AtomicUsize,
    /// Most tokens in one step.
    pub(crate) most_tokens: AtomicUsize,
}

/// Averages what the cache holds of everything before, lets the adapter change that, and spreads it over
/// the vocabulary. Wrong blocks, positions, slots or orders show as other tokens.
struct Stub {
    layout: LoraLayout,
    control: Arc<Control>,
    rope: RopeTable,
    causal: bool,
}

impl BaseModel for Stub {
    fn forward(&self, mut step: StepContext<'_>) -> Result<StepOutput> {
        self.control.begun.fetch_add(1, SeqCst);
        let _open = self.control.gate.lock().expect("no test panics with the gate in its hands");
        let StepContext { batch, ref mut kv, lora, kernels } = step;
        let tokens = batch.token_ids.len();
        self.control.most_tokens.fetch_max(tokens, SeqCst);
        if batch.token_ids.contains(&FAILS) {
            return Err(KernelError::Unsupported("broken on purpose".into()));
        }
        assert!(!batch.token_ids.contains(&PANICS), "on purpose");

        let features: Vec<f32> = batch
            .token_ids
            .iter()
            .zip(&batch.positions)
            .flat_map(|(token, position)| {
                [noise(&[*token, *position]), noise(&[*position, *token, 1])]
            })
            .collect();
        let x = kernels.upload(&features, tokens, 2)?;
        // No query and no key, so every value counts the same.
        let joint: Vec<f32> =
            features.chunks(2).flat_map(|x| [0.0, 0.0, 0.0, 0.0, x[0], x[1]]).collect();
        let mut qkv = kernels.upload(&joint, tokens, 6)?;
        let target = |columns| [LoraTarget { columns, slots: lora.at(SITE) }];
        // As in a real model, what the cache holds depends on the adapter.
        kernels.add_lora(&mut qkv, &x, &target(4..6), batch.lora.segments())?;
        let rope = RopeKvArgs {
            heads: 1,
            positions: &batch.positions,
            table: Some(&self.rope),
            slot_mapping: &batch.slot_mapping,
        };
        kernels.rope_write_kv(&mut qkv, kv, 0, &rope)?;
        let args = AttentionArgs {
            block_tables: &batch.block_tables,
            block_starts: &batch.block_starts,
            query_starts: &batch.query_starts,
            context_lens: &batch.context_lens,
            heads: 1,
            scale: 1.0,
            reach: if self.causal { Reach::Back(None) } else { Reach::Around(None) },
        };
        let mut y = kernels.paged_attention(&qkv, kv, 0, &args)?;
        kernels.add_lora(&mut y, &x, &target(0..2), batch.lora.segments())?;
        let outputs = outputs(&kernels.read(&y)?, &step);
        let last = kernels.select_rows(&y, &batch.logit_rows)?;
        let mut logits: Vec<f32> = kernels.read(&last)?.chunks_exact(2).flat_map(spread).collect();
        for (row, logits) in batch.logit_rows.iter().zip(logits.chunks_mut(VOCAB)) {
            if batch.token_ids[*row as usize] == NOT_A_NUMBER {
                logits[7] = f32::NAN;
            }
        }
        let logits = kernels.upload(&logits, batch.logit_rows.len(), VOCAB)?;
        Ok(StepOutput { logits, outputs })
    }

    fn is_causal(&self) -> bool {
        self.causal
    }

    fn lora_layout(&self) -> &LoraLayout {
        &self.layout
    }

    fn kv_dims(&self) -> KvDims {
        KvDims { layers: 1, kv_heads: 1, head_dim: 2, precision: KvPrecision::F32 }
    }

    fn precision(&self) -> Precision {
        Precision::F32
    }

    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn max_positions(&self) -> usize {
        CONTEXT
    }
}

/// What is wanted of the hidden states `y`; a score hangs on every bit of one and on its label's name, a hidden state on
/// its token's type.
fn outputs(y: &[f32], step: &StepContext<'_>) -> Vec<Vec<f32>> {
    let batch = step.batch;
    let mut row = 0;
    let wanted = batch.outputs.iter().map(|WantedOutput { rows, output }| {
        let (start, end) = (rows.start as usize, rows.end as usize);
        let typed = |at: usize| batch.token_types.get(at).copied().unwrap_or(0) as f32;
        let states: Vec<f32> =
            (start..end).flat_map(|at| [y[2 * at], y[2 * at + 1] + typed(at)]).collect();
        if states.iter().zip(&batch.token_ids[start..]).any(|(_, id)| *id == NOT_A_NUMBER) {
            return vec![f32::NAN];
        }
        let at = row;
        row += output.width(end - start);
        let labels = labels_at(step, at);
        match output {
            Output::Embedding(Pooling::First) => states[..2].to_vec(),
            Output::Embedding(Pooling::Last) => states[states.len() - 2..].to_vec(),
            Output::Embedding(Pooling::Mean) => {
                let sum = |i| states.iter().skip(i).step_by(2).sum::<f32>();
                [0, 1].map(|i| sum(i) / (end - start) as f32).to_vec()
            }
            Output::Hidden => states,
            Output::Scores => scores(&states[..2], &labels),
            Output::TokenScores => {
                states.chunks(2).flat_map(|state| scores(state, &labels)).collect()
            }
        }
    });
    wanted.collect()
}

/// The labels of the head that scores row `at` of the outputs.
fn labels_at(step: &StepContext<'_>, at: usize) -> Vec<String> {
    let over = step.batch.output_lora.segments().iter().filter(|s| s.rows.contains(&at));
    let mut heads = over.filter_map(|segment| {
        step.lora.class_heads()[segment.slot].as_ref().map(|head| head.labels.names.to_vec())
    });
    heads.next().unwrap_or_else(|| BASE_LABELS.map(str::to_owned).to_vec())
}

fn scores(state: &[f32], labels: &[String]) -> Vec<f32> {
    let number = |label: &String| {
        label.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
    };
    let score = |label| noise(&[state[0].to_bits(), state[1].to_bits(), number(label)]);
    labels.iter().map(score).collect()
}

/// A table that turns nothing.
fn still() -> RopeTable {
    let angles = |value| candle_core::Tensor::full(value, (CONTEXT, 1), &candle_core::Device::Cpu);
    let (cos, sin) = (angles(1_f32).expect("memory"), angles(0_f32).expect("memory"));
    RopeTable { cos, sin, head_dim: 2 }
}

/// Logits that hang on every bit of `state`; the tokens that break steps are never chosen.
fn spread(state: &[f32]) -> Vec<f32> {
    let bits = [state[0].to_bits(), state[1].to_bits()];
    let logit = |id| if id >= NOT_A_NUMBER { -1e9 } else { 4.0 * noise(&[bits[0], bits[1], id]) };
    (0..VOCAB as u32).map(logit).collect()
}

/// In `[-1, 1)`, FNV-1a.
fn noise(numbers: &[u32]) -> f32 {
    let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
    let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, mix);
    ((hash >> 40) as f32) / ((1 << 23) as f32) - 1.0
}

/// A version that changes the model in its own way; with digits behind its letter, from those tokens on. `S` labels texts
/// its own way, `T` tokens.
pub(crate) fn version(name: &str) -> Arc<AdapterVersion> {
    let number = u32::from(name.as_bytes()[0]);
    let factor = |salt| {
        let values: Vec<f32> = (0..2).map(|i| noise(&[number, salt, i])).collect();
        candle_core::Tensor::from_vec(values, (1, 2), &candle_core::Device::Cpu).expect("a tensor")
    };
    let pair = LowRank::new(factor(1), factor(2)).expect("rank one");
    assert_eq!((pair.in_features(), pair.out_features()), (SHAPE.in_features, SHAPE.out_features));
    let mut weights = LoraWeights::from_iter([(SITE, pair)]);
    let digits = name[1..].chars().map(|digit| digit.to_digit(10).expect("a digit"));
    let invocation: Vec<u32> = digits.collect();
    if !invocation.is_empty() {
        weights.set_invocation(invocation);
    }
    let heads = [("S", HeadKind::Sequence, 2), ("T", HeadKind::Token, 4)];
    for (_, kind, labels) in heads.into_iter().filter(|(head, ..)| *head == name) {
        weights.set_class_head(head(kind, labels));
    }
    let id = VersionId::of(&[name.as_bytes()]);
    Arc::new(AdapterVersion { id, weights })
}

fn head(kind: HeadKind, labels: usize) -> ClassHead {
    let names = (0..labels).map(|label| format!("{kind:?} {label}")).collect();
    let weight =
        candle_core::Tensor::zeros((labels, 2), candle_core::DType::F32, &candle_core::Device::Cpu);
    let labels = Labels { kind, names, reading: Reading::OneOf };
    ClassHead { labels, weight: weight.expect("memory"), bias: None }
}

pub(crate) fn lease(name: &str) -> AdapterLease {
    AdapterLease::new(name.parse().expect("a valid name"), version(name))
}

/// Small enough that everything happens: chunks, preemption, waiting for slots.
pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        max_sequences: 8,
        max_batched_tokens: 16,
        max_waiting: 64,
        adapter_slots: 4,
        adapter_device_bytes: ByteSize(0),
        kv_cache_bytes: ByteSize(256 * TOKEN_BYTES),
        block_size: 4,
        draft_tokens: 0,
        no_prefix_cache: false,
    }
}

pub(crate) fn engine_with(config: &EngineConfig, eos: Vec<u32>) -> (EngineHandle, Arc<Control>) {
    engine_on(Arc::new(Reference), config, eos)
}

pub(crate) fn engine_on(
    kernels: Arc<dyn Kernels>,
    config: &EngineConfig,
    eos: Vec<u32>,
) -> (EngineHandle, Arc<Control>) {
    engine_of(true, kernels, config, eos)
}

/// An engine whose model looks at both sides of a token, and only reads.
pub(crate) fn encoder(config: &EngineConfig) -> (EngineHandle, Arc<Control>) {
    engine_of(false, Arc::new(Reference), config, Vec::new())
}

fn engine_of(
    causal: bool,
    kernels: Arc<dyn Kernels>,
    config: &EngineConfig,
    eos: Vec<u32>,
) -> (EngineHandle, Arc<Control>) {
    let control = Arc::new(Control::default());
    let output_head = SiteShape { in_features: 2, out_features: VOCAB };
    let head = causal.then_some((Site::Head, output_head));
    let names = BASE_LABELS.map(str::to_owned).into();
    let class_head = ClassHeadShape {
        in_features: 2,
        biased: false,
        kinds: &[HeadKind::Sequence, HeadKind::Token],
        base: Some(Labels { kind: HeadKind::Sequence, names, reading: Reading::OneOf }),
        has_dense: true,
    };
    let layout: LoraLayout = [(SITE, SHAPE)].into_iter().chain(head).collect();
    let layout = layout.with_class_head(class_head);
    let stub = Stub { layout, control: control.clone(), rope: still(), causal };
    let runner = ModelRunner::new(Box::new(stub), kernels, config).expect("memory");
    (EngineHandle::spawn(runner, config, eos).expect("a thread"), control)
}

pub(crate) fn engine() -> (EngineHandle, Arc<Control>) {
    engine_with(&config(), Vec::new())
}

pub(crate) fn greedy(max_tokens: usize) -> SamplingOptions {
    SamplingOptions { temperature: 0.0, max_tokens, ..Default::default() }
}

pub(crate) fn submission(
    prompt: &[u32],
    adapter: Option<&str>,
    options: SamplingOptions,
) -> Submission {
    let whole: Vec<_> = adapter.iter().map(|name| (*name, 1.0)).collect();
    mixed_submission(prompt, &whole, options)
}

pub(crate) fn mixed_submission(
    prompt: &[u32],
    parts: &[(&str, f32)],
    options: SamplingOptions,
) -> Submission {
    let sampling = SamplingParams::new(options, VOCAB, 0).expect("in range");
    let parts = parts.iter().map(|(name, weight)| (lease(name), *weight));
    let adapters = AdapterMix::new(parts).expect("a mix");
    let (prompt, priority) = (prompt.to_vec(), Priority::Normal);
    let (constraint, cache_salt) = (None, None);
    Submission {
        prompt,
        adapters,
        sampling,
        output: None,
        second_text: None,
        constraint,
        cache_salt,
        priority,
    }
}

/// A text that is read, for an output.
pub(crate) fn reading(text: &[u32], adapter: Option<&str>, output: Output) -> Submission {
    Submission { output: Some(output), ..submission(text, adapter, greedy(0)) }
}

/// A whole event stream.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) tokens: Vec<u32>,
    pub(crate) logprobs: Vec<TokenLogprobs>,
    pub(crate) prompt: Vec<TokenLogprobs>,
    pub(crate) output: Option<Vec<f32>>,
    pub(crate) reason: Option<FinishReason>,
    pub(crate) cached_tokens: usize,
}

/// Waits for the end.
pub(crate) fn answer(mut stream: EventStream) -> Answer {
    let mut answer = Answer::default();
    while let Some(event) = stream.blocking_recv() {
        assert_eq!(answer.reason, None, "nothing comes after the end");
        match event {
            Event::Started { cached_tokens, .. } => answer.cached_tokens = cached_tokens,
            Event::Output { values } => {
                assert_eq!(answer.output.replace(values), None, "it comes once");
            }
            Event::Prompt { logprobs } => {
                assert!(answer.tokens.is_empty(), "the prompt comes before the answer");
                answer.prompt.extend(logprobs);
            }
            Event::Token { id, logprobs } => {
                answer.tokens.push(id);
                answer.logprobs.extend(logprobs);
            }
            Event::Finished { reason } => answer.reason = Some(reason),
            Event::Failed(error) => panic!("{error}"),
        }
    }
    answer
}

/// Waits for what another thread does soon; the limit is only there so that a broken test ends.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("never happened: {what}");
}
