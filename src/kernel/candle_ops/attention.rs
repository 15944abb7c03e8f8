//! Paged attention: keys and values are gathered, then two products and a masked softmax for several sequences at once.
use crate::kernel::{AttentionArgs, KvCache, KvShape, Reach, Result, args::SequenceArgs};
use candle_core::{DType, Device, Tensor};
use candle_nn::ops::softmax_last_dim;
use std::ops::Range;

/// Sequences that are computed together: all have the same number of rows.
struct Group<'a> {
    sequences: Vec<SequenceArgs<'a>>,
    rows: usize,
    /// Positions gathered for each sequence: what the longest of them sees.
    seen: usize,
    reach: Reach,
}

/// All sequences of a step: `[T, heads * head_dim]`.
pub(super) fn paged(
    q: &Tensor,
    cache: &KvCache,
    layer: usize,
    args: &AttentionArgs<'_>,
) -> Result<Tensor> {
    let memory = cache.device_layer(layer)?;
    let (mut outputs, mut order) = (Vec::new(), Vec::new());
    for group in groups(args) {
        let rows = group.query_rows();
        let index = Tensor::from_slice(&rows, rows.len(), q.device())?;
        let attention = Attention { shape: cache.shape(), heads: args.heads, scale: args.scale };
        outputs.push(attention.attend(&q.index_select(&index, 0)?, memory, &group)?);
        order.extend(rows);
    }
    let y = Tensor::cat(&outputs, 0)?;
    if order.is_sorted() {
        return Ok(y);
    }
    let mut place = vec![0_u32; order.len()];
    (0_u32..).zip(&order).for_each(|(at, row)| place[*row as usize] = at);
    Ok(y.index_select(&Tensor::from_vec(place, order.len(), q.device())?, 0)?)
}

/// The longest of a group may see this many times what its shortest sees: padding at most doubles the work.
const SPREAD: usize = 2;
/// Scores of a head that a group may have: beyond this many, a device is busy with less.
const MOST: usize = 1 << 20;

/// Sequences of one number of rows that see about as much, together.
fn groups<'a>(args: &'a AttentionArgs<'_>) -> Vec<Group<'a>> {
    let mut sequences: Vec<_> = args.sequences().filter(|s| !s.rows.is_empty()).collect();
    sequences.sort_by_key(|sequence| (sequence.rows.len(), sequence.seen(args.reach).len()));
    let mut groups: Vec<Group<'_>> = Vec::new();
    for sequence in sequences {
        let (rows, seen) = (sequence.rows.len(), sequence.seen(args.reach).len());
        match groups.last_mut() {
            Some(group) if group.takes(rows, seen) => {
                group.seen = seen;
                group.sequences.push(sequence);
            }
            _ => {
                let sequences = vec![sequence];
                groups.push(Group { sequences, rows, seen, reach: args.reach });
            }
        }
    }
    groups
}

/// What every group of a step shares.
struct Attention {
    shape: KvShape,
    heads: usize,
    scale: f32,
}

impl Attention {
    /// One group, `N` sequences of `R` rows that see `S` positions: `[N * R, heads * head_dim]` to the same.
    /// The query heads that share a key/value head are rows of one product.
    fn attend(
        &self,
        q: &Tensor,
        (keys, values): (&Tensor, &Tensor),
        group: &Group<'_>,
    ) -> Result<Tensor> {
        let KvShape { kv_heads, head_dim, block_size, .. } = self.shape;
        let (n, rows, seen) = (group.sequences.len(), group.rows, group.seen);
        let shared = self.heads / kv_heads;
        let index = group.kv_rows(block_size);
        let index = Tensor::from_vec(index, n * seen, q.device())?;
        let gather = |memory: &Tensor| -> Result<Tensor> {
            let read = memory.index_select(&index, 0)?.to_dtype(DType::F32)?;
            let read = read.reshape((n, seen, kv_heads, head_dim))?;
            Ok(read.transpose(1, 2)?.contiguous()?)
        };
        let q = q.reshape((n, rows, kv_heads, shared, head_dim))?.permute((0, 2, 3, 1, 4))?;
        let q = q.reshape((n, kv_heads, shared * rows, head_dim))?;
        let mut scores = (q.matmul(&gather(keys)?.t()?)? * f64::from(self.scale))?;
        if let Some(mask) = group.mask(q.device())? {
            scores = scores.reshape((n, self.heads, rows, seen))?.broadcast_add(&mask)?;
            scores = scores.reshape((n, kv_heads, shared * rows, seen))?;
        }
        let y = softmax_last_dim(&scores)?.matmul(&gather(values)?)?;
        let y = y.reshape((n, kv_heads, shared, rows, head_dim))?.permute((0, 3, 1, 2, 4))?;
        Ok(y.reshape((n * rows, self.heads * head_dim))?)
    }
}

impl Group<'_> {
    /// Whether a sequence that sees at least as much as each of its own may join.
    fn takes(&self, rows: usize, seen: usize) -> bool {
        let scores = (self.sequences.len() + 1) * rows * seen;
        rows == self.rows && seen <= SPREAD * self.shortest() && (rows == 1 || scores <= MOST)
    }

    fn shortest(&self) -> usize {
        self.sequences.first().map_or(0, |sequence| sequence.seen(self.reach).len())
    }

    /// Rows of `q`, sequence by sequence.
    fn query_rows(&self) -> Vec<u32> {
        let rows = self.sequences.iter().flat_map(|sequence| sequence.rows.clone());
        rows.map(|row| row as u32).collect()
    }

    /// KV rows, `[N, S]`; a shorter sequence is filled up with its first one, which the mask hides.
    fn kv_rows(&self, block_size: usize) -> Vec<u32> {
        let mut rows = Vec::with_capacity(self.sequences.len() * self.seen);
        for sequence in &self.sequences {
            let positions = sequence.seen(self.reach);
            let fill = self.seen - positions.len();
            let first = sequence.kv_row(positions.start, block_size) as u32;
            rows.extend(positions.map(|at| sequence.kv_row(at, block_size) as u32));
            rows.extend(std::iter::repeat_n(first, fill));
        }
        rows
    }

    /// `[N, 1, R, S]`: 0 where a row sees a position, minus infinity where it does not; `None` where all is seen.
    fn mask(&self, device: &Device) -> Result<Option<Tensor>> {
        let sees_all = self.rows == 1 || self.reach == Reach::Around(None);
        if sees_all && self.shortest() == self.seen {
            return Ok(None);
        }
        let mut mask = Vec::with_capacity(self.sequences.len() * self.rows * self.seen);
        for sequence in &self.sequences {
            let start = sequence.seen(self.reach).start;
            for row in 0..self.rows {
                let visible = sequence.visible(row, self.reach);
                let seen = (start..start + self.seen).map(|at| visible.contains(&at));
                mask.extend(seen.map(|seen| if seen { 0.0 } else { f32::NEG_INFINITY }));
            }
        }
        let shape = (self.sequences.len(), 1, self.rows, self.seen);
        Ok(Some(Tensor::from_vec(mask, shape, device)?))
    }
}

impl SequenceArgs<'_> {
    /// The positions that any of its rows sees: what the first row no longer sees, no later row sees.
    fn seen(&self, reach: Reach) -> Range<usize> {
        self.visible(0, reach).start..self.context
    }
}
