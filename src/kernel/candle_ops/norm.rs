//! Norms, each row by the weight that its adapters give it.
use crate::kernel::{NormWeights, Result};
use candle_core::Tensor;
use candle_nn::ops::rms_norm;
use std::ops::Range;

/// Norms of whole rows: `[T, cols]`, `T` not 0.
pub(super) fn rows(x: &Tensor, weights: &NormWeights<'_>, eps: f32) -> Result<Tensor> {
    let norm = |run: Range<usize>| {
        let rows = x.narrow(0, run.start, run.len())?;
        Ok(rms_norm(&rows, &weight(weights, run.start)?, eps)?)
    };
    let parts = weights.runs(0..x.dim(0)?).map(norm).collect::<Result<Vec<_>>>()?;
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
