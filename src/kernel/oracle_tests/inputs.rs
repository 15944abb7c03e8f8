//! Random tensors, and a batch of sequences in a paged cache.
use super::candidates::Candidate;
use crate::kernel::{
    Act, AttentionArgs, Kernels, KvCache, KvPrecision, KvShape, LowRank, Reach, Reference,
    RopeKvArgs, RowSegment,
};
use candle_core::{Device, Tensor};
use proptest::{collection::vec, prelude::*};
use std::ops::Range;

/// Values in -1..1 from a seed (`SplitMix64`).
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    pub(super) fn tensor(&mut self, rows: usize, cols: usize) -> Tensor {
        Tensor::from_vec(self.values(rows * cols), (rows, cols), &Device::Cpu).expect("sizes agree")
    }

    pub(super) fn pair(&mut self, rank: usize, cols_in: usize, cols_out: usize) -> LowRank {
        LowRank::new(self.tensor(rank, cols_in), self.tensor(rank, cols_out)).expect("one rank")
    }

    fn shuffle(&mut self, items: &mut [u32]) {
        for i in (1..items.len()).rev() {
            items.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }
}

/// Segments anywhere in a batch; `raw` is what proptest drew.
pub(super) fn segments(
    raw: &[(f64, f64, usize, f32)],
    rows: usize,
    slots: usize,
) -> Vec<RowSegment> {
    let at = |fraction: f64| (fraction * (rows + 1) as f64) as usize;
    let segment = |&(a, b, slot, weight): &(f64, f64, usize, f32)| RowSegment {
        rows: at(a.min(b))..at(a.max(b)),
        slot: slot % slots,
        weight,
    };
    raw.iter().map(segment).collect()
}

/// Sequences to attend over.
#[derive(Clone, Debug)]
pub(super) struct Paged {
    pub(super) shape: KvShape,
    pub(super) heads: usize,
    pub(super) reach: Reach,
    /// `(rows, context)` of each sequence, `rows <= context`.
    pub(super) sequences: Vec<(usize, usize)>,
    pub(super) seed: u64,
}

/// Heads and blocks of all sizes.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    block_size: usize,
    precision: KvPrecision,
}

fn sizes() -> impl Strategy<Value = Sizes> {
    let head = prop::sample::select(vec![2_usize, 6, 8, 16, 20, 24, 32, 64, 64, 80]);
    let block = prop::sample::select(vec![1_usize, 3, 8, 16, 24, 32, 64]);
    let precision =
        prop::sample::select(vec![KvPrecision::F32, KvPrecision::Bf16, KvPrecision::Int8]);
    (1..4_usize, 1..9_usize, head, block, precision).prop_map(
        |(kv_heads, group, head_dim, block_size, precision)| Sizes {
            kv_heads,
            group,
            head_dim,
            block_size,
            precision,
        },
    )
}

impl Sizes {
    fn paged(self, reach: Reach, sequences: Vec<(usize, usize)>, seed: u64) -> Paged {
        let Self { kv_heads, group, head_dim, block_size, precision } = self;
        let used: usize = sequences.iter().map(|(_, context)| context.div_ceil(block_size)).sum();
        let shape =
            KvShape { layers: 2, blocks: used + 3, block_size, kv_heads, head_dim, precision };
        Paged { shape, heads: kv_heads * group, reach, sequences, seed }
    }
}

/// One to eight sequences of every kind: decode rows, chunks of a prompt, whole prompts, an idle one.
pub(super) fn paged() -> impl Strategy<Value = Paged> {
    // As many decode rows as everything else: some kernels take those together.
    let rows = prop_oneof![Just(1), 0..12_usize];
    // Now and then more positions than a kernel may take at once.
    let context = prop_oneof![9 => 1..70_usize, 1 => 250..600_usize];
    let sequence = (rows, context).prop_map(|(rows, context)| (rows.min(context), context));
    let window = prop::option::of(prop_oneof![1..40_usize, 200..400_usize]);
    (sizes(), window, vec(sequence, 1..9), any::<u64>()).prop_map(
        |(sizes, window, sequences, seed)| sizes.paged(Reach::Back(window), sequences, seed),
    )
}

/// Whole texts whose tokens see those on both sides.
pub(super) fn around() -> impl Strategy<Value = Paged> {
    let far = || prop::option::of(prop_oneof![0..20_usize, 100..300_usize]);
    let short = (sizes(), far(), vec(1..40_usize, 1..7), any::<u64>());
    // More positions than a kernel may take at once; few heads, for the oracle is slow.
    let long = (sizes(), far(), vec(250..330_usize, 1..2), any::<u64>()).prop_map(
        |(sizes, far, lens, seed)| (Sizes { kv_heads: 1, group: 1, ..sizes }, far, lens, seed),
    );
    prop_oneof![7 => short, 1 => long].prop_map(|(sizes, far, lens, seed)| {
        sizes.paged(Reach::Around(far), lens.into_iter().map(|len| (len, len)).collect(), seed)
    })
}

/// [`Paged`] with its memory: what [`AttentionArgs`] borrows.
pub(super) struct PagedBatch {
    pub(super) cache: KvCache,
    pub(super) q: Vec<f32>,
    pub(super) context_lens: Vec<u32>,
    pub(super) query_starts: Vec<u32>,
    pub(super) block_starts: Vec<u32>,
    pub(super) block_tables: Vec<u32>,
}

const LAYER: usize = 1;

impl Paged {
    /// Fills a cache of the candidate's: every row that no sequence owns holds what is no number, which shows.
    pub(super) fn fill(&self, kernels: &dyn Kernels) -> PagedBatch {
        let mut noise = Noise(self.seed);
        let mut cache = kernels.new_kv(self.shape).expect("room for a small cache");
        let all: Vec<u32> = (0..(self.shape.blocks * self.shape.block_size) as u32).collect();
        let poison = vec![f32::NAN; all.len() * self.shape.row()];
        self.write(kernels, &mut cache, (&poison, &poison), &all);
        let mut free: Vec<u32> = (0..self.shape.blocks as u32).collect();
        noise.shuffle(&mut free);
        let mut batch = PagedBatch {
            q: noise.values(self.rows() * self.heads * self.shape.head_dim),
            context_lens: Vec::new(),
            query_starts: vec![0],
            block_starts: vec![0],
            block_tables: Vec::new(),
            cache,
        };
        for &(rows, context) in &self.sequences {
            let blocks = free.split_off(free.len() - context.div_ceil(self.shape.block_size));
            self.write_sequence(kernels, &mut batch.cache, (&blocks, context), &mut noise);
            batch.block_tables.extend(blocks);
            batch.block_starts.push(batch.block_tables.len() as u32);
            batch.context_lens.push(context as u32);
            batch.query_starts.push(batch.query_starts[batch.query_starts.len() - 1] + rows as u32);
        }
        batch
    }

    fn rows(&self) -> usize {
        self.sequences.iter().map(|(rows, _)| rows).sum()
    }

    fn write_sequence(
        &self,
        kernels: &dyn Kernels,
        cache: &mut KvCache,
        (blocks, context): (&[u32], usize),
        noise: &mut Noise,
    ) {
        let size = self.shape.block_size;
        let slots: Vec<u32> =
            (0..context).map(|at| blocks[at / size] * size as u32 + (at % size) as u32).collect();
        let mut values = || noise.values(context * self.shape.row());
        self.write(kernels, cache, (&values(), &values()), &slots);
    }

    /// Writes a row of keys and one of values to each of `slots`.
    pub(super) fn write(
        &self,
        kernels: &dyn Kernels,
        cache: &mut KvCache,
        (k, v): (&[f32], &[f32]),
        slots: &[u32],
    ) {
        let row = self.shape.row();
        let rows = k.chunks_exact(row).zip(v.chunks_exact(row));
        let joint: Vec<f32> = rows.flat_map(|(k, v)| [k, v].concat()).collect();
        let mut joint = kernels.upload(&joint, slots.len(), 2 * row).expect("sizes agree");
        let args = RopeKvArgs { heads: 0, positions: &[], table: None, slot_mapping: slots };
        kernels.rope_write_kv(&mut joint, cache, LAYER, &args).expect("slots within the cache");
    }
}

impl PagedBatch {
    /// Attention over every sequence.
    pub(super) fn attend(&self, kernels: &dyn Kernels, paged: &Paged) -> Act {
        self.attend_to(kernels, paged, 0..self.context_lens.len())
    }

    /// Attention over some of the sequences alone.
    pub(super) fn attend_to(
        &self,
        kernels: &dyn Kernels,
        paged: &Paged,
        sequences: Range<usize>,
    ) -> Act {
        let from_zero = |starts: &[u32]| -> Vec<u32> {
            let starts = &starts[sequences.start..=sequences.end];
            starts.iter().map(|start| start - starts[0]).collect()
        };
        let (queries, blocks) = (from_zero(&self.query_starts), from_zero(&self.block_starts));
        let range =
            |starts: &[u32]| starts[sequences.start] as usize..starts[sequences.end] as usize;
        let args = AttentionArgs {
            block_tables: &self.block_tables[range(&self.block_starts)],
            block_starts: &blocks,
            query_starts: &queries,
            context_lens: &self.context_lens[sequences.clone()],
            heads: paged.heads,
            scale: (paged.shape.head_dim as f32).powf(-0.5),
            reach: paged.reach,
        };
        let (cols, rows) = (paged.heads * paged.shape.head_dim, range(&self.query_starts));
        let q = &self.q[rows.start * cols..rows.end * cols];
        let q = kernels.upload(q, rows.len(), cols).expect("sizes agree");
        kernels.paged_attention(&q, &self.cache, LAYER, &args).expect("arguments agree")
    }
}

/// The same activations twice: the candidate's and the reference's.
pub(super) fn both(candidate: &Candidate, values: &[f32], cols: usize) -> (Act, Act) {
    let rows = values.len() / cols;
    (candidate.act(values, cols), Reference.upload(values, rows, cols).expect("sizes agree"))
}
