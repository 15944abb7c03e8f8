//! A row alone gives the same bits as the row in company.
use super::{
    candidates::{Candidate, candidates},
    dense::ACTIVATIONS,
    inputs::{Noise, around, paged},
};
use crate::kernel::{
    Act, Kernels, LoraTarget, LowRank, NormWeights, Precision, Result as KernelResult, RowSegment,
};
use proptest::{collection::vec, prelude::*};
use std::slice::from_ref;

fn invariant() -> impl Iterator<Item = &'static Candidate> {
    candidates().iter().filter(|candidate| candidate.row_invariant)
}

/// Compares `whole`, computed on all rows, with what `one` computes on each row alone.
fn rows_agree(
    candidate: &Candidate,
    whole: &Act,
    one: impl Fn(u32) -> Act,
) -> Result<(), TestCaseError> {
    let values = candidate.read(whole);
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for (row, expected) in values.chunks_exact(whole.cols()).enumerate() {
        let alone = candidate.read(&one(row as u32));
        prop_assert_eq!(bits(&alone), bits(expected), "{}: row {}", candidate.name, row);
    }
    Ok(())
}

/// Deltas of adapters of `ranks`, each loaded by `load` and met by runs of up to `run` rows: a row's as if it were alone.
fn deltas_agree(
    ((rows, k, n), ranks, seed): ((usize, usize, usize), &[usize], u64),
    run: usize,
    load: impl Fn(&dyn Kernels, usize, &LowRank) -> KernelResult<LowRank>,
) -> Result<(), TestCaseError> {
    let mut noise = Noise(seed);
    let (x, y) = (noise.values(rows * k), noise.values(rows * n));
    let pairs: Vec<LowRank> = ranks.iter().map(|rank| noise.pair(*rank, k, n)).collect();
    let slot = |row: usize| row / run % pairs.len();
    let segment = |start: usize| RowSegment {
        rows: start..(start + run).min(rows),
        slot: slot(start),
        weight: 0.5,
    };
    let segments: Vec<RowSegment> = (0..rows).step_by(run).map(segment).collect();
    for candidate in invariant() {
        let kernels = &*candidate.kernels;
        let (x, mut whole) = (candidate.act(&x, k), candidate.act(&y, n));
        let load = |(i, pair)| Some(load(kernels, i, pair).unwrap().into());
        let slots: Vec<_> = pairs.iter().enumerate().map(load).collect();
        let targets = [LoraTarget { columns: 0..n, slots: &slots }];
        kernels.add_lora(&mut whole, &x, &targets, &segments).unwrap();
        rows_agree(candidate, &whole, |row| {
            let at = row as usize;
            let mut y = candidate.act(&y[at * n..(at + 1) * n], n);
            let x = kernels.select_rows(&x, &[row]).unwrap();
            let segment = RowSegment { rows: 0..1, slot: slot(at), weight: 0.5 };
            kernels.add_lora(&mut y, &x, &targets, &[segment]).unwrap();
            y
        })?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn linear(rows in 1..40_usize, k in 1..300_usize, n in 1..150_usize, seed: u64) {
        let mut noise = Noise(seed);
        let (weight, x) = ([noise.tensor(n, k)], noise.values(rows * k));
        for candidate in invariant() {
            let kernels = &candidate.kernels;
            for precision in candidate.precisions() {
                let (w, x) = (
                    kernels.pack(&weight, precision).unwrap(),
                    candidate.act(&x, k),
                );
                let whole = kernels.linear(&x, &w, None).unwrap();
                rows_agree(candidate, &whole, |row| {
                    kernels.linear(&kernels.select_rows(&x, &[row]).unwrap(), &w, None).unwrap()
                })?;
            }
        }
    }

    #[test]
    fn lora(
        rows in 1..40_usize,
        (k, n) in (1..120_usize, 1..120_usize),
        ranks in vec(1..70_usize, 1..5),
        seed: u64,
    ) {
        // Every other adapter as it stands beside a base in f32; neighbours of one adapter in runs of up to three rows.
        let load = |kernels: &dyn Kernels, index: usize, pair: &LowRank| {
            kernels.load_low_rank(pair, [Precision::F32, Precision::Bf16][index % 2])
        };
        deltas_agree(((rows, k, n), &ranks, seed), 3, load)?;
    }

    #[test]
    fn lora_of_whole_texts(
        rows in 1..70_usize,
        (k, n) in (1..120_usize, 1..120_usize),
        ranks in vec(1..70_usize, 1..5),
        seed: u64,
    ) {
        let load = |kernels: &dyn Kernels, _: usize, pair: &LowRank| {
            kernels.load_low_rank(pair, Precision::Bf16)
        };
        deltas_agree(((rows, k, n), &ranks, seed), 23, load)?;
    }

    #[test]
    fn norms_gate_and_activation(rows in 1..40_usize, inner in 1..100_usize, which in 0..5_usize, seed: u64) {
        let (mut noise, cols) = (Noise(seed), 2 * inner);
        let (x, weight) = (noise.values(rows * cols), noise.values(cols));
        for candidate in invariant() {
            let kernels = &candidate.kernels;
            let (x, w) = (candidate.act(&x, cols), candidate.act(&weight, cols));
            let run = |x: &Act| {
                let w = NormWeights::base(&w);
                let normed = kernels.rms_norm(x, w, 1e-6).unwrap();
                let normed = kernels.layer_norm(&normed, w, Some(w), 1e-6).unwrap();
                let mut gated = kernels.gated(&normed, ACTIVATIONS[which]).unwrap();
                kernels.activate(&mut gated, ACTIVATIONS[which]).unwrap();
                gated
            };
            rows_agree(candidate, &run(&x), |row| run(&kernels.select_rows(&x, &[row]).unwrap()))?;
        }
    }

    /// Texts of a batch: a mean alone has the bits of the mean in company.
    #[test]
    fn means(lens in vec(1..30_u32, 1..6), cols in 1..70_usize, seed: u64) {
        let mut end = 0;
        let range = |len: &u32| {
            end += len;
            end - len..end
        };
        let ranges: Vec<_> = lens.iter().map(range).collect();
        let x = Noise(seed).values(end as usize * cols);
        for candidate in invariant() {
            let kernels = &candidate.kernels;
            let x = candidate.act(&x, cols);
            let whole = kernels.mean_rows(&x, &ranges).unwrap();
            rows_agree(candidate, &whole, |row| {
                let rows: Vec<u32> = ranges[row as usize].clone().collect();
                let alone = kernels.select_rows(&x, &rows).unwrap();
                kernels.mean_rows(&alone, from_ref(&(0..rows.len() as u32))).unwrap()
            })?;
        }
    }

    #[test]
    fn attention(paged in prop_oneof![paged().boxed(), around().boxed()]) {
        for candidate in invariant() {
            let kernels = &*candidate.kernels;
            let batch = paged.fill(kernels);
            let whole = candidate.read(&batch.attend(kernels, &paged));
            let mut alone = Vec::new();
            for i in 0..paged.sequences.len() {
                alone.extend(candidate.read(&batch.attend_to(kernels, &paged, i..i + 1)));
            }
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&alone), bits(&whole), "{}", candidate.name);
        }
    }

    /// A prompt in one chunk gives its last row the bits that a decode step gives it.
    #[test]
    fn chunks(paged in paged()) {
        for candidate in invariant() {
            let kernels = &*candidate.kernels;
            let whole = candidate.read(&paged.fill(kernels).attend(kernels, &paged));
            let cols = paged.heads * paged.shape.head_dim;
            let mut last = paged.clone();
            let mut batch = paged.fill(kernels);
            last.sequences.iter_mut().for_each(|(rows, _)| *rows = (*rows).min(1));
            let mut q = Vec::new();
            let mut expected = Vec::new();
            for end in batch.query_starts.windows(2).filter(|pair| pair[0] < pair[1]) {
                let row = (end[1] as usize - 1) * cols..end[1] as usize * cols;
                q.extend_from_slice(&batch.q[row.clone()]);
                expected.extend_from_slice(&whole[row]);
            }
            batch.q = q;
            for i in 0..last.sequences.len() {
                batch.query_starts[i + 1] = batch.query_starts[i] + last.sequences[i].0 as u32;
            }
            let got = candidate.read(&batch.attend(kernels, &last));
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&got), bits(&expected), "{}", candidate.name);
        }
    }
}
