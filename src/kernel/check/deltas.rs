//! What adapters hold fits what they change.
use super::operations::{equal, indices};
use crate::kernel::{
    Act, BaseWeight, EmbeddingDelta, KernelError, LinearDelta, LoraTarget, NormWeights, Result,
    RowSegment, TrainedRows,
};
use candle_core::{DType, Tensor};
use std::ops::Range;

/// What is among the deltas of a batch: what is not there costs nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::kernel) struct Parts {
    /// Gains or shifts.
    pub(in crate::kernel) vectors: bool,
    /// Trained rows.
    pub(in crate::kernel) trained: bool,
}

/// `y` `[T, out]`, `x` `[T, in]`, every segment within them, targets in ascending columns of `y`.
pub(in crate::kernel) fn lora(
    y: &Act,
    [rows, width]: [usize; 2],
    targets: &[LoraTarget<'_>],
    segments: &[RowSegment],
) -> Result<Parts> {
    const NAME: &str = "add_lora";
    equal(NAME, "rows of x", rows, y.rows())?;
    segments.iter().try_for_each(|segment| within(NAME, segment, y.rows()))?;
    let (mut free, mut parts) = (0, Parts::default());
    for target in targets {
        let Range { start, end } = target.columns;
        if start < free || end < start || end > y.cols() {
            let detail = format!("columns {start}..{end} of {free}..{}", y.cols());
            return Err(KernelError::mismatch(NAME, detail));
        }
        free = end;
        for segment in segments {
            if let Some(delta) = slot(NAME, target.slots, segment.slot)? {
                linear_delta(delta, [target.columns.len(), width])?;
                parts.vectors |= delta.gain.is_some() || delta.shift.is_some();
                parts.trained |= delta.trained.is_some();
            }
        }
    }
    Ok(parts)
}

fn linear_delta(delta: &LinearDelta, [out, width]: [usize; 2]) -> Result<()> {
    const NAME: &str = "add_lora";
    if let Some(pair) = &delta.low_rank {
        equal(NAME, "columns of x", width, pair.in_features())?;
        equal(NAME, "columns of y", out, pair.out_features())?;
    }
    delta.gain.as_ref().map_or(Ok(()), |gain| vector(NAME, "gain", gain, out))?;
    delta.shift.as_ref().map_or(Ok(()), |shift| vector(NAME, "shift", shift, out))?;
    delta.trained.as_ref().map_or(Ok(()), |rows| trained(NAME, rows, [out, width]))
}

/// `x` `[T, hidden]` holds the rows of `ids`, and what the used slots hold fits it.
pub(in crate::kernel) fn adapt_embedding(
    x: &Act,
    ids: &[u32],
    slots: &[Option<EmbeddingDelta>],
    segments: &[RowSegment],
) -> Result<()> {
    const NAME: &str = "adapt_embedding";
    equal(NAME, "ids", ids.len(), x.rows())?;
    for segment in segments {
        within(NAME, segment, x.rows())?;
        let Some(delta) = slot(NAME, slots, segment.slot)? else { continue };
        let ids = &ids[segment.rows.clone()];
        if let Some(pair) = &delta.low_rank {
            equal(NAME, "columns of x", x.cols(), pair.out_features())?;
            indices(NAME, ids, pair.in_features())?;
        }
        delta.gain.as_ref().map_or(Ok(()), |gain| vector(NAME, "gain", gain, x.cols()))?;
        if let Some(rows) = &delta.trained {
            // A whole table holds every token asked for; single rows are searched for it.
            let vocab = rows.ids.as_ref().map_or(rows.weight.out_features(), |_| usize::MAX);
            indices(NAME, ids, vocab)?;
            trained(NAME, rows, [vocab, x.cols()])?;
        }
    }
    Ok(())
}

/// Weights as long as a row.
pub(in crate::kernel) fn rms_norm(x: &Act, weights: &NormWeights<'_>) -> Result<()> {
    equal("rms_norm", "columns of the weight", weights.base.cols(), x.cols())?;
    norm("rms_norm", x.rows(), weights)
}

/// Weights and biases as long as a row.
pub(in crate::kernel) fn layer_norm(
    x: &Act,
    weights: &NormWeights<'_>,
    biases: Option<&NormWeights<'_>>,
) -> Result<()> {
    const NAME: &str = "layer_norm";
    for (what, given) in [("weight", Some(weights)), ("bias", biases)] {
        let Some(given) = given else { continue };
        equal(NAME, format_args!("columns of the {what}"), given.base.cols(), x.cols())?;
        norm(NAME, x.rows(), given)?;
    }
    Ok(())
}

/// `columns` of `x` are whole heads of a weight's length.
pub(in crate::kernel) fn head_norm(
    x: &Act,
    columns: &Range<usize>,
    weights: &NormWeights<'_>,
) -> Result<()> {
    let len = weights.base.cols();
    let within = columns.start <= columns.end && columns.end <= x.cols();
    if !within || len == 0 || !columns.len().is_multiple_of(len) {
        let detail = format!("{columns:?} of {} in heads of {len}", x.cols());
        return Err(KernelError::mismatch("head_norm", detail));
    }
    norm("head_norm", x.rows(), weights)
}

fn norm(operation: &'static str, rows: usize, weights: &NormWeights<'_>) -> Result<()> {
    equal(operation, "rows of the weight", weights.base.rows(), 1)?;
    if weights.slots.is_empty() {
        return Ok(());
    }
    for segment in weights.segments {
        within(operation, segment, rows)?;
        if let Some(weight) = slot(operation, weights.slots, segment.slot)? {
            vector(operation, "weight", weight, weights.base.cols())?;
        }
    }
    Ok(())
}

fn within(operation: &'static str, segment: &RowSegment, rows: usize) -> Result<()> {
    if segment.rows.start <= segment.rows.end && segment.rows.end <= rows {
        return Ok(());
    }
    Err(KernelError::mismatch(operation, format!("rows {:?} of {rows}", segment.rows)))
}

/// What a slot that exists holds.
fn slot<'a, T>(
    operation: &'static str,
    slots: &'a [Option<T>],
    index: usize,
) -> Result<Option<&'a T>> {
    let no_such = || KernelError::mismatch(operation, format!("slot {index} of {}", slots.len()));
    slots.get(index).ok_or_else(no_such).map(Option::as_ref)
}

/// `[len]` f32
fn vector(operation: &'static str, what: &str, vector: &Tensor, len: usize) -> Result<()> {
    if vector.dims() == [len] && vector.dtype() == DType::F32 {
        return Ok(());
    }
    let (dims, dtype) = (vector.dims(), vector.dtype());
    let detail = format!("{what}: {dtype:?} {dims:?}, expected f32 [{len}]");
    Err(KernelError::mismatch(operation, detail))
}

/// Rows for a weight `[out, in]`: as many as it has, or as their ascending ids.
fn trained(operation: &'static str, rows: &TrainedRows, [out, width]: [usize; 2]) -> Result<()> {
    let weight: &BaseWeight = &rows.weight;
    equal(operation, "columns of the trained rows", weight.in_features(), width)?;
    let Some(ids) = &rows.ids else {
        return equal(operation, "trained rows", weight.out_features(), out);
    };
    equal(operation, "trained rows", weight.out_features(), ids.len())?;
    if !ids.is_sorted_by(|earlier, later| earlier < later) {
        return Err(KernelError::mismatch(operation, "ids of trained rows do not ascend"));
    }
    // Ascending: the last is the greatest.
    indices(operation, &ids[ids.len().saturating_sub(1)..], out)
}
