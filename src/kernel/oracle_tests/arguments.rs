//! Arguments that do not fit are errors in every implementation, never panics or wrong numbers.
use super::{
    candidates::{Candidate, candidates},
    inputs::Noise,
};
use crate::kernel::{
    Activation, AttentionArgs, KernelError, KvShape, LowRank, Precision, RopeTable, RowSegment,
};

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
        let w = kernels.pack(&weight, Precision::F32).unwrap();
        refused(candidate, "pack", kernels.pack(&vector, Precision::F32));
        refused(candidate, "upload", kernels.upload(&[1.0; 5], 2, 3));
        refused(candidate, "linear", kernels.linear(&act(2, 4), &w, None));
        refused(candidate, "bias", kernels.linear(&act(2, 3), &w, Some(&act(1, 3))));
        refused(candidate, "embed", kernels.embed(&w, &[0, 4]));
        refused(candidate, "select", kernels.select_rows(&act(2, 3), &[2]));
        refused(candidate, "norm", kernels.rms_norm(&act(2, 5), &act(1, 2), 0.0));
        refused(candidate, "add", kernels.add(&mut act(2, 3), &act(3, 2)));
        refused(candidate, "gate", kernels.gated(&act(2, 3), &act(2, 2), Activation::Silu));
    }
}

#[test]
fn segments_and_slots_outside_the_batch_are_refused() {
    let mut noise = Noise(2);
    let slots: [Option<LowRank>; 1] = [Some(noise.pair(2, 3, 4))];
    for candidate in candidates() {
        let kernels = &candidate.kernels;
        let act = |rows: usize, cols: usize| candidate.act(&vec![1.0; rows * cols], cols);
        let add = |cols_in, cols_out, rows, slot| {
            let segment = RowSegment { rows, slot, weight: 1.0 };
            kernels.add_lora(&mut act(2, cols_out), &act(2, cols_in), &slots, &[segment])
        };
        add(3, 4, 0..2, 0).unwrap();
        refused(candidate, "rows", add(3, 4, 1..3, 0));
        refused(candidate, "slot", add(3, 4, 0..2, 1));
        refused(candidate, "in", add(4, 4, 0..2, 0));
        refused(candidate, "out", add(3, 3, 0..2, 0));
    }
}

#[test]
fn positions_outside_the_table_are_refused() {
    let mut noise = Noise(3);
    let table = RopeTable { cos: noise.tensor(5, 2), sin: noise.tensor(5, 2), head_dim: 4 };
    for candidate in candidates() {
        let rope = |cols: usize, positions: &[u32], table| {
            candidate.kernels.rope(&mut candidate.act(&vec![1.0; 2 * cols], cols), positions, table)
        };
        rope(8, &[0, 4], &table).unwrap();
        refused(candidate, "position", rope(8, &[0, 5], &table));
        refused(candidate, "count", rope(8, &[0], &table));
        refused(candidate, "heads", rope(6, &[0, 1], &table));
        let half = RopeTable { head_dim: 8, ..table.clone() };
        refused(candidate, "table", rope(8, &[0, 1], &half));
    }
}

#[test]
fn caches_too_small_for_the_arguments_are_refused() {
    let shape = KvShape { layers: 1, blocks: 2, block_size: 4, kv_heads: 1, head_dim: 2 };
    let fits = AttentionArgs {
        block_tables: &[1, 0],
        block_starts: &[0, 2],
        query_starts: &[0, 2],
        context_lens: &[7],
        heads: 2,
        scale: 1.0,
        window: None,
    };
    let bad: [(&str, AttentionArgs<'_>); 9] = [
        ("block", AttentionArgs { block_tables: &[1, 2], ..fits }),
        ("context", AttentionArgs { context_lens: &[9], ..fits }),
        ("more rows than context", AttentionArgs { context_lens: &[1], ..fits }),
        ("sequences", AttentionArgs { context_lens: &[4, 3], ..fits }),
        ("query end", AttentionArgs { query_starts: &[0, 1], ..fits }),
        ("block end", AttentionArgs { block_starts: &[0, 3], ..fits }),
        ("descending", AttentionArgs { query_starts: &[0, 3, 2], ..fits }),
        ("heads", AttentionArgs { heads: 3, ..fits }),
        ("window", AttentionArgs { window: Some(0), ..fits }),
    ];
    for candidate in candidates() {
        let kernels = &candidate.kernels;
        let act = |cols: usize| candidate.act(&vec![1.0; 2 * cols], cols);
        let mut cache = kernels.new_kv(shape).unwrap();
        kernels.write_kv(&mut cache, 0, &act(2), &act(2), &[0, 7]).unwrap();
        refused(candidate, "slot", kernels.write_kv(&mut cache, 0, &act(2), &act(2), &[0, 8]));
        refused(candidate, "layer", kernels.write_kv(&mut cache, 1, &act(2), &act(2), &[0, 1]));
        refused(candidate, "width", kernels.write_kv(&mut cache, 0, &act(4), &act(4), &[0, 1]));
        kernels.paged_attention(&act(4), &cache, 0, &fits).unwrap();
        for (what, args) in &bad {
            refused(candidate, what, kernels.paged_attention(&act(4), &cache, 0, args));
        }
    }
}
