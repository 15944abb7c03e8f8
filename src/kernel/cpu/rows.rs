//! Sums of rows and sums along rows: the two halves of attention and of a low-rank product.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::simd::{Simd, Stored};

/// Vectors of columns whose sums are kept in registers together.
const VECTORS: usize = 4;

/// `y[r] += Σ_j factors[r][j] · row j` for each of `R` rows, the terms one after the other.
///
/// The rows, each as long as a `y`, lie in `parts` one after the other; there are as many as factors.
#[inline(always)]
pub(super) fn add_rows<S: Simd, const R: usize>(
    simd: S,
    parts: &[&[impl Stored]],
    factors: [&[f32]; R],
    y: &mut [&mut [f32]; R],
) {
    let columns = y[0].len();
    let mut column = 0;
    while column + VECTORS * S::LANES <= columns {
        add_vectors::<S, R, VECTORS>(simd, (parts, column), factors, y);
        column += VECTORS * S::LANES;
    }
    while column + S::LANES <= columns {
        add_vectors::<S, R, 1>(simd, (parts, column), factors, y);
        column += S::LANES;
    }
    for column in column..columns {
        for (factors, y) in factors.iter().zip(y.iter_mut()) {
            let rows = parts.iter().flat_map(|part| part.chunks_exact(columns));
            for (row, factor) in rows.zip(*factors) {
                y[column] += factor * row[column].wide();
            }
        }
    }
}

#[inline(always)]
fn add_vectors<S: Simd, const R: usize, const N: usize>(
    simd: S,
    (parts, column): (&[&[impl Stored]], usize),
    factors: [&[f32]; R],
    y: &mut [&mut [f32]; R],
) {
    let columns = y[0].len();
    let mut sums = [[simd.splat(0.0); N]; R];
    for (sums, y) in sums.iter_mut().zip(y.iter()) {
        for (v, sum) in sums.iter_mut().enumerate() {
            *sum = simd.load(&y[column + v * S::LANES..]);
        }
    }
    let mut j = 0;
    for part in parts {
        for row in part.chunks_exact(columns) {
            let row = &row[column..column + N * S::LANES];
            let mut vectors = [simd.splat(0.0); N];
            for (v, vector) in vectors.iter_mut().enumerate() {
                *vector = Stored::load(simd, &row[v * S::LANES..]);
            }
            for (sums, factors) in sums.iter_mut().zip(factors) {
                let factor = simd.splat(factors[j]);
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    *sum = simd.mul_add(vector, factor, *sum);
                }
            }
            j += 1;
        }
    }
    for (sums, y) in sums.into_iter().zip(y.iter_mut()) {
        for (v, sum) in sums.into_iter().enumerate() {
            simd.store(sum, &mut y[column + v * S::LANES..]);
        }
    }
}

/// `x[r] · a[c]` for `R` rows and `C` others, all of the same length.
///
/// Lane by lane first, then the lanes, then what is left of the row: the same order for any `R` and `C`.
#[inline(always)]
pub(super) fn dots<S: Simd, const R: usize, const C: usize>(
    simd: S,
    x: [&[f32]; R],
    a: [&[impl Stored]; C],
) -> [[f32; C]; R] {
    let full = x[0].len() / S::LANES * S::LANES;
    let mut sums = [[simd.splat(0.0); C]; R];
    for at in (0..full).step_by(S::LANES) {
        let mut columns = [simd.splat(0.0); C];
        for (column, a) in columns.iter_mut().zip(a) {
            *column = Stored::load(simd, &a[at..]);
        }
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = simd.load(&x[at..]);
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = simd.mul_add(column, x, *sum);
            }
        }
    }
    let mut dots = [[0.0; C]; R];
    for ((dots, sums), x) in dots.iter_mut().zip(sums).zip(x) {
        for ((dot, sum), a) in dots.iter_mut().zip(sums).zip(a) {
            *dot = simd.sum(sum);
            for (a, x) in a[full..].iter().zip(&x[full..]) {
                *dot += a.wide() * x;
            }
        }
    }
    dots
}
