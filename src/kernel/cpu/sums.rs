//! Sums of whole rows: a table's rows onto others, and means.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::elementwise::{Step, combine};
use super::machine::{Machine, rows_per_item};
use super::simd::{Simd, Task};
use std::ops::Range;

/// `x[t] += table[rows[t]]`; both have rows of `cols`.
pub(super) fn add_rows(
    machine: &Machine,
    (x, cols): (&mut [f32], usize),
    table: &[f32],
    rows: &[u32],
) {
    let chunk = rows_per_item(cols);
    machine.pool.chunks(x, chunk * cols, |index, x| {
        machine.level.run(AddRows { x, cols, table, rows: &rows[index * chunk..] });
    });
}

/// `y[i]`: the mean of `x`'s rows in range `i`; both have rows of `cols`.
pub(super) fn mean_rows(
    machine: &Machine,
    (x, cols): (&[f32], usize),
    ranges: &[Range<u32>],
    y: &mut [f32],
) {
    machine.pool.chunks(y, cols, |index, y| {
        let Range { start, end } = ranges[index];
        machine.level.run(Mean { rows: &x[start as usize * cols..end as usize * cols], y });
    });
}

struct AddRows<'a> {
    /// `[T, cols]`
    x: &'a mut [f32],
    cols: usize,
    table: &'a [f32],
    /// `[T]` or longer.
    rows: &'a [u32],
}

impl Task for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (x, row) in self.x.chunks_exact_mut(self.cols).zip(self.rows) {
            combine(simd, &Plus, x, &self.table[*row as usize * self.cols..][..self.cols]);
        }
    }
}

struct Mean<'a> {
    /// `[n, cols]`
    rows: &'a [f32],
    /// `[cols]`
    y: &'a mut [f32],
}

impl Task for Mean<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (cols, count) = (self.y.len(), self.rows.len() / self.y.len());
        self.y.fill(0.0);
        for row in self.rows.chunks_exact(cols) {
            combine(simd, &Plus, self.y, row);
        }
        for y in self.y {
            *y /= count as f32;
        }
    }
}

pub(super) struct Plus;

impl Step for Plus {
    #[inline(always)]
    fn step<S: Simd>(&self, simd: S, y: S::V, x: S::V) -> S::V {
        simd.add(y, x)
    }
}
