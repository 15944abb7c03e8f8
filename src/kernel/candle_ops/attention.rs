//! Paged attention: a sequence's keys and values are gathered, then two products and a masked softmax.
use crate::kernel::{AttentionArgs, KvCache, KvShape, Result, args::SequenceArgs};
use candle_core::{Device, Tensor};
use candle_nn::ops::softmax_last_dim;
use std::ops::Range;

/// All sequences of a step: `[T, heads * head_dim]`.
pub(super) fn paged(
    q: &Tensor,
    cache: &KvCache,
    layer: usize,
    args: &AttentionArgs<'_>,
) -> Result<Tensor> {
    let mut outputs = Vec::with_capacity(args.context_lens.len());
    for sequence in args.sequences().filter(|sequence| !sequence.rows.is_empty()) {
        let rows = q.narrow(0, sequence.rows.start, sequence.rows.len())?;
        outputs.push(attend(&rows, cache, layer, &sequence, args)?);
    }
    Ok(Tensor::cat(&outputs, 0)?)
}

/// One sequence; the query heads that share a key/value head are rows of one product.
fn attend(
    q: &Tensor,
    cache: &KvCache,
    layer: usize,
    sequence: &SequenceArgs<'_>,
    args: &AttentionArgs<'_>,
) -> Result<Tensor> {
    let (shape, rows) = (cache.shape(), sequence.rows.len());
    let (group, dim) = (args.heads / shape.kv_heads, shape.head_dim);
    // What the first row no longer sees, no later row sees.
    let seen = sequence.visible(0, args.window).start..sequence.context;
    let (keys, values) = gather(cache, layer, sequence, seen.clone())?;
    let q = q.reshape((rows, shape.kv_heads, group, dim))?.permute((1, 2, 0, 3))?;
    let q = q.reshape((shape.kv_heads, group * rows, dim))?;
    let mut scores = (q.matmul(&keys.t()?)? * f64::from(args.scale))?;
    if rows > 1 {
        let mask = mask(sequence, args.window, seen.clone(), q.device())?;
        scores = scores.reshape((shape.kv_heads, group, rows, seen.len()))?.broadcast_add(&mask)?;
        scores = scores.reshape((shape.kv_heads, group * rows, seen.len()))?;
    }
    let y = softmax_last_dim(&scores)?.matmul(&values)?;
    let y = y.reshape((shape.kv_heads, group, rows, dim))?.permute((2, 0, 1, 3))?;
    Ok(y.reshape((rows, args.heads * dim))?)
}

/// Keys and values of the positions in `seen`: `[kv_heads, seen, head_dim]` each.
fn gather(
    cache: &KvCache,
    layer: usize,
    sequence: &SequenceArgs<'_>,
    seen: Range<usize>,
) -> Result<(Tensor, Tensor)> {
    let KvShape { block_size, kv_heads, head_dim, .. } = cache.shape();
    let rows: Vec<u32> =
        seen.map(|position| sequence.kv_row(position, block_size) as u32).collect();
    let (keys, values) = cache.device_layer(layer)?;
    let index = Tensor::from_slice(&rows, rows.len(), keys.device())?;
    let heads = |memory: &Tensor| -> Result<Tensor> {
        let read = memory.index_select(&index, 0)?.reshape((rows.len(), kv_heads, head_dim))?;
        Ok(read.transpose(0, 1)?.contiguous()?)
    };
    Ok((heads(keys)?, heads(values)?))
}

/// `[rows, seen]`: 0 where a row sees a position, minus infinity where it does not.
fn mask(
    sequence: &SequenceArgs<'_>,
    window: Option<usize>,
    seen: Range<usize>,
    device: &Device,
) -> Result<Tensor> {
    let rows = sequence.rows.len();
    let row = |i| {
        let visible = sequence.visible(i, window);
        seen.clone().map(move |at| if visible.contains(&at) { 0.0 } else { f32::NEG_INFINITY })
    };
    let mask: Vec<f32> = (0..rows).flat_map(row).collect();
    Ok(Tensor::from_vec(mask, (rows, seen.len()), device)?)
}
