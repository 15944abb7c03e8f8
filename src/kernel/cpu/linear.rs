//! `x · Wᵀ + bias` over packed weights.
//!
//! A tile is a few rows of `x` against one panel; its sums stay in registers while `in` runs by. Each sum
//! takes its terms one after the other, whatever the tile's height, so a row's result does not depend on
//! the rows beside it.
#![expect(unsafe_code, reason = "threads write their own columns of one result")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::{BaseWeight, FeedForward, Result};
use super::lora::AddLora;
use super::machine::{Machine, rows_per_item};
use super::pack::{PackedWeight, Panels};
use super::pool::Pieces;
use super::quant::QuantWeight;
use super::simd::{Simd, Task};
use std::ops::Range;

/// Vectors of columns a panel has.
pub(super) const VECTORS: usize = 4;

/// Steps of a panel to ask for in advance: more than the hardware does by itself, which stops at each page.
const AHEAD: usize = 32;

/// Below this many multiplications one thread is faster than waking another.
const SERIAL: usize = 60_000;

/// The operands, checked by the caller.
pub(super) struct Linear<'a> {
    /// `[rows, in]`, or what `between` makes that of.
    pub(super) x: &'a [f32],
    pub(super) rows: usize,
    pub(super) in_features: usize,
    pub(super) out_features: usize,
    /// `[out]`
    pub(super) bias: Option<&'a [f32]>,
    /// Whether the product is added to what `y` has.
    pub(super) onto: bool,
    /// Deltas that the weight's kind adds to it, if [`AddLora::joins`] said so.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "tiles alone add them"))]
    pub(super) pairs: Option<&'a AddLora<'a>>,
    /// What the weight's kind makes of the rows first; tiles alone do.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "tiles alone do"))]
    pub(super) between: Option<FeedForward>,
}

impl Linear<'_> {
    /// Values of a row of `x`.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn row_width(&self) -> usize {
        match self.between {
            Some(FeedForward::Gated(_)) => 2 * self.in_features,
            Some(FeedForward::Plain(_)) | None => self.in_features,
        }
    }

    /// By a weight of any precision; `y` is `[rows, out]`, every element of it is written.
    ///
    /// # Errors
    /// When the weight was packed by another implementation of the kernels.
    pub(super) fn multiply(
        &self,
        machine: &Machine,
        weight: &BaseWeight,
        y: &mut [f32],
    ) -> Result<()> {
        match QuantWeight::of(weight) {
            Some(integers) => integers.multiply(self, machine, y),
            None => self.run(machine, PackedWeight::of(weight)?, y),
        }
        Ok(())
    }

    fn run(&self, machine: &Machine, weight: &PackedWeight, y: &mut [f32]) {
        match &weight.panels {
            Panels::F32(panels) => {
                self.product::<F32>(machine, weight, (panels, self.x), y);
            }
            Panels::Bf16(panels) => {
                let words = weight.steps * machine.level.parts();
                let mut x = machine.words.scratch(self.rows * words);
                self.round(machine, words, &mut x);
                self.product::<Bf16>(machine, weight, (panels, &x), y);
            }
            #[cfg(target_arch = "x86_64")]
            Panels::Tiles(amx, panels) => self.tiled((machine, *amx), weight, panels, y),
        }
    }

    /// The rows rounded to bfloat16, in `words` each.
    fn round(&self, machine: &Machine, words: usize, to: &mut [u32]) {
        let level = machine.level;
        let rows = rows_per_item(words);
        machine.pool.chunks(to, words * rows, |index, to| {
            let x = &self.x[index * rows * self.in_features..];
            level.run(Round { x, in_features: self.in_features, words, to });
        });
    }

    fn product<F: Format>(
        &self,
        machine: &Machine,
        weight: &PackedWeight,
        (panels, x): (&[F::Value], &[F::Value]),
        y: &mut [f32],
    ) {
        let count = self.out_features.div_ceil(weight.width);
        let cuts = self.cuts(machine, count);
        let rows = self.rows.div_ceil(cuts);
        let y = Pieces::new(y);
        let item = |item: usize| {
            let (panel, cut) = (item / cuts, item % cuts);
            let size = weight.steps * weight.width;
            let part = Part::<F> {
                panel: &panels[panel * size..][..size],
                x,
                steps: weight.steps,
                rows: (cut * rows).min(self.rows)..((cut + 1) * rows).min(self.rows),
                columns: panel * weight.width..((panel + 1) * weight.width).min(self.out_features),
                bias: self.bias,
                onto: self.onto,
                out_features: self.out_features,
                y: &y,
            };
            machine.level.run(part);
        };
        if self.rows * self.in_features * self.out_features < SERIAL {
            (0..count * cuts).for_each(item);
        } else {
            machine.pool.run(count * cuts, &item);
        }
    }

    /// Into how many parts the rows are cut, so that few panels still keep all threads busy.
    fn cuts(&self, machine: &Machine, panels: usize) -> usize {
        let wanted = (4 * machine.pool.threads()).div_ceil(panels);
        wanted.clamp(1, self.rows.div_ceil(6).max(1))
    }
}

/// Whether products with it are tiles of bfloat16, which do more than multiply.
pub(super) fn on_tiles(machine: &Machine, weight: &BaseWeight) -> Result<bool> {
    #[cfg(target_arch = "x86_64")]
    if machine.level.tiles().is_some() && QuantWeight::of(weight).is_none() {
        return Ok(PackedWeight::of(weight)?.is_tiles());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (machine, weight);
    Ok(false)
}

/// How the values of a panel and of the rows are multiplied.
trait Format {
    /// What a step of a panel's column holds: a value, or a pair of them.
    type Value: Copy + Send + Sync;
    /// A vector of what one multiplication takes.
    type Part<S: Simd>: Copy;
    /// Multiplications of a step; a row has as many values for each.
    fn parts<S: Simd>() -> usize;
    fn load<S: Simd>(simd: S, from: &[Self::Value], part: usize) -> Self::Part<S>;
    fn splat<S: Simd>(simd: S, value: Self::Value) -> Self::Part<S>;
    fn add_product<S: Simd>(simd: S, sums: S::V, w: Self::Part<S>, x: Self::Part<S>) -> S::V;
}

struct F32;

impl Format for F32 {
    type Value = f32;
    type Part<S: Simd> = S::V;

    #[inline(always)]
    fn parts<S: Simd>() -> usize {
        1
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[f32], _: usize) -> S::V {
        simd.load(from)
    }

    #[inline(always)]
    fn splat<S: Simd>(simd: S, value: f32) -> S::V {
        simd.splat(value)
    }

    #[inline(always)]
    fn add_product<S: Simd>(simd: S, sums: S::V, w: S::V, x: S::V) -> S::V {
        simd.mul_add(w, x, sums)
    }
}

struct Bf16;

impl Format for Bf16 {
    type Value = u32;
    type Part<S: Simd> = S::Part;

    #[inline(always)]
    fn parts<S: Simd>() -> usize {
        S::PARTS
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[u32], part: usize) -> S::Part {
        simd.load_part(from, part)
    }

    #[inline(always)]
    fn splat<S: Simd>(simd: S, value: u32) -> S::Part {
        simd.splat_part(value)
    }

    #[inline(always)]
    fn add_product<S: Simd>(simd: S, sums: S::V, w: S::Part, x: S::Part) -> S::V {
        simd.add_part(sums, w, x)
    }
}

/// One panel against some rows.
struct Part<'a, F: Format> {
    panel: &'a [F::Value],
    x: &'a [F::Value],
    steps: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    bias: Option<&'a [f32]>,
    onto: bool,
    out_features: usize,
    y: &'a Pieces<'a, f32>,
}

impl<F: Format> Task for Part<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let tiles = self.rows.len().div_ceil(S::ROWS).max(1);
        let (height, taller) = (self.rows.len() / tiles, self.rows.len() % tiles);
        let mut row = self.rows.start;
        for tile in 0..tiles {
            let height = height + usize::from(tile < taller);
            match height {
                1 => self.tile::<S, 1>(simd, row),
                2 => self.tile::<S, 2>(simd, row),
                3 => self.tile::<S, 3>(simd, row),
                4 => self.tile::<S, 4>(simd, row),
                5 => self.tile::<S, 5>(simd, row),
                6 => self.tile::<S, 6>(simd, row),
                _ => {}
            }
            row += height;
        }
    }
}

impl<F: Format> Part<'_, F> {
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(&self, simd: S, first: usize) {
        let len = self.steps * F::parts::<S>();
        let mut x = [&self.x[..0]; ROWS];
        for (r, x) in x.iter_mut().enumerate() {
            *x = &self.x[(first + r) * len..][..len];
        }
        let sums = self.sums::<S, ROWS>(simd, x);
        for (r, sums) in sums.into_iter().enumerate() {
            self.write(simd, first + r, sums);
        }
    }

    #[inline(always)]
    fn sums<S: Simd, const ROWS: usize>(
        &self,
        simd: S,
        x: [&[F::Value]; ROWS],
    ) -> [[S::V; VECTORS]; ROWS] {
        let mut sums = [[simd.splat(0.0); VECTORS]; ROWS];
        for (step, columns) in self.panel.chunks_exact(VECTORS * S::LANES).enumerate() {
            for v in 0..VECTORS {
                simd.prefetch(&columns[v * S::LANES], AHEAD * columns.len());
            }
            for part in 0..F::parts::<S>() {
                let mut w = [F::load(simd, columns, part); VECTORS];
                for (v, w) in w.iter_mut().enumerate() {
                    *w = F::load(simd, &columns[v * S::LANES..], part);
                }
                for (sums, x) in sums.iter_mut().zip(x) {
                    let x = F::splat(simd, x[step * F::parts::<S>() + part]);
                    for (sums, w) in sums.iter_mut().zip(w) {
                        *sums = F::add_product(simd, *sums, w, x);
                    }
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn write<S: Simd>(&self, simd: S, row: usize, sums: [S::V; VECTORS]) {
        let start = row * self.out_features;
        // SAFETY: a row's columns of one panel belong to one item of the job.
        let y = unsafe { self.y.piece(start + self.columns.start..start + self.columns.end) };
        let bias = self.bias.map(|bias| &bias[self.columns.clone()]);
        for (v, sums) in sums.into_iter().enumerate() {
            let at = (v * S::LANES).min(y.len())..((v + 1) * S::LANES).min(y.len());
            let bias = bias.map(|bias| &bias[at.clone()]);
            write_vector(simd, sums, (bias, self.onto), &mut y[at]);
        }
    }
}

/// The one place where a result is written: `sums + bias`, or that added to what is there.
#[inline(always)]
pub(super) fn write_vector<S: Simd>(
    simd: S,
    sums: S::V,
    (bias, onto): (Option<&[f32]>, bool),
    to: &mut [f32],
) {
    if to.len() == S::LANES {
        let sums = bias.map_or(sums, |bias| simd.add(sums, simd.load(bias)));
        return simd.store(if onto { simd.add(simd.load(to), sums) } else { sums }, to);
    }
    let mut lanes = [0.0; 16];
    simd.store(sums, &mut lanes);
    if let Some(bias) = bias {
        lanes.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
    }
    if onto {
        lanes.iter_mut().zip(to.iter()).for_each(|(sum, to)| *sum += to);
    }
    to.copy_from_slice(&lanes[..to.len()]);
}

struct Round<'a> {
    x: &'a [f32],
    in_features: usize,
    words: usize,
    to: &'a mut [u32],
}

impl Task for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.x.chunks_exact(self.in_features);
        for (x, to) in rows.zip(self.to.chunks_exact_mut(self.words)) {
            simd.round_to_parts(x, to);
        }
    }
}
