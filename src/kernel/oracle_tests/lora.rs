//! Low-rank deltas: any ranks, any segments, several adapters in a batch.
use super::{
    candidates::candidates,
    deltas::{held_by, terms},
    inputs::{Noise, both, segments},
};
use crate::kernel::{Act, Kernels, LinearDelta, LoraTarget, LowRank, Precision, Reference};
use proptest::{collection::vec, option, prelude::*};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn deltas_of_mixed_ranks(
        rows in 1..70_usize,
        (k, outs) in (1..120_usize, vec(1..120_usize, 1..4)),
        ranks in vec(option::weighted(0.8, 1..75_usize), 1..5),
        raw in vec((0.0..1.0, 0.0..1.0, 0..8_usize, -2.0..2.0_f32), 0..7),
        rounded: bool,
        seed: u64,
    ) {
        let precision = if rounded { Precision::Bf16 } else { Precision::F32 };
        as_the_oracle(((rows, k), &outs, &ranks), (&raw, seed), precision)?;
    }

    /// Together or one after the other: a layer and its deltas are the same to the bit, whichever way the kernels choose.
    #[test]
    fn deltas_that_join_a_product(
        (rows, k) in (1..120_usize, 1..100_usize),
        panels in vec(1..4_usize, 1..4),
        ranks in vec(option::weighted(0.8, 1..75_usize), 1..5),
        raw in vec((0.0..1.0, 0.0..1.0, 0..5_usize, -1.5..1.5_f32), 1..4),
        is_biased: bool,
        seed: u64,
    ) {
        let mut noise = Noise(seed);
        let outs: Vec<usize> = panels.iter().map(|panels| 32 * panels).collect();
        let n: usize = outs.iter().sum();
        let (weight, bias) = ([noise.tensor(n, k)], noise.values(n));
        let (x, y) = (noise.values(rows * k), noise.values(rows * n));
        let mut slots_of = |out: &usize| -> Vec<Option<LowRank>> {
            ranks.iter().map(|rank| rank.map(|rank| noise.pair(rank, k, *out))).collect()
        };
        let slots: Vec<_> = outs.iter().map(&mut slots_of).collect();
        let segments = segments(&raw, rows, ranks.len());
        for candidate in candidates() {
            let kernels = &*candidate.kernels;
            let weight = kernels.pack(&weight, Precision::Bf16).unwrap();
            let bias = is_biased.then(|| candidate.act(&bias, n));
            let (x, base) = (candidate.act(&x, k), (&weight, bias.as_ref()));
            let load = |pair: &LowRank| kernels.load_low_rank(pair, Precision::Bf16).unwrap().into();
            let load_all =
                |held: &Vec<Option<LowRank>>| held.iter().map(|s| s.as_ref().map(load)).collect();
            let held: Vec<Vec<Option<LinearDelta>>> = slots.iter().map(load_all).collect();
            let mut end = 0;
            let target = |(out, slots): (&usize, _)| {
                end += out;
                LoraTarget { columns: end - out..end, slots }
            };
            let targets: Vec<_> = outs.iter().zip(held.iter().map(Vec::as_slice)).map(target).collect();
            let bits = |y: &Act| candidate.read(y).into_iter().map(f32::to_bits).collect::<Vec<_>>();

            let got = kernels.adapted_linear(&x, base, &targets, &segments).unwrap();
            let mut want = kernels.linear(&x, base.0, base.1).unwrap();
            kernels.add_lora(&mut want, &x, &targets, &segments).unwrap();
            prop_assert!(bits(&got) == bits(&want), "{}", candidate.name);

            let (mut got, mut want) = (candidate.act(&y, n), candidate.act(&y, n));
            kernels.add_adapted(&mut got, &x, base, &targets, &segments).unwrap();
            kernels.add_linear(&mut want, &x, base.0, base.1).unwrap();
            kernels.add_lora(&mut want, &x, &targets, &segments).unwrap();
            prop_assert!(bits(&got) == bits(&want), "{}", candidate.name);
        }
    }
}

/// Rows of `k` values, layers of `outs` columns, slots of `ranks`, and segments made of `raw`: the deltas of every candidate
/// are near the oracle's.
fn as_the_oracle(
    ((rows, k), outs, ranks): ((usize, usize), &[usize], &[Option<usize>]),
    (raw, seed): (&[(f64, f64, usize, f32)], u64),
    precision: Precision,
) -> Result<(), TestCaseError> {
    let mut noise = Noise(seed);
    // A column of nobody's before each layer's own.
    let n: usize = outs.iter().map(|out| out + 1).sum();
    let x = held_by(precision, &noise.values(rows * k));
    let y = noise.values(rows * n);
    let mut slots_of = |out: usize| -> Vec<Option<LowRank>> {
        ranks.iter().map(|rank| rank.map(|rank| noise.pair(rank, k, out))).collect()
    };
    let slots: Vec<_> = outs.iter().map(|out| slots_of(*out)).collect();
    let segments = segments(raw, rows, ranks.len());
    let load_slots = |kernels: &dyn Kernels| -> Vec<Vec<Option<LinearDelta>>> {
        let load = |pair: &LowRank| kernels.load_low_rank(pair, precision).unwrap().into();
        let load_all =
            |held: &Vec<Option<LowRank>>| held.iter().map(|s| s.as_ref().map(load)).collect();
        slots.iter().map(load_all).collect()
    };
    let held_ref = load_slots(&Reference);
    let targets_ref = targets(outs, &held_ref);
    let terms = terms((&y, n), (&x, k), &targets_ref, &segments);
    for candidate in candidates() {
        let ((x, x_ref), (mut y, mut want)) = (both(candidate, &x, k), both(candidate, &y, n));
        let held = load_slots(&*candidate.kernels);
        candidate.kernels.add_lora(&mut y, &x, &targets(outs, &held), &segments).unwrap();
        Reference.add_lora(&mut want, &x_ref, &targets_ref, &segments).unwrap();
        candidate.check_deltas((&y, &want), &terms, precision).map_err(TestCaseError::fail)?;
    }
    Ok(())
}

/// Layers of `outs` columns side by side, a column of nobody's before each.
fn targets<'a>(outs: &[usize], slots: &'a [Vec<Option<LinearDelta>>]) -> Vec<LoraTarget<'a>> {
    let mut end = 0;
    let target = |(out, slots): (&usize, &'a Vec<Option<LinearDelta>>)| {
        let start = end + 1;
        end = start + out;
        LoraTarget { columns: start..end, slots }
    };
    outs.iter().zip(slots).map(target).collect()
}

#[test]
fn rows_without_an_adapter_keep_their_bits() {
    let mut noise = Noise(7);
    let (x, y) = (noise.values(6 * 33), noise.values(6 * 17));
    let slots = [None, Some(noise.pair(5, 33, 17))];
    for candidate in candidates() {
        let (x, mut changed) = (candidate.act(&x, 33), candidate.act(&y, 17));
        let load =
            |pair: &LowRank| candidate.kernels.load_low_rank(pair, Precision::F32).unwrap().into();
        let loaded: Vec<_> = slots.iter().map(|slot| slot.as_ref().map(load)).collect();
        let batch = segments(&[(0.0, 0.3, 0, 1.0), (0.3, 0.6, 1, 1.0)], 6, 2);
        let target = LoraTarget { columns: 0..17, slots: &loaded };
        candidate.kernels.add_lora(&mut changed, &x, &[target], &batch).unwrap();
        let changed = candidate.read(&changed);
        let touched = batch[1].rows.start * 17..batch[1].rows.end * 17;
        for (i, (got, had)) in changed.iter().zip(&y).enumerate() {
            let same = got.to_bits() == had.to_bits();
            assert_eq!(same, !touched.contains(&i), "{}: value {i}", candidate.name);
        }
    }
}
