//! Runs a model step by step over its paged cache, as the engine would, and reads golden answers.
use lorad::{
    adapter::{AdapterFiles, AdapterLimits, format},
    kernel::{
        self, CandleOps, DeviceChoice, KernelConfig, Kernels, KvCache, KvChoice, KvShape,
        Precision, Reference,
    },
    lora::{AdapterSlot, LoraRouting, LoraSlots, SlotUse},
    model::{
        ForwardBatch, LoadOptions, LoadedModel, ModelSource, Output, Progress, StepContext,
        WantedOutput, load,
    },
};
use safetensors::SafeTensors;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

const BLOCK_SIZE: usize = 16;
const BLOCKS: usize = 96;
const SLOTS: usize = 32;

/// Every implementation of the kernels on this machine's CPU, by name.
pub(crate) fn all_kernels() -> Vec<(&'static str, Arc<dyn Kernels>)> {
    vec![
        ("reference", Arc::new(Reference)),
        ("candle", Arc::new(CandleOps::new(candle_core::Device::Cpu))),
        ("cpu", cpu_kernels()),
    ]
}

/// What a server uses on this machine without a GPU.
pub(crate) fn cpu_kernels() -> Arc<dyn Kernels> {
    let config = KernelConfig {
        device: DeviceChoice::Cpu,
        precision: Precision::Auto,
        kv_precision: KvChoice::Auto,
        threads: None,
    };
    kernel::open(&config).unwrap()
}

/// A model with its cache and its adapters.
pub(crate) struct Harness {
    pub(crate) model: LoadedModel,
    kernels: Arc<dyn Kernels>,
    kv: KvCache,
    lora: LoraSlots,
    free_blocks: Vec<u32>,
    /// The tokens that make each loaded adapter act, where it waits for some.
    invocations: Vec<Option<Vec<u32>>>,
}

/// A sequence of tokens, the first `computed` of which are in the cache.
pub(crate) struct Sequence {
    pub(crate) tokens: Vec<u32>,
    pub(crate) computed: usize,
    /// Its adapters, each from a token of the sequence on.
    adapters: Vec<SlotUse>,
    blocks: Vec<u32>,
}

/// A text that is read whole, and what is wanted of it.
#[derive(Clone)]
pub(crate) struct Text {
    pub(crate) tokens: Vec<u32>,
    /// Which text each token belongs to; empty for the first.
    pub(crate) types: Vec<u32>,
    pub(crate) adapter: Option<AdapterSlot>,
    pub(crate) output: Output,
}

impl Sequence {
    /// With an adapter that acts on all of it.
    pub(crate) fn new(tokens: &[u32], slot: Option<AdapterSlot>) -> Self {
        let adapters = slot.into_iter().map(SlotUse::from).collect();
        Self { tokens: tokens.to_vec(), computed: 0, adapters, blocks: Vec::new() }
    }

    /// Tokens not computed yet.
    pub(crate) fn left(&self) -> usize {
        self.tokens.len() - self.computed
    }
}

impl Harness {
    pub(crate) fn open(directory: &Path, kernels: &Arc<dyn Kernels>, precision: Precision) -> Self {
        let source = ModelSource::parse(directory.to_str().unwrap()).unwrap();
        let options = LoadOptions {
            precision,
            kv_precision: KvChoice::Auto,
            max_positions: None,
            kv_cache_bytes: None,
            pooling: None,
            progress: Progress::Hidden,
        };
        let model = load(&source, kernels.as_ref(), &options)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let (dims, stored) = (model.lm.kv_dims(), model.lm.precision());
        let shape = KvShape {
            layers: dims.layers,
            blocks: BLOCKS,
            block_size: BLOCK_SIZE,
            kv_heads: dims.kv_heads,
            head_dim: dims.head_dim,
            precision: dims.precision,
        };
        Self {
            lora: LoraSlots::new(SLOTS, stored, model.lm.lora_layout()),
            model,
            kernels: Arc::clone(kernels),
            kv: kernels.new_kv(shape).unwrap(),
            free_blocks: scattered_blocks(),
            invocations: Vec::new(),
        }
    }

    /// Reads a PEFT directory into the next free adapter slot.
    pub(crate) fn add_adapter(&mut self, directory: &Path) -> AdapterSlot {
        let limits = AdapterLimits::default();
        let files = AdapterFiles::read(directory, &limits).unwrap();
        let adapter = format::parse(&files, &self.model.weights, &limits)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let slot = AdapterSlot(self.invocations.len());
        self.invocations.push(adapter.weights.invocation().map(<[u32]>::to_vec));
        self.lora.load(slot, &adapter.weights, self.kernels.as_ref()).unwrap();
        slot
    }

    /// Empties an adapter slot.
    pub(crate) fn clear_adapter(&mut self, slot: AdapterSlot) {
        self.lora.clear(slot);
    }

    /// A prompt with some of each adapter; those that wait for tokens begin where the prompt has them last.
    pub(crate) fn sequence(&self, prompt: &[u32], mix: &[(AdapterSlot, f32)]) -> Sequence {
        let begins = |tokens: &Vec<u32>| {
            prompt
                .windows(tokens.len())
                .rposition(|window| window == tokens.as_slice())
                .unwrap_or(usize::MAX)
        };
        let adapter = |&(slot, weight): &(AdapterSlot, f32)| SlotUse {
            slot,
            weight,
            from: self.invocations[slot.0].as_ref().map_or(0, begins),
        };
        Sequence { adapters: mix.iter().map(adapter).collect(), ..Sequence::new(prompt, None) }
    }

    /// Computes the next `count` tokens of each sequence in one forward pass; logits of all of them, `[rows][vocab]`
    /// for each sequence.
    pub(crate) fn step(&mut self, work: &mut [(&mut Sequence, usize)]) -> Vec<Vec<Vec<f32>>> {
        let batch = self.batch(work);
        let context = StepContext {
            batch: &batch,
            kv: &mut self.kv,
            lora: &self.lora,
            kernels: self.kernels.as_ref(),
        };
        let logits = self.model.lm.forward(context).unwrap().logits;
        let values = self.kernels.read(&logits).unwrap();
        let mut rows = values.chunks(self.model.lm.vocab_size()).map(<[f32]>::to_vec);
        work.iter_mut()
            .map(|(sequence, count)| {
                sequence.computed += *count;
                rows.by_ref().take(*count).collect()
            })
            .collect()
    }

    /// All of a sequence in one step.
    pub(crate) fn logits(&mut self, tokens: &[u32], slot: Option<AdapterSlot>) -> Vec<Vec<f32>> {
        let mut sequence = Sequence::new(tokens, slot);
        let logits = self.step(&mut [(&mut sequence, tokens.len())]).remove(0);
        self.release(sequence);
        logits
    }

    /// The `count` most likely tokens after `prompt`, each after the other, and the logits each was taken from.
    pub(crate) fn greedy(
        &mut self,
        prompt: &[u32],
        slot: Option<AdapterSlot>,
        count: usize,
    ) -> (Vec<u32>, Vec<Vec<f32>>) {
        let mut sequence = Sequence::new(prompt, slot);
        let mut rows = Vec::new();
        for _ in 0..count {
            let left = sequence.left();
            let row = self.step(&mut [(&mut sequence, left)]).remove(0).pop().unwrap();
            sequence.tokens.push(argmax(&row));
            rows.push(row);
        }
        let tokens = sequence.tokens[prompt.len()..].to_vec();
        self.release(sequence);
        (tokens, rows)
    }

    /// Reads texts in one forward pass.
    pub(crate) fn read(&mut self, texts: &[Text]) -> kernel::Result<Vec<Vec<f32>>> {
        let sequence = |text: &Text| Sequence::new(&text.tokens, text.adapter);
        let mut sequences: Vec<_> = texts.iter().map(sequence).collect();
        let mut work: Vec<_> = sequences
            .iter_mut()
            .map(|sequence| {
                let left = sequence.left();
                (sequence, left)
            })
            .collect();
        let mut batch = self.batch(&mut work);
        (batch.logit_rows, batch.logit_lora) = (Vec::new(), LoraRouting::default());
        if texts.iter().any(|text| !text.types.is_empty()) {
            let types = |text: &Text| match text.types.len() {
                0 => vec![0; text.tokens.len()],
                _ => text.types.clone(),
            };
            batch.token_types = texts.iter().flat_map(types).collect();
        }
        let is_causal = self.model.lm.is_causal();
        let (mut row, mut uses) = (0, Vec::new());
        for text in texts {
            let end = row + text.tokens.len() as u32;
            let rows = if is_causal { end - 1..end } else { row..end };
            uses.push((text.output.width(rows.len()), text.adapter));
            batch.outputs.push(WantedOutput { rows, output: text.output });
            row = end;
        }
        batch.output_lora = LoraRouting::new(uses);
        let context = StepContext {
            batch: &batch,
            kv: &mut self.kv,
            lora: &self.lora,
            kernels: self.kernels.as_ref(),
        };
        let step = self.model.lm.forward(context);
        for sequence in sequences {
            self.release(sequence);
        }
        Ok(step?.outputs)
    }

    /// Gives a sequence's blocks back.
    pub(crate) fn release(&mut self, sequence: Sequence) {
        self.free_blocks.extend(sequence.blocks);
    }

    fn batch(&mut self, work: &mut [(&mut Sequence, usize)]) -> ForwardBatch {
        let mut batch =
            ForwardBatch { block_starts: vec![0], query_starts: vec![0], ..Default::default() };
        for (sequence, count) in work.iter_mut() {
            let end = sequence.computed + *count;
            while sequence.blocks.len() * BLOCK_SIZE < end {
                sequence.blocks.push(self.free_blocks.pop().expect("the cache is large enough"));
            }
            for position in sequence.computed..end {
                let block = sequence.blocks[position / BLOCK_SIZE] as usize;
                batch.token_ids.push(sequence.tokens[position]);
                batch.positions.push(position as u32);
                batch.slot_mapping.push((block * BLOCK_SIZE + position % BLOCK_SIZE) as u32);
            }
            batch.block_tables.extend(&sequence.blocks);
            batch.block_starts.push(batch.block_tables.len() as u32);
            batch.query_starts.push(batch.token_ids.len() as u32);
            batch.context_lens.push(end as u32);
        }
        batch.logit_rows = (0..batch.token_ids.len() as u32).collect();
        batch.lora = LoraRouting::new(work.iter().map(|(sequence, count)| {
            let after = sequence.computed;
            let here =
                move |used: &SlotUse| SlotUse { from: used.from.saturating_sub(after), ..*used };
            (*count, sequence.adapters.iter().map(here))
        }));
        batch.logit_lora = batch.lora.clone();
        batch
    }
}

/// All blocks, neighbours far apart, so that nothing works by chance on a contiguous cache.
fn scattered_blocks() -> Vec<u32> {
    const STRIDE: usize = 37;
    (0..BLOCKS).map(|i| (i * STRIDE % BLOCKS) as u32).collect()
}

/// The largest logit's token, the first of equals.
pub(crate) fn argmax(row: &[f32]) -> u32 {
    let better = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
    (0..row.len()).reduce(better).unwrap() as u32
}

/// The largest difference of two logit tables.
pub(crate) fn max_difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len(), "as many positions");
    let differences = a.iter().zip(b).flat_map(|(a, b)| {
        assert_eq!(a.len(), b.len(), "as many tokens");
        a.iter().zip(b).map(|(a, b)| (a - b).abs())
    });
    // A NaN must not get lost in a maximum.
    differences.fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most })
}

/// A JSON file.
pub(crate) fn json(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

/// Token ids in JSON.
pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// An f32 tensor as rows; a vector is one row.
pub(crate) fn rows(file: &Path, key: &str) -> Vec<Vec<f32>> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(key).unwrap();
    assert_eq!(tensor.dtype(), safetensors::Dtype::F32);
    let width = *tensor.shape().last().unwrap();
    let numbers = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    numbers.collect::<Vec<_>>().chunks(width).map(<[f32]>::to_vec).collect()
}

/// Below the repository's root.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
