//! Low-rank deltas as two thin products a segment.
use crate::kernel::{LoraTarget, Result, RowSegment};
use candle_core::{DType, Tensor};

/// Adds each segment's delta to its rows of a target's columns, in place: `y` is an activation's own memory.
pub(super) fn add(
    y: &Tensor,
    x: &Tensor,
    target: &LoraTarget<'_>,
    segments: &[RowSegment],
) -> Result<()> {
    let (column, columns) = (target.columns.start, target.columns.len());
    for segment in segments {
        let (start, len) = (segment.rows.start, segment.rows.len());
        let Some(pair) = target.low_rank(segment.slot) else { continue };
        if len == 0 || pair.rank() == 0 {
            continue;
        }
        // Exact, and nothing to do for f32.
        let [a, b] = [pair.a().to_dtype(DType::F32)?, pair.b().to_dtype(DType::F32)?];
        let delta = x.narrow(0, start, len)?.matmul(&a.t()?)?.matmul(&b)?;
        let delta = (delta * f64::from(segment.weight))?;
        let rows = y.narrow(0, start, len)?;
        rows.slice_set(&(rows.narrow(1, column, columns)? + delta)?, 1, column)?;
    }
    Ok(())
}
