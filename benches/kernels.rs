//! The CPU kernels at the shapes of SmolLM2-135M: `cargo bench --bench kernels [-- FILTER]`.
//!
//! Throughput is given in multiplications and additions ("elements") and in bytes read: 1 Gelem/s is
//! 1 GFLOP/s. `lorad bench machine` says what this machine could give. All cores are used; `LORAD_THREADS`
//! says otherwise.
use candle_core::{Device, Tensor};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use lorad::kernel::{
    Act, Activation, AttentionArgs, BaseWeight, CpuKernels, Kernels, KvPrecision, KvShape,
    LinearDelta, LoraTarget, LowRank, NormWeights, Precision, Reach, RopeKvArgs, RopeTable,
    RowSegment,
};
use std::hint::black_box;
use std::ops::Range;
use std::thread::available_parallelism;

/// `[out, in]` of queries, keys and values; attention's output; gate and up; down. The head is apart.
const LAYER: [[usize; 2]; 4] = [[960, 576], [576, 576], [3072, 576], [576, 1536]];
const HEAD: [usize; 2] = [49_152, 576];
/// Layers enough that their weights come from memory, not from the cache.
const LAYERS: usize = 30;
const ROWS: [usize; 4] = [1, 4, 16, 64];

fn kernels() -> CpuKernels {
    let asked = std::env::var("LORAD_THREADS").ok().and_then(|threads| threads.parse().ok());
    let cores = || available_parallelism().map_or(1, usize::from);
    CpuKernels::new(asked.unwrap_or_else(cores)).expect("the system starts threads")
}

/// Reproducible values in −0.5..0.5.
fn noise(len: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 16_777_216.0 - 0.5
    };
    (0..len).map(|_| next()).collect()
}

fn tensor(rows: usize, cols: usize) -> Tensor {
    Tensor::from_vec(noise(rows * cols), (rows, cols), &Device::Cpu).expect("sizes agree")
}

fn act(kernels: &CpuKernels, rows: usize, cols: usize) -> Act {
    kernels.upload(&noise(rows * cols), rows, cols).expect("sizes agree")
}

fn weight(kernels: &CpuKernels, [out, inner]: [usize; 2], precision: Precision) -> BaseWeight {
    kernels.pack(&[tensor(out, inner)], precision).expect("a matrix")
}

fn linear(criterion: &mut Criterion) {
    let kernels = kernels();
    let machine = kernels.describe();
    let precisions = ["f32", "bf16", "int8", "int4"].into_iter();
    // What this build does not have does not parse.
    for precision in precisions.filter_map(|name| name.parse().ok()) {
        let layers = LAYER.repeat(LAYERS);
        let layers: Vec<BaseWeight> =
            layers.iter().map(|shape| weight(&kernels, *shape, precision)).collect();
        products(criterion, &kernels, &format!("{machine}: layers {precision}"), &layers);
        let head = [weight(&kernels, HEAD, precision)];
        products(criterion, &kernels, &format!("{machine}: head {precision}"), &head);
    }
}

/// Every weight once, for each number of rows.
fn products(criterion: &mut Criterion, kernels: &CpuKernels, name: &str, weights: &[BaseWeight]) {
    let mut group = criterion.benchmark_group(name);
    let size: usize = weights.iter().map(|w| w.out_features() * w.in_features()).sum();
    for rows in ROWS {
        let inputs = [576, 1536].map(|cols| act(kernels, rows, cols));
        let bytes = weights.iter().map(BaseWeight::bytes).sum::<usize>() as u64;
        let elements = (2 * rows * size) as u64;
        group.throughput(Throughput::ElementsAndBytes { elements, bytes });
        group.bench_with_input(BenchmarkId::from_parameter(rows), &inputs, |bencher, inputs| {
            bencher.iter(|| {
                for weight in weights {
                    let x = &inputs[usize::from(weight.in_features() == 1536)];
                    black_box(kernels.linear(x, weight, None).expect("shapes agree"));
                }
            });
        });
    }
}

fn lora(criterion: &mut Criterion) {
    let kernels = kernels();
    let mut group = criterion.benchmark_group("lora 576x576 rank 16");
    let pair = || LowRank::new(tensor(16, 576), tensor(16, 576)).expect("ranks agree");
    let load = |pair| kernels.load_low_rank(&pair, kernels.auto_precision()).expect("host memory");
    let slots: Vec<_> = (0..16).map(|_| Some(load(pair()).into())).collect();
    for (rows, adapters) in [(1, 1), (16, 1), (16, 4), (16, 16), (64, 4)] {
        let segment = |slot: usize| {
            let rows = slot * rows / adapters..(slot + 1) * rows / adapters;
            RowSegment { rows, slot, weight: 1.0 }
        };
        let segments: Vec<RowSegment> = (0..adapters).map(segment).collect();
        let (x, mut y) = (act(&kernels, rows, 576), act(&kernels, rows, 576));
        let elements = 2 * rows as u64 * 16 * (576 + 576);
        let bytes = (adapters * load(pair()).bytes()) as u64;
        group.throughput(Throughput::ElementsAndBytes { elements, bytes });
        group.bench_function(format!("{rows} rows, {adapters} adapters"), |bencher| {
            let targets = [LoraTarget { columns: 0..576, slots: &slots }];
            bencher
                .iter(|| kernels.add_lora(&mut y, &x, &targets, &segments).expect("shapes agree"));
        });
    }
}

fn attention(criterion: &mut Criterion) {
    const HEADS: usize = 9;
    let kernels = kernels();
    let mut group = criterion.benchmark_group("attention");
    let precision = KvPrecision::Bf16;
    let shape =
        KvShape { layers: 1, blocks: 512, block_size: 32, kv_heads: 3, head_dim: 64, precision };
    let mut cache = kernels.new_kv(shape).expect("memory");
    let tokens = shape.blocks * shape.block_size;
    let mut kv = act(&kernels, tokens, 2 * shape.row());
    let all: Vec<u32> = (0..tokens as u32).collect();
    let half = shape.head_dim / 2;
    let table = RopeTable { cos: tensor(1, half), sin: tensor(1, half), head_dim: shape.head_dim };
    let rope = RopeKvArgs {
        heads: 0,
        positions: &vec![0; tokens],
        table: Some(&table),
        slot_mapping: &all,
    };
    kernels.rope_write_kv(&mut kv, &mut cache, 0, &rope).expect("the cache has these rows");
    for (sequences, rows, context) in [(1, 1, 1024), (16, 1, 128), (16, 1, 1024), (1, 512, 512)] {
        let blocks = context / shape.block_size;
        let starts = |step: usize| (0..=sequences).map(|i| (i * step) as u32).collect::<Vec<_>>();
        let q = act(&kernels, sequences * rows, HEADS * shape.head_dim);
        let (query_starts, block_starts) = (starts(rows), starts(blocks));
        let tables: Vec<u32> = (0..sequences * blocks).map(|i| (i * 37 % 512) as u32).collect();
        let args = AttentionArgs {
            block_tables: &tables,
            block_starts: &block_starts,
            query_starts: &query_starts,
            context_lens: &vec![context as u32; sequences],
            heads: HEADS,
            scale: 0.125,
            reach: Reach::Back(None),
        };
        let seen: usize = (0..rows).map(|row| context - row).sum::<usize>() * sequences;
        let elements = (seen * HEADS * shape.head_dim * 4) as u64;
        let bytes = (sequences * blocks * kernels.kv_block_bytes(shape)) as u64;
        group.throughput(Throughput::ElementsAndBytes { elements, bytes });
        let name = format!("{sequences} sequences, {rows} rows of {context}");
        group.bench_function(name, |bencher| {
            bencher
                .iter(|| black_box(kernels.paged_attention(&q, &cache, 0, &args).expect("fits")));
        });
    }
}

/// What a layer does to its rows besides products and attention.
fn rows(criterion: &mut Criterion) {
    let kernels = kernels();
    let mut group = criterion.benchmark_group("rows");
    for rows in ROWS {
        let (x, weight) = (act(&kernels, rows, 576), act(&kernels, 1, 576));
        group.throughput(Throughput::Bytes((rows * 576 * 8) as u64));
        group.bench_function(BenchmarkId::new("norm", rows), |bencher| {
            bencher.iter(|| {
                black_box(
                    kernels.rms_norm(&x, NormWeights::base(&weight), 1e-5).expect("shapes agree"),
                )
            });
        });
        let gate_up = act(&kernels, rows, 2 * 1536);
        group.throughput(Throughput::Bytes((rows * 3 * 1536 * 4) as u64));
        group.bench_function(BenchmarkId::new("gated", rows), |bencher| {
            bencher.iter(|| black_box(kernels.gated(&gate_up, Activation::Silu).expect("halves")));
        });
    }
}

/// `MiniLM`'s.
const HIDDEN: usize = 384;
const INNER: usize = 1536;
/// `[out, in]` of queries, keys and values; attention's output; up; down.
const TEXT_LAYER: [[usize; 2]; 4] =
    [[3 * HIDDEN, HIDDEN], [HIDDEN, HIDDEN], [INNER, HIDDEN], [HIDDEN, INNER]];
/// Of a short text.
const TOKENS: usize = 12;

/// A layer of `MiniLM` over short texts, part by part: its products, what reads around them, and its adapters.
fn encoder(criterion: &mut Criterion) {
    let kernels = kernels();
    let mut group = criterion.benchmark_group("encoder");
    let weights = TEXT_LAYER.map(|shape| weight(&kernels, shape, Precision::Bf16));
    for texts in [1, 16, 64] {
        let rows = texts * TOKENS;
        let inputs = [HIDDEN, INNER].map(|cols| act(&kernels, rows, cols));
        group.throughput(Throughput::Elements(texts as u64));
        group.bench_function(format!("{texts} texts: products"), |bencher| {
            bencher.iter(|| {
                for weight in &weights {
                    let x = &inputs[usize::from(weight.in_features() == INNER)];
                    black_box(kernels.linear(x, weight, None).expect("shapes agree"));
                }
            });
        });
        text_deltas(&mut group, &kernels, texts);
        text_attention(&mut group, &kernels, texts);
        let (scale, mut wide) = (act(&kernels, 1, HIDDEN), act(&kernels, rows, INNER));
        group.bench_function(format!("{texts} texts: two norms"), |bencher| {
            let scale = NormWeights::base(&scale);
            bencher.iter(|| {
                for _ in 0..2 {
                    let y = kernels.layer_norm(&inputs[0], scale, Some(scale), 1e-12);
                    black_box(y.expect("shapes agree"));
                }
            });
        });
        group.bench_function(format!("{texts} texts: gelu"), |bencher| {
            bencher.iter(|| kernels.activate(&mut wide, Activation::Gelu).expect("host memory"));
        });
    }
}

/// Adapters on queries and values, and on all of a layer.
fn text_deltas(group: &mut BenchmarkGroup<'_, WallTime>, kernels: &CpuKernels, texts: usize) {
    // A layer and a part of its output.
    let some = [(0, 0), (0, 2)].as_slice();
    let all = [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (3, 0)].as_slice();
    for (sites, rank, adapters) in [(some, 8, 1), (some, 8, 8), (all, 16, 1), (all, 16, 8)] {
        let segment = |slot: usize| {
            let start = |slot: usize| slot * texts / adapters * TOKENS;
            RowSegment { rows: start(slot)..start(slot + 1), slot, weight: 1.0 }
        };
        let segments: Vec<RowSegment> = (0..adapters).map(segment).collect();
        let mut layers: Vec<_> = TEXT_LAYER
            .iter()
            .enumerate()
            .map(|(layer, [out, cols])| {
                let width = if layer == 0 { HIDDEN } else { *out };
                let parts = sites.iter().filter(|(of, _)| *of == layer).map(|(_, part)| *part);
                let load = |_| {
                    let pair = LowRank::new(tensor(rank, *cols), tensor(rank, width));
                    let pair = pair.expect("one rank");
                    Some(kernels.load_low_rank(&pair, Precision::Bf16).expect("host memory").into())
                };
                let slots = |part: usize| -> (Range<usize>, Vec<Option<LinearDelta>>) {
                    (part * width..(part + 1) * width, (0..adapters).map(load).collect())
                };
                let (x, y) = (texts * TOKENS, texts * TOKENS);
                (
                    act(kernels, x, *cols),
                    act(kernels, y, *out),
                    parts.map(slots).collect::<Vec<_>>(),
                )
            })
            .collect();
        let name = format!("{texts} texts: {} sites, {adapters} adapters", sites.len());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for (x, y, parts) in layers.iter_mut().filter(|(.., parts)| !parts.is_empty()) {
                    let targets = parts
                        .iter()
                        .map(|(columns, slots)| LoraTarget { columns: columns.clone(), slots });
                    let targets: Vec<_> = targets.collect();
                    kernels.add_lora(y, x, &targets, &segments).expect("shapes agree");
                }
            });
        });
    }
}

/// Keys and values of texts written, and attention over them: 12 heads of 32.
fn text_attention(group: &mut BenchmarkGroup<'_, WallTime>, kernels: &CpuKernels, texts: usize) {
    let (heads, precision) = (12, KvPrecision::Bf16);
    let shape = KvShape {
        layers: 1,
        blocks: texts,
        block_size: 32,
        kv_heads: heads,
        head_dim: 32,
        precision,
    };
    let mut cache = kernels.new_kv(shape).expect("memory");
    let mut qkv = act(kernels, texts * TOKENS, 3 * shape.row());
    let slot = |row: usize| (row / TOKENS * shape.block_size + row % TOKENS) as u32;
    let slots: Vec<u32> = (0..texts * TOKENS).map(slot).collect();
    let rope = RopeKvArgs { heads, positions: &[], table: None, slot_mapping: &slots };
    group.bench_function(format!("{texts} texts: keys and values"), |bencher| {
        bencher.iter(|| kernels.rope_write_kv(&mut qkv, &mut cache, 0, &rope).expect("fits"));
    });
    let starts = |step: usize| (0..=texts).map(|i| (i * step) as u32).collect::<Vec<_>>();
    let args = AttentionArgs {
        block_tables: &(0..texts as u32).collect::<Vec<_>>(),
        block_starts: &starts(1),
        query_starts: &starts(TOKENS),
        context_lens: &vec![TOKENS as u32; texts],
        heads,
        scale: 0.2,
        reach: Reach::Around(None),
    };
    group.bench_function(format!("{texts} texts: attention"), |bencher| {
        bencher.iter(|| black_box(kernels.paged_attention(&qkv, &cache, 0, &args).expect("fits")));
    });
}

criterion_group!(benches, linear, lora, attention, rows, encoder);
criterion_main!(benches);
