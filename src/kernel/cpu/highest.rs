//! The greatest value of a row and where it is, in one pass.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::machine::Machine;
use super::simd::{Simd, Task};

/// Values whose greatest is found before it is looked for: few enough to look again, in the nearest cache.
const BLOCK: usize = 1024;
/// Vectors at a time, so that one need not wait for the other.
const VECTORS: usize = 4;

/// The column of each row's greatest value; as [`Kernels::highest`](super::super::Kernels::highest).
pub(super) fn highest(machine: &Machine, rows: &[f32], cols: usize, to: &mut [Option<u32>]) {
    machine.pool.chunks(to, 1, |row, to| {
        to.fill(machine.level.run(Highest { row: &rows[row * cols..][..cols] }));
    });
}

struct Highest<'a> {
    row: &'a [f32],
}

impl Task for Highest<'_> {
    type Output = Option<u32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Option<u32> {
        let (mut best, mut start, mut zero) = (f32::NEG_INFINITY, 0, 0.0);
        for (index, block) in self.row.chunks(BLOCK).enumerate() {
            let (greatest, products) = scan(simd, block);
            zero += products;
            if greatest > best {
                (best, start) = (greatest, index * BLOCK);
            }
        }
        // No number times 0 is not 0. Minus infinity is none either, but may stand here.
        let numbers = zero == 0.0 || self.row.iter().all(|value| *value < f32::INFINITY);
        let at = self.row[start..].iter().position(|value| *value == best)?;
        (numbers && best > f32::NEG_INFINITY).then_some((start + at) as u32)
    }
}

/// The greatest of some values, and the sum of their products with 0.
#[inline(always)]
fn scan<S: Simd>(simd: S, values: &[f32]) -> (f32, f32) {
    let mut greatest = [simd.splat(f32::NEG_INFINITY); VECTORS];
    let mut products = [simd.splat(0.0); VECTORS];
    let vectors = values.chunks_exact(VECTORS * S::LANES);
    let rest = vectors.remainder();
    for values in vectors {
        for v in 0..VECTORS {
            let vector = simd.load(&values[v * S::LANES..]);
            greatest[v] = simd.max(vector, greatest[v]);
            products[v] = simd.mul_add(vector, simd.splat(0.0), products[v]);
        }
    }
    let (mut best, mut zero) = (f32::NEG_INFINITY, 0.0);
    for (greatest, products) in greatest.into_iter().zip(products) {
        best = best.max(simd.greatest(greatest));
        zero += simd.sum(products);
    }
    for value in rest {
        best = best.max(*value);
        zero += value * 0.0;
    }
    (best, zero)
}
