//! Arguments that do not fit are errors in every implementation, never panics or wrong numbers.
use super::{
    candidates::{Candidate, candidates},
    inputs::Noise,
};
use crate::kernel::{
    Activation, AttentionArgs, EmbeddingDelta, FeedForward, KernelError, KvPrecision, KvShape,
    LinearDelta, LoraTarget, NormWeights, Precision, Reach, RopeKvArgs, RopeTable, RowSegment,
    TrainedRows,
};
use candle_core::{DType, Device, Tensor};
use std::slice::from_ref;

fn refused<T>(candidate: &Candidate, what: &str, result: Result<T, KernelError>) {
    match result {
        Err(KernelError::Mismatch { detail, .. }) => assert!(!detail.is_empty()),
        Err(other) => panic!("{}, {what}: {other}", candidate.name),
        Ok(_) => panic!("{}, {what}: accepted", candidate.name),
    }
}

#[test]
fn shapes_that_disagree_are_refused() {
    let mut noise = Noise(1);
    let (weight, vector) = (noise.tensor(4, 3), noise.tensor(1, 3).flatten_all().unwrap());
    for candidate in candidates() {
        let kernels = &candidate.kernels;
        let act = |rows: usize, cols: usize| candidate.act(&vec![1.0; rows * cols], cols);
        let pack = |parts: &[Tensor]| kernels.pack(parts, Precision::F32);
        let w = pack(from_ref(&weight)).unwrap();
        refused(candidate, "no weight", pack(&[]));
        refused(candidate, "pack", pack(from_ref(&vector)));
        refused(candidate, "widths", pack(&[weight.clone(), weight.t().unwrap()]));
        refused(candidate, "upload", kernels.upload(&[1.0; 5], 2, 3));
        refused(candidate, "linear", kernels.linear(&act(2, 4), &w, None));
        refused(candidate, "bias", kernels.linear(&act(2, 3), &w, Some(&act(1, 3))));
        refused(candidate, "embed", kernels.embed(&w, &[0, 4]));
        refused(candidate, "select", kernels.select_rows(&act(2, 3), &[2]));
        refused(
            candidate,
            "norm",
            kernels.rms_norm(&act(2, 4), NormWeights::base(&act(1, 2)), 0.0),
        );
        let head_norm = |columns, head| {
            kernels.head_norm(&mut act(2, 6), columns, NormWeights::base(&act(1, head)), 0.0)
        };
        head_norm(2..6, 2).unwrap();
        refused(candidate, "heads", head_norm(1..6, 2));
        refused(candidate, "columns", head_norm(4..8, 2));
        let add = |rows, cols| kernels.add_linear(&mut act(rows, cols), &act(2, 3), &w, None);
        add(2, 4).unwrap();
        refused(candidate, "rows of y", add(3, 4));
        refused(candidate, "columns of y", add(2, 3));
        refused(candidate, "highest", kernels.highest(&[1.0; 5], 2, &mut Vec::new()));
        refused(candidate, "no columns", kernels.highest(&[1.0; 5], 0, &mut Vec::new()));
        refused(candidate, "gate", kernels.gated(&act(2, 3), Activation::Silu));
        let add = |rows, cols, between| {
            let (mut y, wide) = (act(2, 4), (act(rows, cols), between));
            kernels.add_feed_forward(&mut y, wide, (&w, None), &[], &[])
        };
        let (plain, gated) =
            (FeedForward::Plain(Activation::Silu), FeedForward::Gated(Activation::Silu));
        add(2, 3, plain).unwrap();
        add(2, 6, gated).unwrap();
        refused(candidate, "inner", add(2, 6, plain));
        refused(candidate, "gate", add(2, 7, gated));
        refused(candidate, "rows of inner", add(3, 3, plain));
    }
}

#[test]
fn rows_and_ranges_outside_their_tables_are_refused() {
    for candidate in candidates() {
        let kernels = &candidate.kernels;
        let act = |rows: usize, cols: usize| candidate.act(&vec![1.0; rows * cols], cols);
        let add = |table: (usize, usize), rows: &[u32]| {
            kernels.add_rows(&mut act(2, 3), &act(table.0, table.1), rows)
        };
        add((4, 3), &[3, 0]).unwrap();
        refused(candidate, "table's columns", add((4, 2), &[3, 0]));
        refused(candidate, "fewer rows", add((4, 3), &[3]));
        refused(candidate, "row", add((4, 3), &[4, 0]));
        kernels.mean_rows(&act(2, 3), &[0..2, 1..2]).unwrap();
        refused(candidate, "empty range", kernels.mean_rows(&act(2, 3), &[0..2, 1..1]));
        refused(candidate, "range", kernels.mean_rows(&act(2, 3), &[1..3, 0..1]));
        let (weight, short) = (act(1, 3), act(1, 2));
        let norm = |weight, bias| {
            let bias = NormWeights::base(bias);
            kernels.layer_norm(&act(2, 3), NormWeights::base(weight), Some(bias), 1e-5)
        };
        norm(&weight, &weight).unwrap();
        refused(candidate, "weight", norm(&short, &weight));
        refused(candidate, "bias of a norm", norm(&weight, &short));
    }
}

#[test]
fn segments_and_slots_outside_the_batch_are_refused() {
    let mut noise = Noise(2);
    let slots = [Some(noise.pair(2, 3, 4).into())];
    for candidate in candidates() {
        let kernels = &candidate.kernels;
        let act = |rows: usize, cols: usize| candidate.act(&vec![1.0; rows * cols], cols);
        let add = |cols_in, columns: &[(usize, usize)], rows, slot| {
            let target =
                |(start, end): &(usize, usize)| LoraTarget { columns: *start..*end, slots: &slots };
            let targets: Vec<_> = columns.iter().map(target).collect();
            let segment = RowSegment { rows, slot, weight: 1.0 };
            kernels.add_lora(&mut act(2, 9), &act(2, cols_in), &targets, &[segment])
        };
        add(3, &[(0, 4), (5, 9)], 0..2, 0).unwrap();
        refused(candidate, "rows", add(3, &[(0, 4)], 1..3, 0));
        refused(candidate, "slot", add(3, &[(0, 4)], 0..2, 1));
        refused(candidate, "in", add(4, &[(0, 4)], 0..2, 0));
        refused(candidate, "out", add(3, &[(0, 3)], 0..2, 0));
        refused(candidate, "columns", add(3, &[(6, 10)], 0..2, 0));
        refused(candidate, "shared columns", add(3, &[(0, 4), (3, 7)], 0..2, 0));
        refused(candidate, "order", add(3, &[(5, 9), (0, 4)], 0..2, 0));
    }
}

#[test]
fn what_adapters_hold_must_fit_what_they_change() {
    let mut noise = Noise(4);
    let none = LinearDelta { low_rank: None, gain: None, shift: None, trained: None };
    let rows = |weight, ids: Option<&[u32]>| {
        let trained = TrainedRows { weight, ids: ids.map(Into::into) };
        LinearDelta { trained: Some(trained), ..none.clone() }
    };
    let fits = [
        LinearDelta { gain: Some(noise.vector(4)), ..none.clone() },
        rows(noise.tensor(4, 3), None),
        rows(noise.tensor(2, 3), Some(&[0, 3])),
        rows(noise.tensor(0, 3), Some(&[])),
    ];
    let bad = [
        ("gain", LinearDelta { gain: Some(noise.vector(3)), ..none.clone() }),
        ("shift", LinearDelta { shift: Some(noise.vector(5)), ..none.clone() }),
        ("width", rows(noise.tensor(4, 2), None)),
        ("not all", rows(noise.tensor(3, 3), None)),
        ("fewer ids", rows(noise.tensor(2, 3), Some(&[1]))),
        ("outside", rows(noise.tensor(2, 3), Some(&[0, 4]))),
        ("descending", rows(noise.tensor(2, 3), Some(&[3, 1]))),
        ("twice", rows(noise.tensor(2, 3), Some(&[1, 1]))),
    ];
    for candidate in candidates() {
        let kernels = &*candidate.kernels;
        let act = |rows: usize, cols: usize| candidate.act(&vec![1.0; rows * cols], cols);
        let add = |delta: &LinearDelta<Tensor>| {
            let slots = [Some(delta.load(kernels, Precision::F32).unwrap())];
            let target = LoraTarget { columns: 0..4, slots: &slots };
            let segment = RowSegment { rows: 0..2, slot: 0, weight: 1.0 };
            kernels.add_lora(&mut act(2, 4), &act(2, 3), &[target], &[segment])
        };
        for delta in &fits {
            add(delta).unwrap();
        }
        for (what, delta) in &bad {
            refused(candidate, what, add(delta));
        }
    }
}

#[test]
fn embeddings_and_norms_that_do_not_fit_are_refused() {
    let mut noise = Noise(5);
    let none = EmbeddingDelta { low_rank: None, gain: None, trained: None };
    let trained = |weight, ids| Some(TrainedRows { weight, ids });
    let pair = EmbeddingDelta { low_rank: Some(noise.pair(2, 5, 3)), ..none.clone() };
    let gain = EmbeddingDelta { gain: Some(noise.vector(4)), ..none.clone() };
    let few = EmbeddingDelta { trained: trained(noise.tensor(4, 3), None), ..none.clone() };
    let some = EmbeddingDelta { trained: trained(noise.tensor(1, 3), Some([9].into())), ..none };
    for candidate in candidates() {
        let kernels = &*candidate.kernels;
        let act = |rows: usize, cols: usize| candidate.act(&vec![1.0; rows * cols], cols);
        let segments = |rows, slot| [RowSegment { rows, slot, weight: 1.0 }];
        let adapt = |delta: &EmbeddingDelta<Tensor>, ids: &[u32], rows, slot| {
            let slots = [Some(delta.load(kernels, Precision::F32).unwrap())];
            kernels.adapt_embedding(&mut act(2, 3), ids, &slots, &segments(rows, slot))
        };
        adapt(&pair, &[0, 4], 0..2, 0).unwrap();
        adapt(&some, &[0, 9], 0..2, 0).unwrap();
        refused(candidate, "token", adapt(&pair, &[0, 5], 0..2, 0));
        refused(candidate, "token of a table", adapt(&few, &[0, 4], 0..2, 0));
        refused(candidate, "ids", adapt(&pair, &[0], 0..2, 0));
        refused(candidate, "rows", adapt(&pair, &[0, 4], 1..3, 0));
        refused(candidate, "slot", adapt(&pair, &[0, 4], 0..2, 1));
        refused(candidate, "gain", adapt(&gain, &[0, 4], 0..2, 0));
        let norm = |len, rows, slot| {
            let weight = Tensor::ones(len, DType::F32, &Device::Cpu).unwrap();
            let slots = [Some(kernels.load_vector(&weight).unwrap())];
            let (base, segments) = (act(1, 3), segments(rows, slot));
            let weights = NormWeights { base: &base, slots: &slots, segments: &segments };
            let heads = kernels.head_norm(&mut act(2, 6), 0..3, weights, 0.0);
            assert_eq!(heads.is_ok(), kernels.rms_norm(&act(2, 3), weights, 0.0).is_ok());
            heads
        };
        norm(3, 0..2, 0).unwrap();
        refused(candidate, "norm's length", norm(4, 0..2, 0));
        refused(candidate, "norm's rows", norm(3, 0..3, 0));
        refused(candidate, "norm's slot", norm(3, 0..2, 1));
    }
}

#[test]
fn positions_outside_the_table_and_rows_outside_the_cache_are_refused() {
    let mut noise = Noise(3);
    let table = RopeTable { cos: noise.tensor(5, 2), sin: noise.tensor(5, 2), head_dim: 4 };
    let precision = KvPrecision::F32;
    let shape =
        KvShape { layers: 1, blocks: 2, block_size: 4, kv_heads: 1, head_dim: 4, precision };
    let fits =
        RopeKvArgs { heads: 2, positions: &[0, 4], table: Some(&table), slot_mapping: &[0, 7] };
    let long = RopeTable { head_dim: 8, ..table.clone() };
    let uneven = RopeTable { sin: noise.tensor(4, 2), ..table.clone() };
    let bad: [(&str, RopeKvArgs<'_>); 7] = [
        ("position", RopeKvArgs { positions: &[0, 5], ..fits }),
        ("positions", RopeKvArgs { positions: &[0], ..fits }),
        ("slot", RopeKvArgs { slot_mapping: &[0, 8], ..fits }),
        ("slots", RopeKvArgs { slot_mapping: &[0], ..fits }),
        ("heads", RopeKvArgs { heads: 3, ..fits }),
        ("head", RopeKvArgs { table: Some(&long), ..fits }),
        ("table", RopeKvArgs { table: Some(&uneven), ..fits }),
    ];
    for candidate in candidates() {
        let mut cache = candidate.kernels.new_kv(shape).unwrap();
        let mut write = |layer, args: &RopeKvArgs<'_>| {
            let mut qkv = candidate.act(&[1.0; 2 * 16], 16);
            candidate.kernels.rope_write_kv(&mut qkv, &mut cache, layer, args)
        };
        write(0, &fits).unwrap();
        refused(candidate, "layer", write(1, &fits));
        for (what, args) in &bad {
            refused(candidate, what, write(0, args));
        }
    }
}

#[test]
fn caches_too_small_for_the_arguments_are_refused() {
    for precision in [KvPrecision::F32, KvPrecision::Bf16, KvPrecision::Int8] {
        let (blocks, block_size) = (2, 4);
        small_caches(KvShape {
            layers: 1,
            blocks,
            block_size,
            kv_heads: 1,
            head_dim: 2,
            precision,
        });
    }
}

fn small_caches(shape: KvShape) {
    let fits = AttentionArgs {
        block_tables: &[1, 0],
        block_starts: &[0, 2],
        query_starts: &[0, 2],
        context_lens: &[7],
        heads: 2,
        scale: 1.0,
        reach: Reach::Back(None),
    };
    let whole = AttentionArgs {
        block_tables: &[1],
        block_starts: &[0, 1],
        context_lens: &[2],
        reach: Reach::Around(Some(0)),
        ..fits
    };
    let bad: [(&str, AttentionArgs<'_>); 10] = [
        ("block", AttentionArgs { block_tables: &[1, 2], ..fits }),
        ("context", AttentionArgs { context_lens: &[9], ..fits }),
        ("more rows than context", AttentionArgs { context_lens: &[1], ..fits }),
        ("sequences", AttentionArgs { context_lens: &[4, 3], ..fits }),
        ("query end", AttentionArgs { query_starts: &[0, 1], ..fits }),
        ("block end", AttentionArgs { block_starts: &[0, 3], ..fits }),
        ("descending", AttentionArgs { query_starts: &[0, 3, 2], ..fits }),
        ("heads", AttentionArgs { heads: 3, ..fits }),
        ("window", AttentionArgs { reach: Reach::Back(Some(0)), ..fits }),
        ("part of a text", AttentionArgs { context_lens: &[3], ..whole }),
    ];
    for candidate in candidates().iter().filter(|candidate| candidate.keeps(shape.precision)) {
        let kernels = &candidate.kernels;
        let act = |cols: usize| candidate.act(&vec![1.0; 2 * cols], cols);
        let cache = kernels.new_kv(shape).unwrap();
        kernels.paged_attention(&act(4), &cache, 0, &fits).unwrap();
        kernels.paged_attention(&act(4), &cache, 0, &whole).unwrap();
        for (what, args) in &bad {
            refused(candidate, what, kernels.paged_attention(&act(4), &cache, 0, args));
        }
    }
}
