//! Adapters that take as long to load as a test wants: nobody else waits for them.
use super::stub::{answer, config, engine_on, greedy, submission, until};
use lorad::{
    engine::{EngineConfig, EngineError, EngineHandle, Event, EventStream},
    kernel::{
        Act, Activation, AttentionArgs, BaseWeight, EmbeddingDelta, KernelError, Kernels, KvCache,
        KvShape, LoraTarget, LowRank, NormWeights, Precision, Reference, Result, RopeKvArgs,
        RowSegment,
    },
};
use std::{
    borrow::Cow,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// The reference, whose loads wait for a word: whether they succeed.
struct Slow {
    words: Mutex<mpsc::Receiver<bool>>,
    begun: AtomicUsize,
    /// Whether loads may happen beside the engine thread.
    beside: AtomicBool,
    threads: Mutex<Vec<Option<String>>>,
}

impl Kernels for Slow {
    fn load_low_rank(&self, pair: &LowRank, precision: Precision) -> Result<LowRank> {
        self.begun.fetch_add(1, SeqCst);
        self.threads.lock().expect("whole").push(thread::current().name().map(ToOwned::to_owned));
        let word =
            self.words.lock().map_err(|_| KernelError::Unsupported("after a panic".into()))?;
        if word.recv().expect("a test that says nothing more wants a panic") {
            return Reference.load_low_rank(pair, precision);
        }
        Err(KernelError::Unsupported("out of memory on purpose".into()))
    }

    fn loads_on_any_thread(&self) -> bool {
        self.beside.load(SeqCst)
    }

    fn describe(&self) -> String {
        "slow".into()
    }

    fn auto_precision(&self) -> Precision {
        Precision::F32
    }

    fn pack(&self, parts: &[candle_core::Tensor], precision: Precision) -> Result<BaseWeight> {
        Reference.pack(parts, precision)
    }

    fn upload(&self, values: &[f32], rows: usize, cols: usize) -> Result<Act> {
        Reference.upload(values, rows, cols)
    }

    fn read<'a>(&self, x: &'a Act) -> Result<Cow<'a, [f32]>> {
        Reference.read(x)
    }

    fn new_kv(&self, shape: KvShape) -> Result<KvCache> {
        Reference.new_kv(shape)
    }

    fn embed(&self, table: &BaseWeight, ids: &[u32]) -> Result<Act> {
        Reference.embed(table, ids)
    }

    fn adapt_embedding(
        &self,
        x: &mut Act,
        ids: &[u32],
        slots: &[Option<EmbeddingDelta>],
        segments: &[RowSegment],
    ) -> Result<()> {
        Reference.adapt_embedding(x, ids, slots, segments)
    }

    fn linear(&self, x: &Act, weight: &BaseWeight, bias: Option<&Act>) -> Result<Act> {
        Reference.linear(x, weight, bias)
    }

    fn add_linear(
        &self,
        y: &mut Act,
        x: &Act,
        weight: &BaseWeight,
        bias: Option<&Act>,
    ) -> Result<()> {
        Reference.add_linear(y, x, weight, bias)
    }

    fn add_lora(
        &self,
        y: &mut Act,
        x: &Act,
        targets: &[LoraTarget<'_>],
        segments: &[RowSegment],
    ) -> Result<()> {
        Reference.add_lora(y, x, targets, segments)
    }

    fn rms_norm(&self, x: &Act, weights: NormWeights<'_>, eps: f32) -> Result<Act> {
        Reference.rms_norm(x, weights, eps)
    }

    fn layer_norm(
        &self,
        x: &Act,
        weights: NormWeights<'_>,
        biases: Option<NormWeights<'_>>,
        eps: f32,
    ) -> Result<Act> {
        Reference.layer_norm(x, weights, biases, eps)
    }

    fn activate(&self, x: &mut Act, activation: Activation) -> Result<()> {
        Reference.activate(x, activation)
    }

    fn add_rows(&self, x: &mut Act, table: &Act, rows: &[u32]) -> Result<()> {
        Reference.add_rows(x, table, rows)
    }

    fn mean_rows(&self, x: &Act, ranges: &[Range<u32>]) -> Result<Act> {
        Reference.mean_rows(x, ranges)
    }

    fn head_norm(
        &self,
        x: &mut Act,
        columns: Range<usize>,
        weights: NormWeights<'_>,
        eps: f32,
    ) -> Result<()> {
        Reference.head_norm(x, columns, weights, eps)
    }

    fn rope_write_kv(
        &self,
        qkv: &mut Act,
        cache: &mut KvCache,
        layer: usize,
        args: &RopeKvArgs<'_>,
    ) -> Result<()> {
        Reference.rope_write_kv(qkv, cache, layer, args)
    }

    fn gated(&self, gate_up: &Act, activation: Activation) -> Result<Act> {
        Reference.gated(gate_up, activation)
    }

    fn paged_attention(
        &self,
        q: &Act,
        cache: &KvCache,
        layer: usize,
        args: &AttentionArgs<'_>,
    ) -> Result<Act> {
        Reference.paged_attention(q, cache, layer, args)
    }

    fn select_rows(&self, x: &Act, rows: &[u32]) -> Result<Act> {
        Reference.select_rows(x, rows)
    }
}

/// An engine with slow loads, and what lets one of them go on.
fn slow(config: &EngineConfig, beside: bool) -> (EngineHandle, Arc<Slow>, mpsc::Sender<bool>) {
    let (word, words) = mpsc::channel();
    let kernels = Arc::new(Slow {
        words: Mutex::new(words),
        begun: AtomicUsize::new(0),
        beside: AtomicBool::new(beside),
        threads: Mutex::default(),
    });
    (engine_on(kernels.clone(), config, Vec::new()).0, kernels, word)
}

fn submit(engine: &EngineHandle, adapter: Option<&str>, tokens: usize) -> EventStream {
    engine.submit(submission(&[1, 2], adapter, greedy(tokens))).expect("room")
}

fn end(mut stream: EventStream) -> Option<Event> {
    std::iter::from_fn(|| stream.blocking_recv()).last()
}

#[test]
fn others_go_on_token_by_token_while_an_adapter_loads_once_for_all_who_wait() {
    let (engine, kernels, word) = slow(&config(), true);
    let waiting: Vec<_> = (0..5).map(|_| submit(&engine, Some("a"), 3)).collect();
    until("the load", || kernels.begun.load(SeqCst) == 1);
    for _ in 0..10 {
        assert_eq!(answer(submit(&engine, None, 20)).tokens.len(), 20);
    }
    // The engine puts up its numbers a moment after it has answered.
    until("the steps", || engine.snapshot().steps >= 200);
    let snapshot = engine.snapshot();
    assert_eq!((snapshot.waiting, snapshot.adapter_slots_used), (5, 1));
    assert_eq!(snapshot.waiting_for_adapters, 5);
    assert!(snapshot.resident_adapters.is_empty());
    word.send(true).expect("it waits");
    for stream in waiting {
        assert_eq!(answer(stream).tokens.len(), 3);
    }
    assert_eq!(kernels.begun.load(SeqCst), 1);
    assert_eq!(*kernels.threads.lock().expect("whole"), [Some("loader".to_owned())]);
    until("the books", || engine.snapshot().adapter_loads == 1);
    assert_eq!(engine.snapshot().resident_adapters, ["a"]);
}

#[test]
fn a_load_that_fails_or_panics_fails_those_who_wait_for_it_and_nobody_later() {
    let (engine, kernels, word) = slow(&config(), true);
    let error = EngineError::AdapterLoad { name: "a".into() };
    let failed = submit(&engine, Some("a"), 3);
    word.send(false).expect("it waits");
    assert!(matches!(end(failed), Some(Event::Failed(last)) if last == error));
    let fine = submit(&engine, Some("a"), 3);
    word.send(true).expect("it waits");
    assert_eq!(answer(fine).tokens.len(), 3);
    drop(word);
    let error = EngineError::AdapterLoad { name: "b".into() };
    assert!(
        matches!(end(submit(&engine, Some("b"), 3)), Some(Event::Failed(last)) if last == error)
    );
    assert_eq!(answer(submit(&engine, Some("a"), 3)).tokens.len(), 3);
    assert_eq!((kernels.begun.load(SeqCst), engine.snapshot().failed_adapter_loads), (3, 2));
}

#[test]
fn a_caller_who_goes_during_a_load_is_forgotten_and_the_adapter_is_there_for_the_next() {
    let (engine, kernels, word) = slow(&config(), true);
    let gone = submit(&engine, Some("a"), 3);
    until("the load", || kernels.begun.load(SeqCst) == 1);
    drop(gone);
    until("it is gone", || engine.snapshot().waiting == 0);
    word.send(true).expect("it waits");
    until("residence", || engine.snapshot().resident_adapters == ["a"]);
    assert_eq!(answer(submit(&engine, Some("a"), 3)).tokens.len(), 3);
    assert_eq!(kernels.begun.load(SeqCst), 1);
}

#[test]
fn a_deadline_ends_who_waits_for_a_load_though_nothing_else_happens() {
    let (engine, kernels, word) = slow(&config(), true);
    let stream = submit(&engine, Some("a"), 3);
    until("the load", || kernels.begun.load(SeqCst) == 1);
    let version = super::stub::version("a").id;
    engine.end(
        "a".parse().expect("a name"),
        version,
        Some(Instant::now() + Duration::from_millis(50)),
    );
    let error = EngineError::AdapterReplaced { name: "a".into() };
    assert!(matches!(end(stream), Some(Event::Failed(last)) if last == error));
    word.send(true).expect("it waits");
}

#[test]
fn the_last_handle_gone_those_who_wait_for_a_load_are_served_first() {
    let (engine, kernels, word) = slow(&config(), true);
    let stream = submit(&engine, Some("a"), 3);
    until("the load", || kernels.begun.load(SeqCst) == 1);
    drop(engine);
    word.send(true).expect("it waits");
    assert_eq!(answer(stream).tokens.len(), 3);
}

#[test]
fn a_device_that_wants_one_thread_loads_on_the_engines() {
    let (engine, kernels, word) = slow(&config(), false);
    let streams = ["a", "b", "c"].map(|name| submit(&engine, Some(name), 3));
    (0..3).for_each(|_| word.send(true).expect("it waits"));
    for stream in streams {
        assert_eq!(answer(stream).tokens.len(), 3);
    }
    let threads = kernels.threads.lock().expect("whole");
    assert!(threads.iter().all(|name| name.as_deref() == Some("engine")), "{threads:?}");
}
