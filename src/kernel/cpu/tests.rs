//! What the oracle tests do not ask of every implementation.
use super::super::{
    AttentionArgs, Kernels, KvCache, KvPrecision, KvShape, LoraTarget, LowRank, Reach, RopeKvArgs,
    RopeTable, RowSegment,
};
use super::{CpuKernels, Isa};
use candle_core::{Device, Tensor};

/// Reproducible values in −1..1.
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn matrix(seed: u64, rows: usize, cols: usize) -> Tensor {
    Tensor::from_vec(noise(seed, rows * cols), (rows, cols), &Device::Cpu).unwrap()
}

/// Every instruction set of this machine, on one thread and on two.
fn machines() -> Vec<CpuKernels> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.available());
    isas.flat_map(|isa| [1, 2].map(|threads| CpuKernels::with_isa(threads, isa).unwrap())).collect()
}

fn assert_close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= tolerance * (1.0 + want.abs()), "{what}: [{i}] is {got}, not {want}");
    }
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

#[test]
fn a_row_in_several_segments_gets_every_delta_in_their_order() {
    const IN: usize = 40;
    const OUT: usize = 70;
    let pair = |rank: usize| LowRank::new(matrix(9, rank, IN), matrix(8, rank, OUT)).unwrap();
    let slots = [Some(pair(1).into()), Some(pair(6).into())];
    let segment = |rows, slot, weight| RowSegment { rows, slot, weight };
    let all = [segment(0..6, 0, 0.5), segment(2..9, 1, 2.0), segment(9..10, 0, 1.0)];
    for kernels in machines() {
        let x = kernels.upload(&noise(4, 10 * IN), 10, IN).unwrap();
        let run = |calls: &[&[RowSegment]]| {
            let mut y = kernels.upload(&[1.0; 10 * OUT], 10, OUT).unwrap();
            for segments in calls {
                let target = LoraTarget { columns: 0..OUT, slots: &slots };
                kernels.add_lora(&mut y, &x, &[target], segments).unwrap();
            }
            kernels.read(&y).unwrap().into_owned()
        };
        assert_eq!(run(&[&all]), run(&[&all[..1], &all[1..]]), "{}", kernels.describe());
    }
}

/// One sequence of `TOKENS` in its own blocks, on its way through attention in any pieces.
struct Prompt {
    shape: KvShape,
    heads: usize,
    window: Option<usize>,
    blocks: Vec<u32>,
}

/// More than a chunk of positions, and no whole number of them.
const TOKENS: usize = 301;

impl Prompt {
    fn new(block_size: usize, heads: usize, head_dim: usize, window: Option<usize>) -> Self {
        let count = TOKENS.div_ceil(block_size);
        let precision = KvPrecision::F32;
        let shape =
            KvShape { layers: 1, blocks: 2 * count, block_size, kv_heads: 2, head_dim, precision };
        let blocks = (0..count as u32).rev().map(|block| 2 * block + 1).collect();
        Self { shape, heads, window, blocks }
    }

    fn cache(&self, kernels: &CpuKernels) -> KvCache {
        let mut cache = kernels.new_kv(self.shape).unwrap();
        let row = self.shape.row();
        let block_size = self.shape.block_size;
        let slot =
            |t: usize| self.blocks[t / block_size] * block_size as u32 + (t % block_size) as u32;
        let slots: Vec<u32> = (0..TOKENS).map(slot).collect();
        let (k, v) = (noise(5, TOKENS * row), noise(6, TOKENS * row));
        let rows = k.chunks(row).zip(v.chunks(row));
        let joint: Vec<f32> = rows.flat_map(|(k, v)| [k, v].concat()).collect();
        let mut joint = kernels.upload(&joint, TOKENS, 2 * row).unwrap();
        let table = RopeTable::still(self.shape.head_dim).unwrap();
        let args = RopeKvArgs {
            heads: 0,
            positions: &[0; TOKENS],
            table: Some(&table),
            slot_mapping: &slots,
        };
        kernels.rope_write_kv(&mut joint, &mut cache, 0, &args).unwrap();
        cache
    }

    fn queries(&self) -> Vec<f32> {
        noise(7, TOKENS * self.heads * self.shape.head_dim)
    }

    /// The prompt in pieces that end at `ends`; the pieces of one call are sequences of one batch.
    fn run(&self, kernels: &CpuKernels, cache: &KvCache, calls: &[&[usize]]) -> Vec<f32> {
        let (cols, q) = (self.heads * self.shape.head_dim, self.queries());
        let (mut done, mut out) = (0, Vec::new());
        for ends in calls {
            let (first, last) = (done, *ends.last().unwrap());
            let q = &q[first * cols..last * cols];
            let q = kernels.upload(q, last - first, cols).unwrap();
            let (mut starts, mut blocks, mut block_starts) = (vec![0], vec![], vec![0]);
            for end in *ends {
                starts.push((end - first) as u32);
                blocks.extend(&self.blocks);
                block_starts.push(blocks.len() as u32);
                done = *end;
            }
            let args = AttentionArgs {
                block_tables: &blocks,
                block_starts: &block_starts,
                query_starts: &starts,
                context_lens: &ends.iter().map(|end| *end as u32).collect::<Vec<_>>(),
                heads: self.heads,
                scale: 0.7,
                reach: Reach::Back(self.window),
            };
            let piece = kernels.paged_attention(&q, cache, 0, &args).unwrap();
            out.extend_from_slice(&kernels.read(&piece).unwrap());
        }
        out
    }

    fn truth(&self) -> Vec<f64> {
        let KvShape { kv_heads, head_dim, .. } = self.shape;
        let (k, v, q) = (
            noise(5, TOKENS * self.shape.row()),
            noise(6, TOKENS * self.shape.row()),
            self.queries(),
        );
        let mut out = Vec::new();
        for (query, q) in q.chunks(head_dim).enumerate() {
            let (row, head) = (query / self.heads, query % self.heads / (self.heads / kv_heads));
            let start = self.window.map_or(0, |window| (row + 1).saturating_sub(window));
            let at = |t: usize| (t * kv_heads + head) * head_dim;
            let score = |t: usize| 0.7 * dot(q, &k[at(t)..]);
            let weights: Vec<f64> = (start..=row).map(|t| score(t).exp()).collect();
            let sum: f64 = weights.iter().sum();
            out.extend((0..head_dim).map(|d| {
                let terms = (start..=row).zip(&weights).map(|(t, w)| w * f64::from(v[at(t) + d]));
                terms.sum::<f64>() / sum
            }));
        }
        out
    }
}

#[test]
fn attention_is_right_and_the_same_bits_however_the_prompt_was_cut() {
    let each: Vec<usize> = (1..=TOKENS).collect();
    let alone: Vec<&[usize]> = each.chunks(1).collect();
    for kernels in machines() {
        for (block_size, heads, head_dim) in [(16, 6, 64), (5, 2, 20), (32, 10, 8)] {
            for window in [None, Some(1), Some(40), Some(290)] {
                let what = format!("{} {block_size} {heads} {window:?}", kernels.describe());
                let prompt = Prompt::new(block_size, heads, head_dim, window);
                let cache = prompt.cache(&kernels);
                let whole = prompt.run(&kernels, &cache, &[&[TOKENS]]);
                assert_close(&what, &whole, &prompt.truth(), 1e-5);
                assert_eq!(prompt.run(&kernels, &cache, &[&[17, 18], &[TOKENS]]), whole, "{what}");
                assert_eq!(prompt.run(&kernels, &cache, &alone), whole, "{what}");
            }
        }
    }
}
