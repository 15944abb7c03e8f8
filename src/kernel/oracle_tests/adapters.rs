//! Every part an adapter can have, in any mixture: against the oracle, and alone as in company.
use super::{
    candidates::{Candidate, candidates},
    deltas::{Made, held_by, made, of_row, overlapping, terms},
    inputs::{Noise, both, segments},
};
use crate::kernel::{
    Act, EmbeddingDelta, Kernels, LinearDelta, LoraTarget, NormWeights, Precision, Reference,
    RowSegment,
};
use candle_core::Tensor;
use proptest::{collection::vec, option, prelude::*};

type Slots<D> = Vec<Option<D>>;

fn linear(
    slots: &Slots<LinearDelta<Tensor>>,
    on: &dyn Kernels,
    at: Precision,
) -> Slots<LinearDelta> {
    slots.iter().map(|slot| slot.as_ref().map(|delta| delta.load(on, at).unwrap())).collect()
}

fn embedding(
    slots: &Slots<EmbeddingDelta<Tensor>>,
    on: &dyn Kernels,
    at: Precision,
) -> Slots<EmbeddingDelta> {
    slots.iter().map(|slot| slot.as_ref().map(|delta| delta.load(on, at).unwrap())).collect()
}

fn vectors(slots: &Slots<Tensor>, on: &dyn Kernels) -> Slots<Tensor> {
    slots.iter().map(|slot| slot.as_ref().map(|vector| on.load_vector(vector).unwrap())).collect()
}

/// Fails when a row of `whole` has other bits than `one` gives it.
fn alone(
    candidate: &Candidate,
    whole: &Act,
    mut one: impl FnMut(usize) -> Act,
) -> Result<(), TestCaseError> {
    if !candidate.row_invariant {
        return Ok(());
    }
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for (row, expected) in candidate.read(whole).chunks_exact(whole.cols()).enumerate() {
        let got = candidate.read(&one(row));
        prop_assert_eq!(bits(&got), bits(expected), "{}: row {}", candidate.name, row);
    }
    Ok(())
}

/// The values of one row.
fn row_of(candidate: &Candidate, values: &[f32], cols: usize, row: usize) -> Act {
    candidate.act(&values[row * cols..(row + 1) * cols], cols)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn linear_layers(
        rows in 1..24_usize,
        (k, out) in (1..100_usize, 1..100_usize),
        slots in vec(option::of(made()), 1..5),
        raw in overlapping(),
        seed: u64,
    ) {
        let mut noise = Noise(seed);
        // The layer between columns of nobody's.
        let (n, columns) = (out + 3, 1..out + 1);
        let (x, y) = (noise.values(rows * k), noise.values(rows * n));
        let delta = |made: &Option<Made>| made.map(|made| noise.linear_delta(made, k, out));
        let slots: Slots<_> = slots.iter().map(delta).collect();
        let segments = segments(&raw, rows, slots.len());
        for candidate in candidates() {
            for precision in candidate.precisions() {
                let run = |kernels: &dyn Kernels, y: &mut Act, x: &Act, segments: &[RowSegment]| {
                    let slots = linear(&slots, kernels, precision);
                    let target = LoraTarget { columns: columns.clone(), slots: &slots };
                    kernels.add_lora(y, x, &[target], segments).unwrap();
                };
                let x = held_by(precision, &x);
                let (x_act, x_ref) = both(candidate, &x, k);
                let (mut got, mut want) = both(candidate, &y, n);
                run(&*candidate.kernels, &mut got, &x_act, &segments);
                run(&Reference, &mut want, &x_ref, &segments);
                let slots = linear(&slots, &Reference, precision);
                let target = LoraTarget { columns: columns.clone(), slots: &slots };
                let terms = terms((&y, n), (&x, k), &[target], &segments);
                candidate.check_deltas((&got, &want), &terms, precision).map_err(TestCaseError::fail)?;
                alone(candidate, &got, |row| {
                    let mut y = row_of(candidate, &y, n, row);
                    let x = row_of(candidate, &x, k, row);
                    run(&*candidate.kernels, &mut y, &x, &of_row(&segments, row));
                    y
                })?;
            }
        }
    }

    /// What was there before is added, not scaled; rows without a gain need no detour.
    #[test]
    fn layers_onto_a_residual(
        rows in 1..16_usize,
        (k, n) in (1..60_usize, 1..60_usize),
        slots in vec(option::of(made()), 1..4),
        raw in overlapping(),
        seed: u64,
    ) {
        let mut noise = Noise(seed);
        let weight = [noise.tensor(n, k)];
        let (x, y, bias) = (noise.values(rows * k), noise.values(rows * n), noise.values(n));
        let delta = |made: &Option<Made>| made.map(|made| noise.linear_delta(made, k, n));
        let slots: Slots<_> = slots.iter().map(delta).collect();
        let segments = segments(&raw, rows, slots.len());
        for candidate in candidates() {
            let kernels = &*candidate.kernels;
            let run = |y: &mut Act, x: &Act, segments: &[RowSegment]| {
                let weight = kernels.pack(&weight, Precision::F32).unwrap();
                let bias = candidate.act(&bias, n);
                let slots = linear(&slots, kernels, Precision::F32);
                let target = LoraTarget { columns: 0..n, slots: &slots };
                kernels.add_adapted(y, x, (&weight, Some(&bias)), &[target], segments).unwrap();
            };
            let (x_act, x_ref) = both(candidate, &x, k);
            let mut got = candidate.act(&y, n);
            run(&mut got, &x_act, &segments);
            let weight = Reference.pack(&weight, Precision::F32).unwrap();
            let bias = Reference.upload(&bias, 1, n).unwrap();
            let mut want = Reference.linear(&x_ref, &weight, Some(&bias)).unwrap();
            let slots = linear(&slots, &Reference, Precision::F32);
            let target = LoraTarget { columns: 0..n, slots: &slots };
            Reference.add_lora(&mut want, &x_ref, &[target], &segments).unwrap();
            want.values_mut().unwrap().iter_mut().zip(&y).for_each(|(want, y)| *want += y);
            candidate.check(&got, &want, Precision::F32).map_err(TestCaseError::fail)?;
            alone(candidate, &got, |row| {
                let mut y = row_of(candidate, &y, n, row);
                run(&mut y, &row_of(candidate, &x, k, row), &of_row(&segments, row));
                y
            })?;
        }
    }

    #[test]
    fn embeddings(
        ids in vec(any::<u32>(), 1..30),
        (vocab, hidden) in (1..90_usize, 1..90_usize),
        slots in vec(option::of(made()), 1..5),
        raw in overlapping(),
        seed: u64,
    ) {
        let mut noise = Noise(seed);
        let ids: Vec<u32> = ids.iter().map(|id| id % vocab as u32).collect();
        let x = noise.values(ids.len() * hidden);
        let delta = |made: &Option<Made>| made.map(|made| noise.embedding_delta(made, vocab, hidden));
        let slots: Slots<_> = slots.iter().map(delta).collect();
        let segments = segments(&raw, ids.len(), slots.len());
        for candidate in candidates() {
            for precision in candidate.precisions() {
                let run = |kernels: &dyn Kernels, x: &mut Act, ids: &[u32], segments: &[RowSegment]| {
                    let slots = embedding(&slots, kernels, precision);
                    kernels.adapt_embedding(x, ids, &slots, segments).unwrap();
                };
                let (mut got, mut want) = both(candidate, &x, hidden);
                run(&*candidate.kernels, &mut got, &ids, &segments);
                run(&Reference, &mut want, &ids, &segments);
                // A look-up is exact at every precision.
                candidate.check(&got, &want, Precision::F32).map_err(TestCaseError::fail)?;
                alone(candidate, &got, |row| {
                    let mut x = row_of(candidate, &x, hidden, row);
                    run(&*candidate.kernels, &mut x, &ids[row..=row], &of_row(&segments, row));
                    x
                })?;
            }
        }
    }

    #[test]
    fn norms(
        rows in 1..24_usize,
        (heads, dim) in (1..5_usize, 1..80_usize),
        slots in vec(any::<bool>(), 1..5),
        raw in overlapping(),
        seed: u64,
    ) {
        let mut noise = Noise(seed);
        let cols = heads * dim;
        let x = noise.values(rows * cols);
        let segments = segments(&raw, rows, slots.len());
        let mut weights = |len| {
            let slots: Slots<_> = slots.iter().map(|has| has.then(|| noise.vector(len))).collect();
            (noise.values(len), slots)
        };
        let (whole, head) = (weights(cols), weights(dim));
        for candidate in candidates() {
            let run = |kernels: &dyn Kernels, x: &Act, segments: &[RowSegment]| {
                let upload = |(base, slots): &(Vec<f32>, Slots<Tensor>)| {
                    let base = kernels.upload(base, 1, base.len()).unwrap();
                    (base, vectors(slots, kernels))
                };
                let (whole, head) = (upload(&whole), upload(&head));
                let weights = NormWeights { base: &whole.0, slots: &whole.1, segments };
                let mut y = kernels.rms_norm(x, weights, 1e-5).unwrap();
                let weights = NormWeights { base: &head.0, slots: &head.1, segments };
                kernels.head_norm(&mut y, dim..cols, weights, 1e-5).unwrap();
                y
            };
            let (x_act, x_ref) = both(candidate, &x, cols);
            let got = run(&*candidate.kernels, &x_act, &segments);
            let want = run(&Reference, &x_ref, &segments);
            candidate.check(&got, &want, Precision::F32).map_err(TestCaseError::fail)?;
            alone(candidate, &got, |row| {
                run(&*candidate.kernels, &row_of(candidate, &x, cols, row), &of_row(&segments, row))
            })?;
        }
    }

    #[test]
    fn centred_norms(
        (rows, cols) in (1..24_usize, 1..200_usize),
        slots in vec((any::<bool>(), any::<bool>()), 1..5),
        (weights_too, biases_too) in any::<(bool, bool)>(),
        raw in overlapping(),
        seed: u64,
    ) {
        let mut noise = Noise(seed);
        let x = noise.values(rows * cols);
        let segments = segments(&raw, rows, slots.len());
        let mut vectors_of = |has: Vec<bool>| {
            let slots: Slots<_> = has.iter().map(|has| has.then(|| noise.vector(cols))).collect();
            (noise.values(cols), slots)
        };
        // A norm of which nobody has its own has no slots at all.
        let (weights, biases): (Vec<_>, Vec<_>) = slots.into_iter().unzip();
        let weights = vectors_of(if weights_too { weights } else { vec![] });
        let biases = vectors_of(if biases_too { biases } else { vec![] });
        for candidate in candidates() {
            let run = |kernels: &dyn Kernels, x: &Act, segments: &[RowSegment]| {
                let load = |(base, slots): &(Vec<f32>, Slots<Tensor>)| {
                    (kernels.upload(base, 1, cols).unwrap(), vectors(slots, kernels))
                };
                let ((w, w_slots), (b, b_slots)) = (load(&weights), load(&biases));
                let weights = NormWeights { base: &w, slots: &w_slots, segments };
                let biases = NormWeights { base: &b, slots: &b_slots, segments };
                kernels.layer_norm(x, weights, Some(biases), 1e-5).unwrap()
            };
            let (x_act, x_ref) = both(candidate, &x, cols);
            let got = run(&*candidate.kernels, &x_act, &segments);
            let want = run(&Reference, &x_ref, &segments);
            candidate.check(&got, &want, Precision::F32).map_err(TestCaseError::fail)?;
            alone(candidate, &got, |row| {
                run(&*candidate.kernels, &row_of(candidate, &x, cols, row), &of_row(&segments, row))
            })?;
        }
    }
}
