//! What every implementation checks before it touches memory: shapes, indices, block tables.
use super::{
    Act, AttentionArgs, BaseWeight, KernelError, KvCache, LowRank, Result, RopeTable, RowSegment,
};
use candle_core::Tensor;
use std::fmt::Display;

/// `[out, in]` of a weight to be packed.
pub(super) fn weight(weight: &Tensor) -> Result<(usize, usize)> {
    weight
        .dims2()
        .map_err(|_| KernelError::mismatch("pack", format!("{:?} is no matrix", weight.dims())))
}

/// A buffer's length against its shape.
pub(super) fn upload(values: &[f32], rows: usize, cols: usize) -> Result<()> {
    equal("upload", "values", values.len(), rows * cols)
}

/// Every index below `limit`.
pub(super) fn indices(operation: &'static str, indices: &[u32], limit: usize) -> Result<()> {
    match indices.iter().find(|&&index| index as usize >= limit) {
        Some(index) => Err(KernelError::mismatch(operation, format!("{index} of {limit}"))),
        None => Ok(()),
    }
}

/// Two activations of one shape.
pub(super) fn same_shape(operation: &'static str, left: &Act, right: &Act) -> Result<()> {
    equal(operation, "rows", right.rows(), left.rows())?;
    equal(operation, "columns", right.cols(), left.cols())
}

/// `x` `[T, in]`, `weight` `[out, in]`, `bias` `[1, out]`.
pub(super) fn linear(x: &Act, weight: &BaseWeight, bias: Option<&Act>) -> Result<()> {
    equal("linear", "columns of x", x.cols(), weight.in_features())?;
    bias.map_or(Ok(()), |bias| {
        equal("linear", "rows of the bias", bias.rows(), 1)?;
        equal("linear", "columns of the bias", bias.cols(), weight.out_features())
    })
}

/// `y` `[T, out]`, `x` `[T, in]`, every segment within them and within `slots`.
pub(super) fn lora(
    y: &Act,
    x: &Act,
    slots: &[Option<LowRank>],
    segments: &[RowSegment],
) -> Result<()> {
    equal("add_lora", "rows of x", x.rows(), y.rows())?;
    for segment in segments {
        if segment.rows.start > segment.rows.end || segment.rows.end > y.rows() {
            let detail = format!("rows {:?} of {}", segment.rows, y.rows());
            return Err(KernelError::mismatch("add_lora", detail));
        }
        let Some(slot) = slots.get(segment.slot) else {
            let detail = format!("slot {} of {}", segment.slot, slots.len());
            return Err(KernelError::mismatch("add_lora", detail));
        };
        if let Some(pair) = slot {
            equal("add_lora", "columns of x", x.cols(), pair.in_features())?;
            equal("add_lora", "columns of y", y.cols(), pair.out_features())?;
        }
    }
    Ok(())
}

/// `x` `[T, n * group]`, `weight` `[1, group]`.
pub(super) fn rms_norm(x: &Act, weight: &Act) -> Result<()> {
    equal("rms_norm", "rows of the weight", weight.rows(), 1)?;
    if weight.cols() == 0 || !x.cols().is_multiple_of(weight.cols()) {
        let detail = format!("{} columns in groups of {}", x.cols(), weight.cols());
        return Err(KernelError::mismatch("rms_norm", detail));
    }
    Ok(())
}

/// `x` `[T, heads * head_dim]`, a position a row, every position in the table.
pub(super) fn rope(x: &Act, positions: &[u32], table: &RopeTable) -> Result<()> {
    let (limit, half) = table.cos.dims2()?;
    if table.sin.dims2()? != (limit, half) || half * 2 != table.head_dim || half == 0 {
        let detail = format!(
            "cosines {:?}, sines {:?}, heads of {}",
            table.cos.dims(),
            table.sin.dims(),
            table.head_dim
        );
        return Err(KernelError::mismatch("rope", detail));
    }
    equal("rope", "positions", positions.len(), x.rows())?;
    if !x.cols().is_multiple_of(table.head_dim) {
        let detail = format!("{} columns in heads of {}", x.cols(), table.head_dim);
        return Err(KernelError::mismatch("rope", detail));
    }
    indices("rope", positions, limit)
}

/// `k` and `v` `[T, kv_heads * head_dim]`, a KV row each, all within the cache.
pub(super) fn write_kv(
    cache: &KvCache,
    layer: usize,
    k: &Act,
    v: &Act,
    slot_mapping: &[u32],
) -> Result<()> {
    let shape = cache.shape();
    layer_exists("write_kv", cache, layer)?;
    same_shape("write_kv", k, v)?;
    equal("write_kv", "columns", k.cols(), shape.row())?;
    equal("write_kv", "slots", slot_mapping.len(), k.rows())?;
    indices("write_kv", slot_mapping, shape.blocks * shape.block_size)
}

/// Everything [`AttentionArgs`] promises about `q` and `cache`.
pub(super) fn attention(
    q: &Act,
    cache: &KvCache,
    layer: usize,
    args: &AttentionArgs<'_>,
) -> Result<()> {
    let shape = cache.shape();
    layer_exists("attention", cache, layer)?;
    equal("attention", "columns of q", q.cols(), args.heads * shape.head_dim)?;
    if args.heads == 0 || !args.heads.is_multiple_of(shape.kv_heads) || args.window == Some(0) {
        let (heads, kv_heads, window) = (args.heads, shape.kv_heads, args.window);
        let detail = format!("{heads} heads over {kv_heads}, window {window:?}");
        return Err(KernelError::mismatch("attention", detail));
    }
    let sequences = args.context_lens.len();
    starts("query starts", args.query_starts, sequences, q.rows())?;
    starts("block starts", args.block_starts, sequences, args.block_tables.len())?;
    indices("attention", args.block_tables, shape.blocks)?;
    for sequence in args.sequences() {
        let room = sequence.blocks.len() * shape.block_size;
        if sequence.context > room || sequence.rows.len() > sequence.context {
            let (rows, context) = (sequence.rows.len(), sequence.context);
            let detail = format!("{rows} rows, {context} tokens in blocks for {room}");
            return Err(KernelError::mismatch("attention", detail));
        }
    }
    Ok(())
}

/// `[n + 1]`, ascending from 0 to `end`.
fn starts(what: &str, starts: &[u32], n: usize, end: usize) -> Result<()> {
    let ends_fit = starts.first() == Some(&0) && starts.last() == Some(&(end as u32));
    if starts.len() != n + 1 || !ends_fit || !starts.is_sorted() {
        let detail = format!("{what} {starts:?} for {n} sequences and {end} entries");
        return Err(KernelError::mismatch("attention", detail));
    }
    Ok(())
}

fn layer_exists(operation: &'static str, cache: &KvCache, layer: usize) -> Result<()> {
    if layer >= cache.layers.len() {
        let detail = format!("layer {layer} of {}", cache.layers.len());
        return Err(KernelError::mismatch(operation, detail));
    }
    Ok(())
}

fn equal(operation: &'static str, what: impl Display, got: usize, want: usize) -> Result<()> {
    if got == want {
        return Ok(());
    }
    Err(KernelError::mismatch(operation, format!("{what}: {got}, expected {want}")))
}
