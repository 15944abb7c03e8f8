//! Norms of `W + s·B·A`, which `DoRA` (Liu et al. 2024) divides its magnitudes by.
//!
//! Computed once, from the base as it is served. Every norm is summed in one order, whatever the number of threads.
use crate::{
    adapter::AdapterError,
    lora::{BaseResult, FrozenBase, Site, SiteShape},
};
use std::{array, ops::Range, thread};

/// Rows of the base that are in f32 at one time, for each thread: 4 MiB of a layer with 8192 inputs.
const CHUNK: usize = 128;
const MAX_THREADS: usize = 16;

/// A pair on the host, scaling folded into `b`.
#[derive(Clone, Debug)]
pub(super) struct Factors {
    pub(super) rank: usize,
    /// `[rank, in]`
    pub(super) a: Vec<f32>,
    /// `[rank, out]`
    pub(super) b: Vec<f32>,
}

/// `‖W + s·B·A‖` of each output: `[out]`.
///
/// # Errors
/// When the base cannot be read.
pub(super) fn row_norms(
    base: &dyn FrozenBase,
    site: Site,
    shape: SiteShape,
    pair: &Factors,
) -> Result<Vec<f32>, AdapterError> {
    let (wide, high) = (shape.in_features, shape.out_features);
    let norms = chunked(high, |rows| {
        let mut weight = base.weight_rows(site, rows.clone())?;
        let norms = weight.chunks_mut(wide).zip(rows).map(|(weight, row)| {
            add_rows(weight, |r| pair.b[r * high + row], &pair.a);
            weight.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt() as f32
        });
        Ok(norms.collect::<Vec<f32>>())
    })?;
    Ok(norms.concat())
}

/// `‖W + s·(B·A)ᵀ‖` of each column of the embedding `[vocab, hidden]`: `[hidden]`.
///
/// # Errors
/// When the base cannot be read.
pub(super) fn column_norms(
    base: &dyn FrozenBase,
    [vocab, hidden]: [usize; 2],
    pair: &Factors,
) -> Result<Vec<f32>, AdapterError> {
    let squares = chunked(vocab, |rows| {
        let mut table = base.embedding_rows(rows.clone())?;
        let mut squares = vec![0f64; hidden];
        for (values, token) in table.chunks_mut(hidden).zip(rows) {
            add_rows(values, |r| pair.a[r * vocab + token], &pair.b);
            squares.iter_mut().zip(values).for_each(|(sum, w)| *sum += f64::from(*w).powi(2));
        }
        Ok(squares)
    })?;
    let mut sums = vec![0f64; hidden];
    for chunk in squares {
        sums.iter_mut().zip(chunk).for_each(|(sum, square)| *sum += square);
    }
    Ok(sums.into_iter().map(|sum| sum.sqrt() as f32).collect())
}

/// `sum += Σ factor(r) · rows[r]`, four rows at a time: the sum is read and written once for them.
fn add_rows(sum: &mut [f32], factor: impl Fn(usize) -> f32, rows: &[f32]) {
    let wide = sum.len();
    let mut fours = rows.chunks_exact(4 * wide);
    let mut r = 0;
    for four in &mut fours {
        let [f, g, h, k] = array::from_fn(|i| factor(r + i));
        let (first, second) = four.split_at(2 * wide);
        let ((a, b), (c, d)) = (first.split_at(wide), second.split_at(wide));
        for ((((sum, a), b), c), d) in sum.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *sum += (f * a + g * b) + (h * c + k * d);
        }
        r += 4;
    }
    for row in fours.remainder().chunks_exact(wide) {
        let factor = factor(r);
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += factor * value);
        r += 1;
    }
}

/// What `work` makes of each chunk of the rows, in their order; several threads take every so-manieth chunk.
fn chunked<T: Send>(
    rows: usize,
    work: impl Fn(Range<usize>) -> BaseResult<T> + Sync,
) -> Result<Vec<T>, AdapterError> {
    let chunks = rows.div_ceil(CHUNK);
    let threads =
        thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS).min(chunks);
    let some = |first: usize| {
        let own = (first..chunks).step_by(threads);
        own.map(|chunk| Ok((chunk, work(chunk * CHUNK..rows.min((chunk + 1) * CHUNK))?))).collect()
    };
    let all: BaseResult<Vec<(usize, T)>> = thread::scope(|scope| {
        let some = &some;
        let others: Vec<_> = (1..threads).map(|first| scope.spawn(move || some(first))).collect();
        let mut all: Vec<_> = some(0)?;
        for thread in others {
            let found: BaseResult<Vec<(usize, T)>> =
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.extend(found?);
        }
        Ok(all)
    });
    let mut all = all.map_err(|error| unreadable(&error))?;
    all.sort_by_key(|(chunk, _)| *chunk);
    Ok(all.into_iter().map(|(_, made)| made).collect())
}

fn unreadable(error: &dyn std::fmt::Display) -> AdapterError {
    AdapterError::Store(std::io::Error::other(format!(
        "the base's weights cannot be read: {error}"
    )))
}

/// `m / norm`, and `b` times that.
///
/// # Errors
/// When a norm is zero, or the quotient is not finite.
pub(super) fn gain(
    magnitude: &[f32],
    norms: &[f32],
    named: impl std::fmt::Display,
) -> Result<Vec<f32>, AdapterError> {
    let gain: Vec<f32> = magnitude.iter().zip(norms).map(|(m, norm)| m / norm).collect();
    match gain.iter().position(|gain| !gain.is_finite()) {
        Some(at) => Err(AdapterError::invalid(format!(
            "tensor {named} has {} at element {at}, where the norm of base and adapter together is {}: DoRA divides \
             the one by the other, and the result is not finite",
            magnitude[at], norms[at]
        ))),
        None => Ok(gain),
    }
}
