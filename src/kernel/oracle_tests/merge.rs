//! Adapters of every published kind, mixed, against weights merged densely in f64.
use super::{
    candidates::candidates,
    deltas::overlapping,
    inputs::{Noise, segments},
};
use crate::kernel::{
    Act, EmbeddingDelta, Kernels, LinearDelta, LoraTarget, LowRank, NormWeights, Precision,
    Reference, RowSegment, TrainedRows,
};
use candle_core::{Device, Tensor};
use proptest::{collection::vec, option, prelude::*};

/// `[rows, cols]`
type Matrix = Vec<Vec<f64>>;

/// What a published adapter says about a weight.
#[derive(Clone, Copy, Debug)]
struct Kind {
    rank: Option<usize>,
    /// Magnitudes of its own (`DoRA`).
    dora: bool,
    /// A bias that replaces the base's.
    bias: bool,
    /// A bias of its `B`.
    lora_bias: bool,
    /// Some rows in the place of the base's, or all.
    replaced: Option<bool>,
}

fn kind() -> impl Strategy<Value = Kind> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), option::of(any::<bool>()));
    (option::of(1..9_usize), flags).prop_map(|(rank, (dora, bias, lora_bias, replaced))| Kind {
        rank,
        dora: dora && rank.is_some(),
        bias,
        lora_bias: lora_bias && rank.is_some(),
        replaced,
    })
}

impl Noise {
    fn wide(&mut self, len: usize) -> Vec<f64> {
        self.values(len).into_iter().map(f64::from).collect()
    }

    /// All of `0..count`, or some.
    fn replaced(&mut self, all: bool, count: usize) -> Vec<u32> {
        if all { (0..count as u32).collect() } else { self.ids(count) }
    }

    /// Nowhere near 0, so that no delta of [`scaling`] makes it so.
    fn base(&mut self, rows: usize, cols: usize) -> Matrix {
        let mut matrix = self.matrix(rows, cols);
        for value in matrix.iter_mut().flatten() {
            *value += value.signum();
        }
        matrix
    }

    fn matrix(&mut self, rows: usize, cols: usize) -> Matrix {
        (0..rows).map(|_| self.wide(cols)).collect()
    }
}

fn tensor(matrix: &Matrix, cols: usize) -> Tensor {
    Tensor::from_vec(narrow(&matrix.concat()), (matrix.len(), cols), &Device::Cpu).unwrap()
}

fn vector(values: &[f64]) -> Tensor {
    Tensor::from_vec(narrow(values), values.len(), &Device::Cpu).unwrap()
}

/// Deltas of 0.75 at most.
fn scaling(kind: Kind) -> f64 {
    0.75 / kind.rank.unwrap_or(1) as f64
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// A weight `[out, in]` that an adapter makes of another, densely and in the canonical form.
struct Adapted {
    weight: Matrix,
    bias: Vec<f64>,
    delta: LinearDelta<Tensor>,
}

/// `W' = m / ‖W + s·B·A‖ · (W + s·B·A)` of each row, rows and biases replaced where the kind says so.
fn adapt(noise: &mut Noise, kind: Kind, weight: &Matrix, bias: &[f64]) -> Adapted {
    let (out, width) = (weight.len(), weight[0].len());
    let (rank, scaling) = (kind.rank.unwrap_or(0), scaling(kind));
    let (a, b) = (noise.matrix(rank, width), noise.matrix(rank, out));
    let mut dense = weight.clone();
    for (row, dense) in dense.iter_mut().enumerate() {
        for (a, b) in a.iter().zip(&b) {
            dense.iter_mut().zip(a).for_each(|(w, a)| *w += scaling * b[row] * a);
        }
    }
    let mut gains = vec![1.0; out];
    if kind.dora {
        for (row, gain) in dense.iter_mut().zip(&mut gains) {
            let magnitude = (1.5 + noise.wide(1)[0]) * (width as f64).sqrt();
            *gain = magnitude / norm(row.iter().copied());
            for w in row {
                *w *= *gain;
            }
        }
    }
    let mut new_bias = if kind.bias { noise.wide(out) } else { bias.to_vec() };
    if kind.lora_bias {
        let own = noise.wide(out);
        new_bias.iter_mut().zip(own).for_each(|(bias, own)| *bias += scaling * own);
    }
    let ids = kind.replaced.map(|all| noise.replaced(all, out));
    let rows = noise.matrix(ids.as_ref().map_or(0, Vec::len), width);
    for (id, row) in ids.iter().flatten().zip(&rows) {
        dense[*id as usize].clone_from(row);
        gains[*id as usize] = 0.0;
    }
    let shift: Vec<f64> =
        new_bias.iter().zip(bias).zip(&gains).map(|((new, old), gain)| new - gain * old).collect();
    let folded: Matrix = b
        .iter()
        .map(|b| b.iter().zip(&gains).map(|(b, gain)| scaling * gain * b).collect())
        .collect();
    let pair = || LowRank::new(tensor(&a, width), tensor(&folded, out)).unwrap();
    let delta = LinearDelta {
        low_rank: kind.rank.map(|_| pair()),
        gain: (kind.dora || ids.is_some()).then(|| vector(&gains)),
        shift: Some(vector(&shift)),
        trained: ids.map(|ids| TrainedRows {
            weight: tensor(&rows, width),
            ids: (kind.replaced == Some(false)).then(|| ids.into()),
        }),
    };
    Adapted { weight: dense, bias: new_bias, delta }
}

/// `base + Σ weight · (slot − base)` of what `row` uses.
fn mixed(base: &[f64], slots: &[&[f64]], segments: &[RowSegment], row: usize) -> Vec<f64> {
    let mut sums = base.to_vec();
    for segment in segments.iter().filter(|segment| segment.rows.contains(&row)) {
        for ((sum, slot), base) in sums.iter_mut().zip(slots[segment.slot]).zip(base) {
            *sum += f64::from(segment.weight) * (slot - base);
        }
    }
    sums
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// The same numbers as the reference's, for [`super::candidates::Candidate::check`].
fn wanted(values: &[f64], rows: usize) -> Act {
    Reference.upload(&narrow(values), rows, values.len() / rows).unwrap()
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_linear_layer(
        rows in 1..8_usize,
        (k, out) in (1..24_usize, 1..40_usize),
        kinds in vec(kind(), 1..4),
        raw in overlapping(),
        seed: u64,
    ) {
        let mut noise = Noise(seed);
        let (weight, bias) = (noise.base(out, k), noise.wide(out));
        let x = noise.matrix(rows, k);
        let adapted: Vec<_> =
            kinds.iter().map(|kind| adapt(&mut noise, *kind, &weight, &bias)).collect();
        let segments = segments(&raw, rows, kinds.len());
        let mut want = Vec::new();
        for (row, x) in x.iter().enumerate() {
            let biases: Vec<&[f64]> = adapted.iter().map(|a| &a.bias[..]).collect();
            let bias = mixed(&bias, &biases, &segments, row);
            for (i, base) in weight.iter().enumerate() {
                let slots: Vec<&[f64]> = adapted.iter().map(|a| &a.weight[i][..]).collect();
                want.push(dot(x, &mixed(base, &slots, &segments, row)) + bias[i]);
            }
        }
        for candidate in candidates() {
            let kernels = &*candidate.kernels;
            let load = |a: &Adapted| Some(a.delta.load(kernels, Precision::F32).unwrap());
            let slots: Vec<_> = adapted.iter().map(load).collect();
            let base = kernels.pack(&[tensor(&weight, k)], Precision::F32).unwrap();
            let x = candidate.act(&narrow(&x.concat()), k);
            let bias = candidate.act(&narrow(&bias), out);
            let mut y = kernels.linear(&x, &base, Some(&bias)).unwrap();
            let target = LoraTarget { columns: 0..out, slots: &slots };
            kernels.add_lora(&mut y, &x, &[target], &segments).unwrap();
            candidate.check(&y, &wanted(&want, rows), Precision::F32).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn an_embedding(
        ids in vec(any::<u32>(), 1..12),
        (vocab, hidden) in (1..24_usize, 1..40_usize),
        kinds in vec(kind(), 1..4),
        raw in overlapping(),
        seed: u64,
    ) {
        let mut noise = Noise(seed);
        let ids: Vec<u32> = ids.iter().map(|id| id % vocab as u32).collect();
        let table = noise.base(vocab, hidden);
        let adapted: Vec<_> =
            kinds.iter().map(|kind| adapt_table(&mut noise, *kind, &table)).collect();
        let segments = segments(&raw, ids.len(), kinds.len());
        let want = ids.iter().enumerate().flat_map(|(row, id)| {
            let id = *id as usize;
            let slots: Vec<&[f64]> = adapted.iter().map(|(table, _)| &table[id][..]).collect();
            mixed(&table[id], &slots, &segments, row)
        });
        let want: Vec<f64> = want.collect();
        for candidate in candidates() {
            let kernels = &*candidate.kernels;
            let load = |(_, delta): &(Matrix, EmbeddingDelta<Tensor>)| {
                Some(delta.load(kernels, Precision::F32).unwrap())
            };
            let slots: Vec<_> = adapted.iter().map(load).collect();
            let base = kernels.pack(&[tensor(&table, hidden)], Precision::F32).unwrap();
            let mut x = kernels.embed(&base, &ids).unwrap();
            kernels.adapt_embedding(&mut x, &ids, &slots, &segments).unwrap();
            let want = wanted(&want, ids.len());
            candidate.check(&x, &want, Precision::F32).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn a_norm(rows in 1..8_usize, len in 1..40_usize, count in 1..4_usize, raw in overlapping(), seed: u64) {
        let mut noise = Noise(seed);
        let (x, base, slots) = (noise.matrix(rows, len), noise.wide(len), noise.matrix(count, len));
        let segments = segments(&raw, rows, count);
        let each: Vec<&[f64]> = slots.iter().map(Vec::as_slice).collect();
        let want = x.iter().enumerate().flat_map(|(row, x)| {
            let root = (dot(x, x) / len as f64 + 1e-5).sqrt();
            let weight = mixed(&base, &each, &segments, row);
            x.iter().zip(weight).map(move |(x, weight)| x / root * weight).collect::<Vec<_>>()
        });
        let want: Vec<f64> = want.collect();
        for candidate in candidates() {
            let kernels = &*candidate.kernels;
            let load = |slot: &Vec<f64>| Some(kernels.load_vector(&vector(slot)).unwrap());
            let slots: Vec<_> = slots.iter().map(load).collect();
            let base = candidate.act(&narrow(&base), len);
            let weights = NormWeights { base: &base, slots: &slots, segments: &segments };
            let x = candidate.act(&narrow(&x.concat()), len);
            let y = kernels.rms_norm(&x, weights, 1e-5).unwrap();
            candidate.check(&y, &wanted(&want, rows), Precision::F32).map_err(TestCaseError::fail)?;
        }
    }
}

/// `E' = m / ‖E + s·(B·A)ᵀ‖ ∘ (E + s·(B·A)ᵀ)`, the norm of each hidden column; rows replaced where the kind says so.
fn adapt_table(noise: &mut Noise, kind: Kind, table: &Matrix) -> (Matrix, EmbeddingDelta<Tensor>) {
    let (vocab, hidden) = (table.len(), table[0].len());
    let (rank, scaling) = (kind.rank.unwrap_or(0), scaling(kind));
    let (a, mut b) = (noise.matrix(rank, vocab), noise.matrix(rank, hidden));
    let mut dense = table.clone();
    for (id, dense) in dense.iter_mut().enumerate() {
        for (a, b) in a.iter().zip(&b) {
            dense.iter_mut().zip(b).for_each(|(w, b)| *w += scaling * a[id] * b);
        }
    }
    let mut gains = vec![1.0; hidden];
    if kind.dora {
        for (column, gain) in gains.iter_mut().enumerate() {
            let magnitude = (1.5 + noise.wide(1)[0]) * (vocab as f64).sqrt();
            *gain = magnitude / norm(dense.iter().map(|row| row[column]));
            for row in &mut dense {
                row[column] *= *gain;
            }
        }
    }
    for b in &mut b {
        b.iter_mut().zip(&gains).for_each(|(b, gain)| *b *= scaling * gain);
    }
    let ids = kind.replaced.map(|all| noise.replaced(all, vocab));
    // What is trained of a row comes before the pair and the gain.
    let rows = noise.matrix(ids.as_ref().map_or(0, Vec::len), hidden);
    for (id, row) in ids.iter().flatten().zip(&rows) {
        let id = *id as usize;
        dense[id].clone_from(row);
        for (a, b) in a.iter().zip(&b) {
            dense[id].iter_mut().zip(b).for_each(|(w, b)| *w += a[id] * b);
        }
    }
    let pair = || LowRank::new(tensor(&a, vocab), tensor(&b, hidden)).unwrap();
    let delta = EmbeddingDelta {
        low_rank: kind.rank.map(|_| pair()),
        gain: kind.dora.then(|| vector(&gains)),
        trained: ids.map(|ids| TrainedRows {
            weight: tensor(&rows, hidden),
            ids: (kind.replaced == Some(false)).then(|| ids.into()),
        }),
    };
    (dense, delta)
}
