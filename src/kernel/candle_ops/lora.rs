//! Low-rank deltas as two thin products a segment.
use crate::kernel::{LowRank, Result, RowSegment};
use candle_core::Tensor;

/// Adds each segment's delta to its rows of `y`, in place: `y` is an activation's own memory.
pub(super) fn add(
    y: &Tensor,
    x: &Tensor,
    slots: &[Option<LowRank>],
    segments: &[RowSegment],
) -> Result<()> {
    for segment in segments {
        let (start, len) = (segment.rows.start, segment.rows.len());
        let Some(pair) = &slots[segment.slot] else { continue };
        if len == 0 || pair.rank() == 0 {
            continue;
        }
        let delta = x.narrow(0, start, len)?.matmul(&pair.a().t()?)?.matmul(pair.b())?;
        let delta = (delta * f64::from(segment.weight))?;
        y.slice_set(&(y.narrow(0, start, len)? + delta)?, 0, start)?;
    }
    Ok(())
}
