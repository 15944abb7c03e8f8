//! Norms, each row by the weight and the bias that its adapters give it.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::{NormWeights, Result};
use super::buffers::Scratch;
use super::elementwise::{Step, combine};
use super::host;
use super::machine::{Machine, rows_per_item};
use super::simd::{Simd, Task};
use super::sums::Plus;
use super::vectors::{HOST, add_scaled};
use std::ops::{Deref, Range};

/// A norm, its weights and biases in host memory.
pub(super) struct Norm<'a> {
    weights: ByRow<'a>,
    biases: Option<ByRow<'a>>,
    eps: f32,
}

impl<'a> Norm<'a> {
    /// # Errors
    /// When a weight is not in host memory.
    pub(super) fn new(weights: NormWeights<'a>, eps: f32) -> Result<Self> {
        Ok(Self { weights: ByRow::new(weights)?, biases: None, eps })
    }

    /// With what is added in the end.
    ///
    /// # Errors
    /// When a bias is not in host memory.
    pub(super) fn and_biases(mut self, biases: Option<NormWeights<'a>>) -> Result<Self> {
        self.biases = biases.map(ByRow::new).transpose()?;
        Ok(self)
    }

    /// `y = x / sqrt(mean(x²) + eps) · weight` of each row.
    pub(super) fn rows(&self, machine: &Machine, x: &[f32], y: &mut [f32]) {
        self.between(machine, x, y, |(weight, _), x, y| {
            machine.level.run(RmsNorm { weight, eps: self.eps, x, y });
        });
    }

    /// `y = (x − mean(x)) / sqrt(var(x) + eps) · weight + bias` of each row.
    pub(super) fn centred_rows(&self, machine: &Machine, x: &[f32], y: &mut [f32]) {
        self.between(machine, x, y, |(weight, bias), x, y| {
            machine.level.run(LayerNorm { weight, bias, eps: self.eps, x, y });
        });
    }

    /// As [`Norm::rows`] in place, over each head as long as a weight in `columns` of a row.
    pub(super) fn heads(
        &self,
        machine: &Machine,
        (x, cols): (&mut [f32], usize),
        columns: &Range<usize>,
    ) {
        let chunk = rows_per_item(cols);
        machine.pool.chunks(x, chunk * cols, |index, x| {
            let first = index * chunk;
            self.chunk(machine, first..first + x.len() / cols, |(weight, _), rows| {
                let rows = rows.start - first..rows.end - first;
                for row in x[rows.start * cols..rows.end * cols].chunks_exact_mut(cols) {
                    let y = &mut row[columns.clone()];
                    machine.level.run(HeadNorm { weight, eps: self.eps, y });
                }
            });
        });
    }

    /// Calls `norm` with a weight and a bias, and the rows of `x` and `y` that share them.
    fn between(
        &self,
        machine: &Machine,
        x: &[f32],
        y: &mut [f32],
        norm: impl Fn(Vectors<'_>, &[f32], &mut [f32]) + Sync,
    ) {
        let cols = self.weights.base.len();
        let chunk = rows_per_item(cols);
        machine.pool.chunks(y, chunk * cols, |index, y| {
            let first = index * chunk;
            self.chunk(machine, first..first + y.len() / cols, |vectors, rows| {
                let x = &x[rows.start * cols..rows.end * cols];
                norm(vectors, x, &mut y[(rows.start - first) * cols..(rows.end - first) * cols]);
            });
        });
    }

    /// Calls `norm` with a weight and a bias, and those of `rows` that share them.
    fn chunk(
        &self,
        machine: &Machine,
        rows: Range<usize>,
        mut norm: impl FnMut(Vectors<'_>, Range<usize>),
    ) {
        for run in self.weights.given.runs(rows) {
            let weight = self.weights.of(machine, run.start);
            let Some(biases) = &self.biases else {
                norm((&weight, None), run);
                continue;
            };
            for run in biases.given.runs(run) {
                let bias = biases.of(machine, run.start);
                norm((&weight, Some(&bias)), run);
            }
        }
    }
}

/// A weight and a bias.
type Vectors<'a> = (&'a [f32], Option<&'a [f32]>);

/// A vector for each row.
struct ByRow<'a> {
    given: NormWeights<'a>,
    /// `[len]`
    base: &'a [f32],
}

impl<'a> ByRow<'a> {
    fn new(given: NormWeights<'a>) -> Result<Self> {
        given.slots.iter().flatten().try_for_each(|slot| host::values(slot).map(drop))?;
        Ok(Self { base: given.base.values()?, given })
    }

    /// A row's: `(1 − Σ weight) · base + Σ weight · slot`, a slot of weight 1 to the bit.
    fn of<'m>(&'m self, machine: &'m Machine, row: usize) -> Vector<'m> {
        let held = self.given.held(row);
        if held.clone().next().is_none() {
            return Vector::Base(self.base);
        }
        let mut mixed = machine.floats.scratch(self.base.len());
        let rest = 1.0 - held.clone().map(|(_, weight)| weight).sum::<f32>();
        mixed.iter_mut().zip(self.base).for_each(|(to, base)| *to = rest * base);
        for (slot, weight) in held {
            add_scaled(&mut mixed, &host::values(slot).expect(HOST), weight);
        }
        Vector::Mixed(mixed)
    }
}

enum Vector<'a> {
    Base(&'a [f32]),
    Mixed(Scratch<'a, f32>),
}

impl Deref for Vector<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match self {
            Self::Base(values) => values,
            Self::Mixed(values) => values,
        }
    }
}

struct RmsNorm<'a> {
    weight: &'a [f32],
    eps: f32,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Task for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let len = self.weight.len();
        for (x, y) in self.x.chunks_exact(len).zip(self.y.chunks_exact_mut(len)) {
            let mean = sum_of_squares(simd, x) / len as f32;
            let scale = 1.0 / (mean + self.eps).sqrt();
            combine(simd, &Scaled(scale), y, x);
            combine(simd, &Times, y, self.weight);
        }
    }
}

/// As [`RmsNorm`] in place.
struct HeadNorm<'a> {
    weight: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
}

impl Task for HeadNorm<'_> {
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

struct LayerNorm<'a> {
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    eps: f32,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Task for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let len = self.weight.len();
        for (x, y) in self.x.chunks_exact(len).zip(self.y.chunks_exact_mut(len)) {
            let mean = sum(simd, x) / len as f32;
            combine(simd, &Shifted(-mean), y, x);
            let variance = sum_of_squares(simd, y) / len as f32;
            let scale = 1.0 / (variance + self.eps).sqrt();
            combine(simd, &Scale(scale), y, self.weight);
            if let Some(bias) = self.bias {
                combine(simd, &Plus, y, bias);
            }
        }
    }
}

#[inline(always)]
fn sum<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let mut sums = simd.splat(0.0);
    let vectors = x.chunks_exact(S::LANES);
    let rest: f32 = vectors.remainder().iter().sum();
    for x in vectors {
        sums = simd.add(sums, simd.load(x));
    }
    simd.sum(sums) + rest
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

/// `y = y · factor · x`
struct Scale(f32);

impl Step for Scale {
    #[inline(always)]
    fn step<S: Simd>(&self, simd: S, y: S::V, x: S::V) -> S::V {
        simd.mul(simd.mul(y, simd.splat(self.0)), x)
    }
}

/// `y = x · factor`
struct Scaled(f32);

impl Step for Scaled {
    #[inline(always)]
    fn step<S: Simd>(&self, simd: S, _: S::V, x: S::V) -> S::V {
        simd.mul(x, simd.splat(self.0))
    }
}

/// `y = x + shift`
struct Shifted(f32);

impl Step for Shifted {
    #[inline(always)]
    fn step<S: Simd>(&self, simd: S, _: S::V, x: S::V) -> S::V {
        simd.add(x, simd.splat(self.0))
    }
}

/// `y = y · x`
struct Times;

impl Step for Times {
    #[inline(always)]
    fn step<S: Simd>(&self, simd: S, y: S::V, x: S::V) -> S::V {
        simd.mul(y, x)
    }
}
