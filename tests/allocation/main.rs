//! A steady step asks the system for no memory.
//!
//! Counted is every allocation of every thread but the listener's: the kernels', the model's and the engine's, the
//! events it sends and the snapshot it puts up. The batch holds adapters of every kind, mixes of them and the base,
//! greedy and drawn answers, some of which have a form; the contexts grow over borders of KV blocks meanwhile. One
//! thread computes: with more, the first time that all of them hold a buffer at once is the system's choice, and may be
//! a late one.
mod counting;

use counting::Counting;
use lorad::{
    adapter::{AdapterFiles, AdapterLease, AdapterLimits, AdapterVersion, format},
    engine::{
        AdapterMix, EngineConfig, EngineHandle, Event, EventStream, ModelRunner, Priority,
        SamplingOptions, SamplingParams, Submission, TokenConstraint, TokenMask, Unenforceable,
    },
    kernel::{CpuKernels, KvChoice, Precision, Result},
    lora::{FrozenBase, LoraLayout},
    model::{BaseModel, KvDims, LoadOptions, ModelSource, Progress, StepContext, StepOutput, load},
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::yield_now,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// Steps before counting: every buffer has its size, every channel its memory.
const WARM_UP: usize = 80;
/// Steps that are counted: several blocks of keys and values.
const COUNTED: usize = 60;

/// The steps, and how many of them have seen all events before them taken: what nobody takes needs memory.
#[derive(Default)]
struct Pace {
    begun: AtomicUsize,
    heard: AtomicUsize,
}

/// A model that waits until the events before a step are taken, and counts during some steps.
struct Paced {
    model: Box<dyn BaseModel>,
    pace: Arc<Pace>,
}

impl BaseModel for Paced {
    fn forward(&self, step: StepContext<'_>) -> Result<StepOutput> {
        let begun = self.pace.begun.fetch_add(1, SeqCst) + 1;
        while self.pace.heard.load(SeqCst) < begun {
            yield_now();
        }
        ALLOCATOR.count((WARM_UP..WARM_UP + COUNTED).contains(&begun));
        self.model.forward(step)
    }

    fn lora_layout(&self) -> &LoraLayout {
        self.model.lora_layout()
    }

    fn kv_dims(&self) -> KvDims {
        self.model.kv_dims()
    }

    fn precision(&self) -> Precision {
        self.model.precision()
    }

    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    fn max_positions(&self) -> usize {
        self.model.max_positions()
    }
}

/// Odd tokens alone.
#[derive(Debug)]
struct Odd;

impl TokenConstraint for Odd {
    fn allow(&mut self, mask: &mut TokenMask) -> std::result::Result<bool, Unenforceable> {
        mask.allow_all(&[0xaaaa_aaaa; 32]);
        Ok(false)
    }

    fn accept(&mut self, _: u32) -> std::result::Result<bool, Unenforceable> {
        Ok(false)
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama")
}

fn adapter(name: &str, base: &dyn FrozenBase) -> AdapterLease {
    let limits = AdapterLimits::default();
    let files =
        AdapterFiles::read(&directory().join("adapters").join(name), &limits).expect("files");
    let weights = format::parse(&files, base, &limits).expect("an adapter").weights;
    let (name, id) = (name.parse().expect("a name"), files.version());
    AdapterLease::new(name, Arc::new(AdapterVersion { id, weights }))
}

/// An engine on one thread, and a submission for each adapter and the base, greedy and drawn.
fn engine(precision: Precision, pace: &Arc<Pace>) -> (EngineHandle, Vec<Submission>) {
    let kernels = Arc::new(CpuKernels::new(1).expect("threads"));
    let options = LoadOptions {
        precision,
        kv_precision: KvChoice::Auto,
        max_positions: None,
        kv_cache_bytes: None,
        pooling: None,
        progress: Progress::Hidden,
    };
    let model =
        load(&ModelSource::Directory(directory()), kernels.as_ref(), &options).expect("a model");
    let [all, some] = ["all-linear", "layers"].map(|name| adapter(name, &model.weights));
    let mix = |adapters: [AdapterLease; 2]| {
        AdapterMix::new(adapters.into_iter().zip([0.7, 0.3])).expect("a mix")
    };
    // Gains, shifts, pairs and rows at the embedding, norms: each part alone in a row, and with another's.
    let [dora, tokens, whole, embedding, norms] =
        ["dora-bias", "tokens-both", "whole", "embedding-dora", "norms"]
            .map(|name| adapter(name, &model.weights));
    let mixes = [
        AdapterMix::default(),
        all.clone().into(),
        mix([all, some]),
        dora.clone().into(),
        mix([dora, whole]),
        mix([embedding, tokens]),
        norms.into(),
    ];
    let submission = |(index, (adapters, temperature)): (usize, (AdapterMix, f32))| {
        let constraint = (index % 4 < 2).then(|| Box::new(Odd) as _);
        let max_tokens = WARM_UP + COUNTED + 10;
        let options = SamplingOptions {
            temperature,
            top_p: 0.9,
            ignore_eos: true,
            max_tokens,
            ..Default::default()
        };
        let sampling = SamplingParams::new(options, usize::MAX, 0).expect("in range");
        let (prompt, priority) = (vec![5, 6, 7], Priority::Normal);
        Submission {
            prompt,
            adapters,
            sampling,
            output: None,
            second_text: None,
            constraint,
            priority,
            cache_salt: None,
        }
    };
    let kinds = mixes.into_iter().flat_map(|mix| [(mix.clone(), 0.0), (mix, 0.8)]);
    let submissions = kinds.enumerate().map(submission).collect();
    let config = EngineConfig::default();
    let model = Box::new(Paced { model: model.lm, pace: Arc::clone(pace) });
    let runner = ModelRunner::new(model, kernels, &config).expect("memory");
    (EngineHandle::spawn(runner, &config, Vec::new()).expect("a thread"), submissions)
}

/// Takes what is said until everybody has finished.
fn listen(streams: &mut Vec<EventStream>, pace: &Pace) {
    while !streams.is_empty() {
        let begun = pace.begun.load(SeqCst);
        streams.retain_mut(|stream| {
            let mut last = None;
            while let Ok(event) = stream.try_recv() {
                last = Some(event);
            }
            !matches!(last, Some(Event::Finished { .. }))
        });
        pace.heard.store(begun, SeqCst);
        yield_now();
    }
}

#[test]
fn a_steady_step_allocates_nothing() {
    Counting::leave_out_this_thread();
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8, Precision::Int4] {
        let pace = Arc::new(Pace::default());
        let (engine, submissions) = engine(precision, &pace);
        let submit = |submission| engine.submit(submission).expect("room");
        let mut streams: Vec<_> = submissions.into_iter().map(submit).collect();
        listen(&mut streams, &pace);
        assert!(pace.begun.load(SeqCst) > WARM_UP + COUNTED, "all steps were there");
        assert_eq!(engine.snapshot().resident_adapters.len(), 7);
        assert_eq!(ALLOCATOR.take(), 0, "{precision}");
    }
}
