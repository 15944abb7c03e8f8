//! What adapters change at a linear layer: a factor on the base's output, thin products, rows of their own.
use crate::kernel::{
    LoraTarget, LowRank, Result, RowSegment, TrainedRows,
    segments::{held, runs},
};
use candle_core::{DType, Tensor};
use std::ops::Range;

/// Changes the rows of each segment in a target's columns, in place: `y` is an activation's own memory.
pub(super) fn add(
    y: &Tensor,
    x: &Tensor,
    target: &LoraTarget<'_>,
    segments: &[RowSegment],
) -> Result<()> {
    scale(y, target, segments)?;
    for segment in segments.iter().filter(|segment| !segment.rows.is_empty()) {
        let Some(delta) = &target.slots[segment.slot] else { continue };
        let (x, weight) = (x.narrow(0, segment.rows.start, segment.rows.len())?, segment.weight);
        let add = |f: &dyn Fn(&Tensor) -> Result<Tensor>| change(y, &segment.rows, target, f);
        if let Some(pair) = delta.low_rank.as_ref().filter(|pair| pair.rank() > 0) {
            let product = low_rank(&x, pair)?;
            add(&|y| Ok((y + (&product * f64::from(weight))?)?))?;
        }
        if let Some(shift) = &delta.shift {
            add(&|y| Ok(y.broadcast_add(&(shift * f64::from(weight))?)?))?;
        }
        if let Some(rows) = delta.trained.as_ref().filter(|rows| rows.weight.out_features() > 0) {
            let product = (trained(&x, rows)? * f64::from(weight))?;
            add(&|y| scatter(y, &product, rows))?;
        }
    }
    Ok(())
}

/// `y ← (1 + Σ weight · (gain − 1)) ∘ y`
fn scale(y: &Tensor, target: &LoraTarget<'_>, segments: &[RowSegment]) -> Result<()> {
    for run in runs(segments, 0..y.dim(0)?) {
        let held = held(target.slots, segments, run.start);
        let gains = held.filter_map(|(delta, weight)| Some((delta.gain.as_ref()?, weight)));
        let mut factor = None;
        for (gain, weight) in gains {
            let weight = f64::from(weight);
            factor = Some(match factor {
                Some(factor) => (factor + gain.affine(weight, -weight)?)?,
                None => gain.affine(weight, 1.0 - weight)?,
            });
        }
        if let Some(factor) = factor {
            change(y, &run, target, |y| Ok(y.broadcast_mul(&factor)?))?;
        }
    }
    Ok(())
}

/// Puts what `f` makes of some rows of a target's columns in their place.
fn change(
    y: &Tensor,
    rows: &Range<usize>,
    target: &LoraTarget<'_>,
    f: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    let rows = y.narrow(0, rows.start, rows.len())?;
    let part = rows.narrow(1, target.columns.start, target.columns.len())?.contiguous()?;
    Ok(rows.slice_set(&f(&part)?, 1, target.columns.start)?)
}

/// `(x · aᵀ) · b`
fn low_rank(x: &Tensor, pair: &LowRank) -> Result<Tensor> {
    // Exact, and nothing to do for f32.
    let (a, b) = pair.rows()?;
    let [a, b] = [a.to_dtype(DType::F32)?, b.to_dtype(DType::F32)?];
    Ok(x.matmul(&a.t()?)?.matmul(&b)?)
}

/// `x · trainedᵀ`
fn trained(x: &Tensor, rows: &TrainedRows) -> Result<Tensor> {
    let weight = rows.weight.tensor()?;
    Ok(x.to_dtype(weight.dtype())?.matmul(&weight.t()?)?.to_dtype(DType::F32)?)
}

/// `y` with the product added at the columns it is for.
fn scatter(y: &Tensor, product: &Tensor, rows: &TrainedRows) -> Result<Tensor> {
    match &rows.ids {
        None => Ok((y + product)?),
        Some(ids) => {
            let ids = Tensor::from_slice(ids, ids.len(), y.device())?;
            Ok(y.index_add(&ids, product, 1)?)
        }
    }
}
