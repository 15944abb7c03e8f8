//! Operations on rows alone: products, norms, rotations, gates, look-ups.
use super::{
    candidates::candidates,
    inputs::{Noise, both},
};
use crate::kernel::{Activation, Kernels, Precision, Reference, RopeTable};
use proptest::prelude::*;

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn linear(rows in 0..40_usize, k in 1..300_usize, n in 1..150_usize, bias: bool, seed: u64) {
        let mut noise = Noise(seed);
        let weight = noise.tensor(n, k);
        let (x, bias_values) = (noise.values(rows * k), noise.values(n));
        for candidate in candidates() {
            for precision in PRECISIONS {
                let (x, x_ref) = both(candidate, &x, k);
                let (b, b_ref) = both(candidate, &bias_values, n);
                let w = candidate.kernels.pack(&weight, precision).unwrap();
                let w_ref = Reference.pack(&weight, precision).unwrap();
                let got = candidate.kernels.linear(&x, &w, bias.then_some(&b)).unwrap();
                let want = Reference.linear(&x_ref, &w_ref, bias.then_some(&b_ref)).unwrap();
                candidate.check(&got, &want, precision).map_err(TestCaseError::fail)?;
            }
        }
    }

    #[test]
    fn embed(vocab in 1..90_usize, cols in 1..70_usize, ids in prop::collection::vec(any::<u32>(), 1..9), seed: u64) {
        let weight = Noise(seed).tensor(vocab, cols);
        let ids: Vec<u32> = ids.iter().map(|id| id % vocab as u32).collect();
        for candidate in candidates() {
            for precision in PRECISIONS {
                let table = candidate.kernels.pack(&weight, precision).unwrap();
                let got = candidate.kernels.embed(&table, &ids).unwrap();
                let want = Reference.pack(&weight, precision).unwrap();
                let want = Reference.embed(&want, &ids).unwrap();
                // A look-up computes nothing: exact in either precision.
                prop_assert_eq!(candidate.read(&got), Reference.read(&want).unwrap().into_owned());
            }
        }
    }

    #[test]
    fn rms_norm(rows in 0..40_usize, groups in 1..5_usize, cols in 1..200_usize, seed: u64) {
        let mut noise = Noise(seed);
        let (x, weight) = (noise.values(rows * groups * cols), noise.values(cols));
        for candidate in candidates() {
            let (x, x_ref) = both(candidate, &x, groups * cols);
            let (w, w_ref) = both(candidate, &weight, cols);
            let got = candidate.kernels.rms_norm(&x, &w, 1e-5).unwrap();
            let want = Reference.rms_norm(&x_ref, &w_ref, 1e-5).unwrap();
            candidate.check(&got, &want, Precision::F32).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn rope(
        positions in prop::collection::vec(0..64_u32, 0..40),
        heads in 1..5_usize,
        half in 1..40_usize,
        seed: u64,
    ) {
        let mut noise = Noise(seed);
        let values = noise.values(positions.len() * heads * half * 2);
        let (cos, sin) = (noise.tensor(64, half), noise.tensor(64, half));
        let table = RopeTable { cos, sin, head_dim: half * 2 };
        for candidate in candidates() {
            let (mut x, mut want) = both(candidate, &values, heads * half * 2);
            let loaded = candidate.kernels.load_rope(table.clone()).unwrap();
            candidate.kernels.rope(&mut x, &positions, &loaded).unwrap();
            Reference.rope(&mut want, &positions, &table).unwrap();
            candidate.check(&x, &want, Precision::F32).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn gated_and_add(rows in 0..40_usize, cols in 1..200_usize, seed: u64) {
        let mut noise = Noise(seed);
        // Wide enough for both tails of the sigmoid.
        let gate: Vec<f32> = noise.values(rows * cols).iter().map(|x| x * 30.0).collect();
        let up = noise.values(rows * cols);
        for candidate in candidates() {
            let ((mut gate, mut gate_ref), (up, up_ref)) =
                (both(candidate, &gate, cols), both(candidate, &up, cols));
            for activation in [Activation::Silu, Activation::GeluTanh] {
                let got = candidate.kernels.gated(&gate, &up, activation).unwrap();
                let want = Reference.gated(&gate_ref, &up_ref, activation).unwrap();
                candidate.check(&got, &want, Precision::F32).map_err(TestCaseError::fail)?;
            }
            candidate.kernels.add(&mut gate, &up).unwrap();
            Reference.add(&mut gate_ref, &up_ref).unwrap();
            candidate.check(&gate, &gate_ref, Precision::F32).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn select_rows(rows in 1..40_usize, cols in 1..70_usize, picks in prop::collection::vec(any::<u32>(), 0..9), seed: u64) {
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
