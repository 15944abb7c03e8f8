//! Operations on rows alone: products, norms, rotations, gates, look-ups.
use super::{
    candidates::candidates,
    inputs::{Noise, both},
};
use crate::kernel::{
    Act, Activation, AttentionArgs, Kernels, KvCache, KvPrecision, KvShape, NormWeights, Precision,
    Reach, Reference, RopeKvArgs, RopeTable,
};
use proptest::{collection::vec, prelude::*};

/// Every one.
pub(super) const ACTIVATIONS: [Activation; 5] =
    [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Tanh];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn linear(rows in 0..40_usize, k in 1..300_usize, n in 1..150_usize, bias: bool, seed: u64) {
        let mut noise = Noise(seed);
        let weight = [noise.tensor(n, k)];
        let (x, bias_values) = (noise.values(rows * k), noise.values(n));
        for candidate in candidates() {
            for precision in candidate.precisions() {
                let (x, x_ref) = both(candidate, &x, k);
                let (b, b_ref) = both(candidate, &bias_values, n);
                let (b, b_ref) = (bias.then_some(&b), bias.then_some(&b_ref));
                let w = candidate.kernels.pack(&weight, precision).unwrap();
                let w_ref = Reference.pack(&weight, precision).unwrap();
                let mut got = candidate.kernels.linear(&x, &w, b).unwrap();
                let mut want = Reference.linear(&x_ref, &w_ref, b_ref).unwrap();
                candidate.check(&got, &want, precision).map_err(TestCaseError::fail)?;
                candidate.kernels.add_linear(&mut got, &x, &w, b).unwrap();
                Reference.add_linear(&mut want, &x_ref, &w_ref, b_ref).unwrap();
                candidate.check(&got, &want, precision).map_err(TestCaseError::fail)?;
            }
        }
    }

    /// What each part gives lies side by side, to the bit where rows are.
    #[test]
    fn stacked(rows in 1..20_usize, k in 1..100_usize, outs in vec(1..90_usize, 1..4), seed: u64) {
        let mut noise = Noise(seed);
        let parts: Vec<_> = outs.iter().map(|n| noise.tensor(*n, k)).collect();
        let x = noise.values(rows * k);
        for candidate in candidates().iter().filter(|candidate| candidate.row_invariant) {
            for precision in candidate.precisions() {
                let x = candidate.act(&x, k);
                let linear = |parts| {
                    let weight = candidate.kernels.pack(parts, precision).unwrap();
                    candidate.read(&candidate.kernels.linear(&x, &weight, None).unwrap())
                };
                let each: Vec<_> = parts.chunks(1).map(linear).collect();
                let side_by_side = (0..rows).flat_map(|row| {
                    each.iter().zip(&outs).flat_map(move |(y, n)| &y[row * n..(row + 1) * n])
                });
                let side_by_side: Vec<f32> = side_by_side.copied().collect();
                prop_assert_eq!(linear(&parts), side_by_side, "{}", candidate.name);
            }
        }
    }

    #[test]
    fn embed(vocab in 1..90_usize, cols in 1..70_usize, ids in vec(any::<u32>(), 1..9), seed: u64) {
        let weight = [Noise(seed).tensor(vocab, cols)];
        let ids: Vec<u32> = ids.iter().map(|id| id % vocab as u32).collect();
        for candidate in candidates() {
            for precision in candidate.precisions() {
                let table = candidate.kernels.pack(&weight, precision).unwrap();
                let got = candidate.kernels.embed(&table, &ids).unwrap();
                let want = Reference.pack(&weight, precision).unwrap();
                let want = Reference.embed(&want, &ids).unwrap();
                // A look-up computes nothing but its rounding: exact at every precision.
                let want = Reference.read(&want).unwrap().into_owned();
                prop_assert_eq!(candidate.read(&got), &want[..]);
                let table = candidate.kernels.pack_table(&weight[0], precision).unwrap();
                let got = candidate.kernels.embed(&table, &ids).unwrap();
                prop_assert_eq!(candidate.read(&got), &want[..]);
                let rows = table.rows(ids[0] as usize..ids[0] as usize + 1).unwrap();
                prop_assert_eq!(rows, &want[..cols]);
            }
        }
    }

    #[test]
    fn norms(rows in 0..40_usize, heads in 1..5_usize, dim in 1..200_usize, seed: u64) {
        let mut noise = Noise(seed);
        let cols = heads * dim;
        let (x, weight, head) = (noise.values(rows * cols), noise.values(cols), noise.values(dim));
        for candidate in candidates() {
            let (mut x, mut x_ref) = both(candidate, &x, cols);
            let (w, w_ref) = both(candidate, &weight, cols);
            let got = candidate.kernels.rms_norm(&x, NormWeights::base(&w), 1e-5).unwrap();
            let want = Reference.rms_norm(&x_ref, NormWeights::base(&w_ref), 1e-5).unwrap();
            candidate.check(&got, &want, Precision::F32).map_err(TestCaseError::fail)?;
            let (w, w_ref) = both(candidate, &head, dim);
            candidate.kernels.head_norm(&mut x, dim..cols, NormWeights::base(&w), 1e-5).unwrap();
            Reference.head_norm(&mut x_ref, dim..cols, NormWeights::base(&w_ref), 1e-5).unwrap();
            candidate.check(&x, &x_ref, Precision::F32).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn centred_norms(rows in 0..40_usize, cols in 1..200_usize, shift in -3.0..3.0_f32, bias: bool, seed: u64) {
        let mut noise = Noise(seed);
        let x: Vec<f32> = noise.values(rows * cols).iter().map(|x| x + shift).collect();
        let (weight, added) = (noise.values(cols), noise.values(cols));
        for candidate in candidates() {
            let (x, x_ref) = both(candidate, &x, cols);
            let ((w, w_ref), (b, b_ref)) = (both(candidate, &weight, cols), both(candidate, &added, cols));
            let base = NormWeights::base;
            let got = candidate.kernels.layer_norm(&x, base(&w), bias.then(|| base(&b)), 1e-5).unwrap();
            let want = Reference.layer_norm(&x_ref, base(&w_ref), bias.then(|| base(&b_ref)), 1e-5).unwrap();
            candidate.check(&got, &want, Precision::F32).map_err(TestCaseError::fail)?;
        }
    }

    /// Each row is its own sequence of one token, so attention gives back what was written.
    #[test]
    fn rope_write_kv(
        positions in vec(0..64_u32, 0..40),
        (kv_heads, group) in (1..4_usize, 1..4_usize),
        half in 1..40_usize,
        rotated: bool,
        seed: u64,
    ) {
        let mut noise = Noise(seed);
        let (rows, heads, head_dim) = (positions.len(), kv_heads * group, 2 * half);
        let cols = (heads + 2 * kv_heads) * head_dim;
        let values = noise.values(rows * cols);
        let (cos, sin) = (noise.tensor(64, half), noise.tensor(64, half));
        let table = RopeTable { cos, sin, head_dim };
        let precision = KvPrecision::F32;
        let shape =
            KvShape { layers: 2, blocks: rows + 1, block_size: 3, kv_heads, head_dim, precision };
        let slots: Vec<u32> = (0..rows as u32).rev().map(|row| 3 * row).collect();
        for candidate in candidates() {
            let (mut got, mut want) = both(candidate, &values, cols);
            let loaded = candidate.kernels.load_rope(table.clone()).unwrap();
            let args = |table| RopeKvArgs {
                heads,
                positions: if rotated { &positions } else { &[] },
                table: rotated.then_some(table),
                slot_mapping: &slots,
            };
            let mut cache = candidate.kernels.new_kv(shape).unwrap();
            let mut cache_ref = Reference.new_kv(shape).unwrap();
            candidate.kernels.rope_write_kv(&mut got, &mut cache, 1, &args(&loaded)).unwrap();
            Reference.rope_write_kv(&mut want, &mut cache_ref, 1, &args(&table)).unwrap();
            candidate.check(&got, &want, Precision::F32).map_err(TestCaseError::fail)?;
            let attend = |kernels: &dyn Kernels, q: &Act, cache: &KvCache| {
                let starts: Vec<u32> = (0..=rows as u32).collect();
                let args = AttentionArgs {
                    block_tables: &slots.iter().map(|slot| slot / 3).collect::<Vec<_>>(),
                    block_starts: &starts,
                    query_starts: &starts,
                    context_lens: &vec![1; rows],
                    heads,
                    scale: 1.0,
                    reach: Reach::Back(None),
                };
                kernels.paged_attention(q, cache, 1, &args).unwrap()
            };
            let (got, want) =
                (attend(&*candidate.kernels, &got, &cache), attend(&Reference, &want, &cache_ref));
            candidate.check(&got, &want, Precision::F32).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn gated(rows in 0..40_usize, inner in 1..200_usize, seed: u64) {
        // Wide enough for both tails of the sigmoid.
        let values = Noise(seed).values(rows * 2 * inner);
        let values: Vec<f32> = values.iter().map(|x| x * 30.0).collect();
        for candidate in candidates() {
            for activation in ACTIVATIONS {
                let (mut x, mut x_ref) = both(candidate, &values, 2 * inner);
                let got = candidate.kernels.gated(&x, activation).unwrap();
                let want = Reference.gated(&x_ref, activation).unwrap();
                candidate.check(&got, &want, Precision::F32).map_err(TestCaseError::fail)?;
                candidate.kernels.activate(&mut x, activation).unwrap();
                Reference.activate(&mut x_ref, activation).unwrap();
                candidate.check(&x, &x_ref, Precision::F32).map_err(TestCaseError::fail)?;
            }
        }
    }

    #[test]
    fn added_rows_and_means(
        (count, cols) in (1..40_usize, 1..70_usize),
        picks in vec(any::<u32>(), 1..40),
        cuts in vec((any::<u32>(), any::<u32>()), 0..6),
        seed: u64,
    ) {
        let mut noise = Noise(seed);
        let (x, table) = (noise.values(picks.len() * cols), noise.values(count * cols));
        let rows: Vec<u32> = picks.iter().map(|pick| pick % count as u32).collect();
        let range = |(start, len): &(u32, u32)| {
            let start = start % rows.len() as u32;
            start..start + 1 + len % (rows.len() as u32 - start)
        };
        let ranges: Vec<_> = cuts.iter().map(range).collect();
        for candidate in candidates() {
            let kernels = &candidate.kernels;
            let ((mut x, mut x_ref), (table, table_ref)) =
                (both(candidate, &x, cols), both(candidate, &table, cols));
            kernels.add_rows(&mut x, &table, &rows).unwrap();
            Reference.add_rows(&mut x_ref, &table_ref, &rows).unwrap();
            candidate.check(&x, &x_ref, Precision::F32).map_err(TestCaseError::fail)?;
            let got = kernels.mean_rows(&x, &ranges).unwrap();
            let want = Reference.mean_rows(&x_ref, &ranges).unwrap();
            candidate.check(&got, &want, Precision::F32).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn highest(
        rows in 0..5_usize,
        cols in prop_oneof![1..40_usize, 1000..3000_usize],
        specials in vec((any::<usize>(), 0..5_usize), 0..4),
        seed: u64,
    ) {
        // Few different values, so that many are equal.
        let mut values: Vec<f32> =
            Noise(seed).values(rows * cols).iter().map(|x| (x * 8.0).trunc()).collect();
        let count = values.len();
        for (at, special) in specials.into_iter().filter(|_| count > 0) {
            let specials = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 9.0];
            values[at % count] = specials[special];
        }
        let (mut got, mut want) = (vec![Some(7); 9], Vec::new());
        Reference.highest(&values, cols, &mut want).unwrap();
        for candidate in candidates() {
            candidate.kernels.highest(&values, cols, &mut got).unwrap();
            prop_assert_eq!(&got, &want, "{}", candidate.name);
        }
    }

    #[test]
    fn select_rows(rows in 1..40_usize, cols in 1..70_usize, picks in vec(any::<u32>(), 0..9), seed: u64) {
        let values = Noise(seed).values(rows * cols);
        let picks: Vec<u32> = picks.iter().map(|pick| pick % rows as u32).collect();
        for candidate in candidates() {
            let (x, x_ref) = both(candidate, &values, cols);
            let got = candidate.kernels.select_rows(&x, &picks).unwrap();
            let want = Reference.select_rows(&x_ref, &picks).unwrap();
            prop_assert_eq!((got.rows(), got.cols()), (picks.len(), cols));
            prop_assert_eq!(candidate.read(&got), Reference.read(&want).unwrap().into_owned());
        }
    }
}
