//! What adapters change at the embedding.
use crate::kernel::{
    EmbeddingDelta, Result, RowSegment,
    segments::{held, runs},
};
use candle_core::{DType, Tensor};

/// Changes the rows of each segment, in place: `x` `[T, hidden]` is an activation's own memory.
pub(super) fn adapt(
    x: &Tensor,
    ids: &[u32],
    slots: &[Option<EmbeddingDelta>],
    segments: &[RowSegment],
) -> Result<()> {
    for run in runs(segments, 0..ids.len()) {
        if held(slots, segments, run.start).next().is_none() {
            continue;
        }
        // A copy: what is written must not lie where it is read.
        let (ids, mut rows) = (&ids[run.clone()], x.narrow(0, run.start, run.len())?.copy()?);
        if let Some(factor) = factor(&rows, ids, held(slots, segments, run.start))? {
            rows = rows.broadcast_mul(&factor)?;
        }
        for (delta, weight) in held(slots, segments, run.start) {
            rows = add(rows, ids, delta, f64::from(weight))?;
        }
        x.slice_set(&rows.contiguous()?, 0, run.start)?;
    }
    Ok(())
}

/// `1 + Σ weight · (k − 1)` of each row and column; `None` where nothing changes the base's rows.
fn factor<'a>(
    rows: &Tensor,
    ids: &[u32],
    held: impl Iterator<Item = (&'a EmbeddingDelta, f32)>,
) -> Result<Option<Tensor>> {
    let mut factor = None;
    for (delta, weight) in held.filter(|(delta, _)| delta.gain.is_some() || delta.trained.is_some())
    {
        let kept = |id: &u32| if delta.replaces(*id) { 0.0 } else { 1.0_f32 };
        let kept: Vec<f32> = ids.iter().map(kept).collect();
        let kept = Tensor::from_vec(kept, (ids.len(), 1), rows.device())?;
        let kept = match &delta.gain {
            Some(gain) => kept.broadcast_mul(&gain.unsqueeze(0)?)?,
            None => kept,
        };
        let weight = f64::from(weight);
        factor = Some(match factor {
            Some(factor) => kept.affine(weight, -weight)?.broadcast_add(&factor)?,
            None => kept.affine(weight, 1.0 - weight)?,
        });
    }
    Ok(factor)
}

/// `+ weight · a[:, id]ᵀ · b + weight · trained[id]`
fn add(mut rows: Tensor, ids: &[u32], delta: &EmbeddingDelta, weight: f64) -> Result<Tensor> {
    let device = rows.device().clone();
    let index = |indices: Vec<u32>| Tensor::new(indices, &device);
    if let Some(pair) = delta.low_rank.as_ref().filter(|pair| pair.rank() > 0) {
        let (a, b) = pair.rows()?;
        let columns = a.index_select(&index(ids.to_vec())?, 1)?.to_dtype(DType::F32)?;
        let product = columns.t()?.contiguous()?.matmul(&b.to_dtype(DType::F32)?)?;
        rows = (rows + (product * weight)?)?;
    }
    let Some(trained) = &delta.trained else { return Ok(rows) };
    let places =
        ids.iter().zip(0..).filter_map(|(id, row)| Some((row, trained.place(*id)? as u32)));
    let (at, places): (Vec<u32>, Vec<u32>) = places.unzip();
    if at.is_empty() {
        return Ok(rows);
    }
    let added = trained.weight.tensor()?.index_select(&index(places)?, 0)?.to_dtype(DType::F32)?;
    Ok(rows.contiguous()?.index_add(&index(at)?, &(added * weight)?, 0)?)
}
