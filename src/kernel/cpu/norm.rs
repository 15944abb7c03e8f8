//! Root-mean-square norms, each row by the weight that its adapters give it.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::{NormWeights, Result};
use super::elementwise::{Step, combine};
use super::host;
use super::machine::{Machine, rows_per_item};
use super::simd::{Simd, Task};
use super::vectors::{HOST, add_scaled};
use std::ops::Range;

/// A norm, its weights in host memory.
pub(super) struct Norm<'a> {
    weights: NormWeights<'a>,
    /// `[len]`
    base: &'a [f32],
    eps: f32,
}

impl<'a> Norm<'a> {
    /// # Errors
    /// When a weight is not in host memory.
    pub(super) fn new(weights: NormWeights<'a>, eps: f32) -> Result<Self> {
        weights.slots.iter().flatten().try_for_each(|slot| host::values(slot).map(drop))?;
        Ok(Self { base: weights.base.values()?, weights, eps })
    }

    /// `y = x / sqrt(mean(x²) + eps) · weight` of each row.
    pub(super) fn rows(&self, machine: &Machine, x: &[f32], y: &mut [f32]) {
        let cols = self.base.len();
        let chunk = rows_per_item(cols);
        machine.pool.chunks(y, chunk * cols, |index, y| {
            y.copy_from_slice(&x[index * chunk * cols..][..y.len()]);
            self.chunk(machine, index * chunk, (y, cols), |weight, eps, y| {
                machine.level.run(RmsNorm { weight, eps, y });
            });
        });
    }

    /// The same in place, over each head of `base.len()` in `columns` of a row.
    pub(super) fn heads(
        &self,
        machine: &Machine,
        (x, cols): (&mut [f32], usize),
        columns: &Range<usize>,
    ) {
        let chunk = rows_per_item(cols);
        machine.pool.chunks(x, chunk * cols, |index, x| {
            self.chunk(machine, index * chunk, (x, cols), |weight, eps, rows| {
                for row in rows.chunks_exact_mut(cols) {
                    machine.level.run(RmsNorm { weight, eps, y: &mut row[columns.clone()] });
                }
            });
        });
    }

    /// Calls `norm` with rows that share a weight, that and the epsilon; the chunk begins with row `first`.
    fn chunk(
        &self,
        machine: &Machine,
        first: usize,
        (rows, cols): (&mut [f32], usize),
        norm: impl Fn(&[f32], f32, &mut [f32]),
    ) {
        for run in self.weights.runs(first..first + rows.len() / cols) {
            let rows = &mut rows[(run.start - first) * cols..(run.end - first) * cols];
            if self.weights.held(run.start).next().is_none() {
                norm(self.base, self.eps, rows);
                continue;
            }
            let mut weight = machine.floats.scratch(self.base.len());
            self.mix(run.start, &mut weight);
            norm(&weight, self.eps, rows);
        }
    }

    /// `(1 − Σ weight) · base + Σ weight · slot`: a slot of weight 1 to the bit.
    fn mix(&self, row: usize, to: &mut [f32]) {
        let held = self.weights.held(row);
        let rest = 1.0 - held.clone().map(|(_, weight)| weight).sum::<f32>();
        to.iter_mut().zip(self.base).for_each(|(to, base)| *to = rest * base);
        for (slot, weight) in held {
            add_scaled(to, &host::values(slot).expect(HOST), weight);
        }
    }
}

struct RmsNorm<'a> {
    weight: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
}

impl Task for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let len = self.weight.len();
        for y in self.y.chunks_exact_mut(len) {
            let mean = sum_of_squares(simd, y) / len as f32;
            let scale = 1.0 / (mean + self.eps).sqrt();
            combine(simd, &Scale(scale), y, self.weight);
        }
    }
}

#[inline(always)]
fn sum_of_squares<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let mut sums = simd.splat(0.0);
    let vectors = x.chunks_exact(S::LANES);
    let rest: f32 = vectors.remainder().iter().map(|x| x * x).sum();
    for x in vectors {
        let x = simd.load(x);
        sums = simd.mul_add(x, x, sums);
    }
    simd.sum(sums) + rest
}

struct Scale(f32);

impl Step for Scale {
    #[inline(always)]
    fn step<S: Simd>(&self, simd: S, y: S::V, x: S::V) -> S::V {
        simd.mul(simd.mul(y, simd.splat(self.0)), x)
    }
}
