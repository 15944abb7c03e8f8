//! Rows put aside while a layer's output stands alone: a gain is a factor on that, not on the residual it is added to.
use super::{
    Act, LoraTarget, Result, RowSegment,
    act::ActData,
    segments::{held, runs},
};
use candle_core::Tensor;
use std::ops::Range;

/// Calls `change` with zeros in the rows of `y` that a gain is for, then adds what was there.
///
/// Rows of no gain are as `change` leaves them, to the bit.
pub(super) fn keeping_aside(
    y: &mut Act,
    targets: &[LoraTarget<'_>],
    segments: &[RowSegment],
    change: impl FnOnce(&mut Act) -> Result<()>,
) -> Result<()> {
    let rows: usize = scaled(targets, segments, y.rows()).map(|run| run.len()).sum();
    if rows == 0 {
        return change(y);
    }
    if let ActData::Device(tensor) = &y.data {
        let take = |run: Range<usize>| take_tensor(tensor, run);
        let taken = scaled(targets, segments, y.rows()).map(take).collect::<Result<Vec<_>>>()?;
        change(y)?;
        return taken.iter().try_for_each(|(run, rows)| add_tensor(y.tensor()?, run, rows));
    }
    let cols = y.cols();
    let mut aside = y.with_rows(rows);
    let mut taken = aside.values_mut()?;
    for run in scaled(targets, segments, y.rows()) {
        let from = &mut y.values_mut()?[run.start * cols..run.end * cols];
        let (to, rest) = taken.split_at_mut(from.len());
        to.copy_from_slice(from);
        from.fill(0.0);
        taken = rest;
    }
    change(y)?;
    let mut taken = aside.values()?;
    for run in scaled(targets, segments, y.rows()) {
        let to = &mut y.values_mut()?[run.start * cols..run.end * cols];
        let (from, rest) = taken.split_at(to.len());
        to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        taken = rest;
    }
    Ok(())
}

/// Runs of rows that have a gain at a target.
fn scaled(
    targets: &[LoraTarget<'_>],
    segments: &[RowSegment],
    rows: usize,
) -> impl Iterator<Item = Range<usize>> {
    let gain = |target: &LoraTarget<'_>, slot: usize| matches!(target.slots.get(slot), Some(Some(delta)) if delta.gain.is_some());
    let used = |target| segments.iter().any(|segment| gain(target, segment.slot));
    // Most batches have none anywhere: nothing is cut into runs for them.
    let rows = if targets.iter().any(used) { rows } else { 0 };
    runs(segments, 0..rows).filter(move |run| {
        let mut held = targets.iter().flat_map(|target| held(target.slots, segments, run.start));
        held.any(|(delta, _)| delta.gain.is_some())
    })
}

/// A copy of some rows, which become zeros.
fn take_tensor(y: &Tensor, run: Range<usize>) -> Result<(Range<usize>, Tensor)> {
    let rows = y.narrow(0, run.start, run.len())?.copy()?;
    y.slice_set(&rows.zeros_like()?, 0, run.start)?;
    Ok((run, rows))
}

fn add_tensor(y: &Tensor, run: &Range<usize>, rows: &Tensor) -> Result<()> {
    let sum = (y.narrow(0, run.start, run.len())? + rows)?;
    Ok(y.slice_set(&sum, 0, run.start)?)
}
