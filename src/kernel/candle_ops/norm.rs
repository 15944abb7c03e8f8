//! Norms, each row by the weight and the bias that its adapters give it.
use crate::kernel::{NormWeights, Result};
use candle_core::Tensor;
use candle_nn::ops::rms_norm;
use std::ops::Range;

/// Norms of whole rows: `[T, cols]`, `T` not 0.
pub(super) fn rows(x: &Tensor, weights: &NormWeights<'_>, eps: f32) -> Result<Tensor> {
    by_runs(x, weights, |rows, weight| Ok(rms_norm(rows, weight, eps)?))
}

/// Norms of whole rows about their means: `[T, cols]`, `T` not 0.
pub(super) fn centred_rows(
    x: &Tensor,
    weights: &NormWeights<'_>,
    biases: Option<&NormWeights<'_>>,
    eps: f32,
) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(1)?)?;
    let variance = centred.sqr()?.mean_keepdim(1)?;
    let y = centred.broadcast_div(&(variance + f64::from(eps))?.sqrt()?)?;
    let y = by_runs(&y, weights, |y, weight| Ok(y.broadcast_mul(weight)?))?;
    match biases {
        Some(biases) => by_runs(&y, biases, |y, bias| Ok(y.broadcast_add(bias)?)),
        None => Ok(y),
    }
}

/// What `f` makes of the rows that share a vector.
fn by_runs(
    x: &Tensor,
    vectors: &NormWeights<'_>,
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let part =
        |run: Range<usize>| f(&x.narrow(0, run.start, run.len())?, &weight(vectors, run.start)?);
    let parts = vectors.runs(0..x.dim(0)?).map(part).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&parts, 0)?)
}

/// Norms of each head in some columns, in place: `x` is an activation's own memory.
pub(super) fn heads(
    x: &Tensor,
    columns: &Range<usize>,
    weights: &NormWeights<'_>,
    eps: f32,
) -> Result<()> {
    for run in weights.runs(0..x.dim(0)?) {
        let rows = x.narrow(0, run.start, run.len())?;
        let part = rows.narrow(1, columns.start, columns.len())?;
        let weight = weight(weights, run.start)?;
        let heads = part.contiguous()?.reshape(((), weight.dim(0)?))?;
        let heads = rms_norm(&heads, &weight, eps)?.reshape(part.dims())?;
        rows.slice_set(&heads, 1, columns.start)?;
    }
    Ok(())
}

/// `[len]`: a row's weight.
fn weight(weights: &NormWeights<'_>, row: usize) -> Result<Tensor> {
    let base = weights.base.tensor()?.flatten_all()?;
    weights.held(row).try_fold(base.clone(), |sum, (slot, weight)| {
        Ok((sum + ((slot - &base)? * f64::from(weight))?)?)
    })
}
