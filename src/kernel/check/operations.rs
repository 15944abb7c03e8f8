//! Shapes, indices and block tables.
use crate::kernel::{
    Act, AttentionArgs, BaseWeight, FeedForward, KernelError, KvCache, Reach, Result, RopeKvArgs,
    RopeTable,
};
use candle_core::Tensor;
use std::{fmt::Display, ops::Range};

/// `[out, in]` of a weight to be packed.
pub(in crate::kernel) fn weight(weight: &Tensor) -> Result<(usize, usize)> {
    weight
        .dims2()
        .map_err(|_| KernelError::mismatch("pack", format!("{:?} is no matrix", weight.dims())))
}

/// A buffer's length against its shape.
pub(in crate::kernel) fn upload(values: &[f32], rows: usize, cols: usize) -> Result<()> {
    equal("upload", "values", values.len(), rows * cols)
}

/// `rows` is a whole number of rows; gives back how many.
pub(in crate::kernel) fn highest(rows: &[f32], cols: usize) -> Result<usize> {
    let count = rows.len().checked_div(cols).unwrap_or(0);
    equal("highest", "values", rows.len(), count * cols)?;
    Ok(count)
}

/// Every index below `limit`.
pub(in crate::kernel) fn indices(
    operation: &'static str,
    indices: &[u32],
    limit: usize,
) -> Result<()> {
    match indices.iter().find(|&&index| index as usize >= limit) {
        Some(index) => Err(KernelError::mismatch(operation, format!("{index} of {limit}"))),
        None => Ok(()),
    }
}

/// A product's operands: `x` is `[T, in]`, `weight` `[out, in]`, `bias` `[1, out]`.
pub(in crate::kernel) fn linear(
    [_, width]: [usize; 2],
    weight: &BaseWeight,
    bias: Option<&Act>,
) -> Result<()> {
    equal("linear", "columns of x", width, weight.in_features())?;
    bias.map_or(Ok(()), |bias| {
        equal("linear", "rows of the bias", bias.rows(), 1)?;
        equal("linear", "columns of the bias", bias.cols(), weight.out_features())
    })
}

/// As [`linear`], and `y` `[T, out]`.
pub(in crate::kernel) fn add_linear(
    y: &Act,
    x: [usize; 2],
    weight: &BaseWeight,
    bias: Option<&Act>,
) -> Result<()> {
    linear(x, weight, bias)?;
    equal("add_linear", "rows of y", y.rows(), x[0])?;
    equal("add_linear", "columns of y", y.cols(), weight.out_features())
}

/// `gate_up` `[T, 2 * inner]`; gives back `inner`.
pub(in crate::kernel) fn gated(gate_up: &Act) -> Result<usize> {
    let inner = gate_up.cols() / 2;
    equal("gated", "columns", gate_up.cols(), 2 * inner)?;
    Ok(inner)
}

/// `[T, inner]` of what `between` makes of `wide`.
pub(in crate::kernel) fn inner(wide: &Act, between: FeedForward) -> Result<[usize; 2]> {
    match between {
        FeedForward::Plain(_) => Ok(wide.shape()),
        FeedForward::Gated(_) => Ok([wide.rows(), gated(wide)?]),
    }
}

/// `x` `[T, cols]`, `table` `[n, cols]`, `rows` `[T]` below `n`.
pub(in crate::kernel) fn add_rows(x: &Act, table: &Act, rows: &[u32]) -> Result<()> {
    equal("add_rows", "columns of the table", table.cols(), x.cols())?;
    equal("add_rows", "rows", rows.len(), x.rows())?;
    indices("add_rows", rows, table.rows())
}

/// Ranges of rows of `x`, none of them empty.
pub(in crate::kernel) fn mean_rows(x: &Act, ranges: &[Range<u32>]) -> Result<()> {
    match ranges.iter().find(|range| range.is_empty() || range.end as usize > x.rows()) {
        Some(range) => {
            let detail = format!("rows {range:?} of {}", x.rows());
            Err(KernelError::mismatch("mean_rows", detail))
        }
        None => Ok(()),
    }
}

/// Rows of `qkv` as wide as the cache's heads make them, positions in the table, KV rows in the cache.
pub(in crate::kernel) fn rope_write_kv(
    qkv: &Act,
    cache: &KvCache,
    layer: usize,
    args: &RopeKvArgs<'_>,
) -> Result<()> {
    let shape = cache.shape();
    layer_exists("rope_write_kv", cache, layer)?;
    let width = args.heads * shape.head_dim + 2 * shape.row();
    equal("rope_write_kv", "columns", qkv.cols(), width)?;
    equal("rope_write_kv", "slots", args.slot_mapping.len(), qkv.rows())?;
    if let Some(table) = args.table {
        equal("rope_write_kv", "head", table.head_dim, shape.head_dim)?;
        equal("rope_write_kv", "positions", args.positions.len(), qkv.rows())?;
        indices("rope_write_kv", args.positions, positions(table)?)?;
    }
    indices("rope_write_kv", args.slot_mapping, shape.blocks * shape.block_size)
}

/// How many positions a table has.
fn positions(table: &RopeTable) -> Result<usize> {
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
    Ok(limit)
}

/// Everything [`AttentionArgs`] promises about `q` and `cache`.
pub(in crate::kernel) fn attention(
    q: &Act,
    cache: &KvCache,
    layer: usize,
    args: &AttentionArgs<'_>,
) -> Result<()> {
    let shape = cache.shape();
    layer_exists("attention", cache, layer)?;
    let queries = args.heads * shape.head_dim;
    if q.cols() < queries {
        let detail = format!("{} columns of q, expected {queries} or more", q.cols());
        return Err(KernelError::mismatch("attention", detail));
    }
    let sees_nothing = args.reach == Reach::Back(Some(0));
    if args.heads == 0 || !args.heads.is_multiple_of(shape.kv_heads) || sees_nothing {
        let (heads, kv_heads, reach) = (args.heads, shape.kv_heads, args.reach);
        let detail = format!("{heads} heads over {kv_heads}, {reach:?}");
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
        if matches!(args.reach, Reach::Around(_)) && sequence.rows.len() < sequence.context {
            let (rows, context) = (sequence.rows.len(), sequence.context);
            let detail =
                format!("{rows} rows of {context} tokens, and a token sees those after it");
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

pub(super) fn equal(
    operation: &'static str,
    what: impl Display,
    got: usize,
    want: usize,
) -> Result<()> {
    if got == want {
        return Ok(());
    }
    Err(KernelError::mismatch(operation, format!("{what}: {got}, expected {want}")))
}
