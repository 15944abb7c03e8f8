//! What is true of integer weights alone: one result for every instruction set, errors within a bound.
use super::{candidates::candidates, inputs::Noise};
use crate::kernel::{KernelError, Kernels, KvPrecision, KvShape, Precision, Reference};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The dots are exact and the order of everything else is fixed.
    #[test]
    fn every_instruction_set_gives_the_same_bits(
        rows in 1..80_usize,
        k in 1..300_usize,
        n in 1..150_usize,
        seed: u64,
    ) {
        let mut noise = Noise(seed);
        // Rows of different size, so that no scale is another's.
        let x: Vec<f32> = noise.values(rows * k).iter().enumerate().map(|(i, x)| x * (i / k + 1) as f32).collect();
        let (weight, bias) = ([noise.tensor(n, k)], noise.values(n));
        for precision in [Precision::Int8, Precision::Int4] {
            let mut first: Option<Vec<u32>> = None;
            for candidate in candidates().iter().filter(|candidate| candidate.name.starts_with("cpu")) {
                let kernels = &candidate.kernels;
                let w = kernels.pack(&weight, precision).unwrap();
                let (x, bias) = (candidate.act(&x, k), candidate.act(&bias, n));
                let y = candidate.read(&kernels.linear(&x, &w, Some(&bias)).unwrap());
                let bits: Vec<u32> = y.iter().map(|y| y.to_bits()).collect();
                let first = first.get_or_insert_with(|| bits.clone());
                prop_assert_eq!(&bits, &*first, "{} at {}", candidate.name, precision);
            }
        }
    }

    /// Far from what the precision costs, near what its rounding explains.
    #[test]
    fn errors_are_those_of_the_rounding(k in 64..400_usize, seed: u64) {
        const N: usize = 40;
        let mut noise = Noise(seed);
        let (weight, x) = ([noise.tensor(N, k)], noise.values(k));
        let product = |precision| {
            let w = Reference.pack(&weight, precision).unwrap();
            let y = Reference.linear(&Reference.upload(&x, 1, k).unwrap(), &w, None).unwrap();
            y.values().unwrap().to_vec()
        };
        let exact = product(Precision::F32);
        // Uniform values of deviation 3^-½: a step of 1/127 or 1/8 leaves an error of step · 12^-½ in each factor.
        for (precision, step) in [(Precision::Int8, 2.0 / 127.0), (Precision::Int4, 1.0 / 7.0)] {
            let errors = product(precision).iter().zip(&exact).map(|(y, e)| (y - e).powi(2)).sum::<f32>();
            let deviation = (errors / N as f32).sqrt();
            let expected = (k as f32 / 3.0 / 12.0).sqrt() * step;
            prop_assert!(deviation < 1.5 * expected, "{precision}: {deviation}, expected {expected}");
            prop_assert!(deviation > 0.2 * expected, "{precision}: {deviation}, expected {expected}");
        }
    }
}

#[test]
fn outliers_and_zeros_are_multiplied_right() {
    let (k, n) = (200, 33);
    let mut x = Noise(7).values(k);
    x[3] = 1e6;
    x[64..128].fill(0.0);
    let weight = [Noise(8).tensor(n, k)];
    for candidate in candidates().iter().filter(|candidate| candidate.integers) {
        for precision in [Precision::Int8, Precision::Int4] {
            let w = candidate.kernels.pack(&weight, precision).unwrap();
            let got = candidate.kernels.linear(&candidate.act(&x, k), &w, None).unwrap();
            let want = Reference.pack(&weight, precision).unwrap();
            let want = Reference.linear(&Reference.upload(&x, 1, k).unwrap(), &want, None).unwrap();
            candidate.check(&got, &want, precision).unwrap();
        }
    }
}

#[test]
fn what_is_not_finite_stays_visible_and_with_its_row() {
    let weight = [Noise(9).tensor(40, 100)];
    for candidate in candidates().iter().filter(|candidate| candidate.integers) {
        for (precision, bad) in [(Precision::Int8, f32::NAN), (Precision::Int4, f32::INFINITY)] {
            let w = candidate.kernels.pack(&weight, precision).unwrap();
            let mut x = vec![1.0; 300];
            x[199] = bad;
            let y = candidate.kernels.linear(&candidate.act(&x, 100), &w, None).unwrap();
            let y = candidate.read(&y);
            let name = &candidate.name;
            assert!(y[40..80].iter().all(|y| y.is_nan()), "{name}");
            assert!(y[..40].iter().chain(&y[80..]).all(|y| y.is_finite()), "{name}");
        }
    }
}

#[test]
fn who_has_no_integers_says_so() {
    let weight = [Noise(1).tensor(4, 4)];
    for candidate in candidates().iter().filter(|candidate| !candidate.integers) {
        for precision in [Precision::Int8, Precision::Int4] {
            let error = candidate.kernels.pack(&weight, precision).err();
            let Some(KernelError::Unsupported(text)) = error else { panic!("{}", candidate.name) };
            assert!(text.contains(&precision.to_string()) && text.contains("--device"), "{text}");
        }
        let precision = KvPrecision::Int8;
        let shape =
            KvShape { layers: 1, blocks: 1, block_size: 1, kv_heads: 1, head_dim: 4, precision };
        let Err(KernelError::Unsupported(text)) = candidate.kernels.new_kv(shape) else {
            panic!("{}", candidate.name)
        };
        assert!(text.contains("`int8`") && text.contains("--device"), "{text}");
    }
}
