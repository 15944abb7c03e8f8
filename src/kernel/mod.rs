//! What the device does: a step's operations, once per device.
//!
//! Knows numbers and shapes, the instruction sets and the devices. Knows no names, no requests, no models.
mod act;
mod args;
mod aside;
mod candle_ops;
mod check;
mod cpu;
mod deltas;
mod device;
mod error;
mod kv;
#[cfg(test)]
mod oracle_tests;
mod reference;
mod rounding;
mod segments;
mod weight;

pub use act::Act;
pub use args::{
    Activation, AttentionArgs, FeedForward, LowRank, Reach, RopeKvArgs, RopeTable, RowSegment,
};
pub use candle_ops::CandleOps;
pub use cpu::{CpuKernels, Isa, Operands, Peaks, ProductPeak};
pub use deltas::{EmbeddingDelta, LinearDelta, LoraTarget, NormWeights, TrainedRows};
pub use device::{DeviceChoice, KernelConfig, open};
pub use error::{KernelError, Result};
pub use kv::{KvCache, KvChoice, KvPrecision, KvShape};
pub use reference::Reference;
pub use weight::{BaseWeight, Precision};

use candle_core::{DType, Tensor};
use std::{borrow::Cow, ops::Range, slice::from_ref};

/// One device's implementation of everything a forward pass needs.
///
/// Every operation adds up each row in an order that depends on that row alone, so a row's result is
/// the same bits whoever shares the batch.
pub trait Kernels: Send + Sync {
    /// The device, its instruction set and its threads, for the log.
    fn describe(&self) -> String;

    /// What kind of device: `cpu`, `cuda` or `metal`.
    fn device(&self) -> &'static str {
        "cpu"
    }

    /// Whether `load_low_ranks`, `load_rows` and `load_vector` may run on another thread while a step runs on its own.
    fn loads_on_any_thread(&self) -> bool {
        false
    }

    /// The precision [`Precision::Auto`] stands for on this device.
    fn auto_precision(&self) -> Precision;

    /// Takes weights `[out, in]` (host tensors of any float dtype) into the device's own layout, as one.
    ///
    /// They share `in` and are stacked along `out`, so that one pass over an input makes all their outputs.
    ///
    /// # Errors
    /// When there is none, one is not a matrix or of another `in`, the precision does not exist here, or
    /// the device fails.
    fn pack(&self, parts: &[Tensor], precision: Precision) -> Result<BaseWeight>;

    /// Takes an embedding `[vocab, hidden]` whose rows are looked up, and which is in no product.
    ///
    /// # Errors
    /// As [`Kernels::pack`].
    fn pack_table(&self, table: &Tensor, precision: Precision) -> Result<BaseWeight> {
        self.pack(from_ref(table), precision)
    }

    /// Copies `[rows, cols]` f32 values to the device.
    ///
    /// # Errors
    /// When `values` is not `rows * cols` long, or the device fails.
    fn upload(&self, values: &[f32], rows: usize, cols: usize) -> Result<Act>;

    /// The values of `x`, row-major; borrowed where they lie in host memory anyway.
    ///
    /// # Errors
    /// When the device fails.
    fn read<'a>(&self, x: &'a Act) -> Result<Cow<'a, [f32]>>;

    /// Brings a linear layer's low-rank pair to the device, for a base that is stored in `precision`.
    ///
    /// At f32 it stays as it is, and on the CPU shares the host's memory. Otherwise it is rounded to bfloat16: a
    /// copy of half the size, read at every step in half the time. Products with it may round what the base's round;
    /// a row's are the same bits in any company all the same.
    ///
    /// # Errors
    /// When kernels have loaded the pair before, or the device fails.
    fn load_low_rank(&self, pair: &LowRank, precision: Precision) -> Result<LowRank>;

    /// All pairs of one adapter at linear layers, which come and go together.
    ///
    /// # Errors
    /// As [`Kernels::load_low_rank`].
    fn load_low_ranks(&self, pairs: &[&LowRank], precision: Precision) -> Result<Vec<LowRank>> {
        pairs.iter().map(|pair| self.load_low_rank(pair, precision)).collect()
    }

    /// As [`Kernels::load_low_rank`], for a pair at the embedding, whose `a` is looked up column by column.
    ///
    /// # Errors
    /// As [`Kernels::load_low_rank`].
    fn load_embedding_pair(&self, pair: &LowRank, precision: Precision) -> Result<LowRank> {
        self.load_low_rank(pair, precision)
    }

    /// Brings rows that take the place of a base's `[n, in]` to the device, in memory of their own that goes with
    /// them.
    ///
    /// # Errors
    /// As [`Kernels::pack`].
    fn load_rows(&self, rows: &Tensor, precision: Precision) -> Result<BaseWeight> {
        self.pack(from_ref(rows), precision)
    }

    /// Brings a vector `[n]` to the device, as f32: a gain, a shift, a norm's weight.
    ///
    /// # Errors
    /// When the device fails.
    fn load_vector(&self, vector: &Tensor) -> Result<Tensor> {
        Ok(vector.to_dtype(DType::F32)?.contiguous()?)
    }

    /// Brings a rope table to the device, so that [`Kernels::rope_write_kv`] need not do it at every step.
    ///
    /// # Errors
    /// When the device fails.
    fn load_rope(&self, table: RopeTable) -> Result<RopeTable> {
        Ok(table)
    }

    /// Bytes one block of such a cache takes on this device, over all layers, keys and values.
    fn kv_block_bytes(&self, shape: KvShape) -> usize {
        shape.block_bytes()
    }

    /// Memory for keys and values, zeroed.
    ///
    /// # Errors
    /// When the device is out of memory.
    fn new_kv(&self, shape: KvShape) -> Result<KvCache>;

    /// Rows of an embedding table `[vocab, hidden]`: `[ids.len(), hidden]`.
    ///
    /// # Errors
    /// When an id is outside the table, or the device fails.
    fn embed(&self, table: &BaseWeight, ids: &[u32]) -> Result<Act>;

    /// What adapters change at the embedding: `x` `[T, hidden]` holds the rows of `ids`.
    ///
    /// `x[t] ← (1 + Σ weight · (k − 1)) ∘ x[t]` over the segments that hold row `t`, with `k` 0 where the slot
    /// replaces the token's row, else its gain; then one segment after the other
    /// `+ weight · a[:, id]ᵀ · b + weight · trained[id]`.
    ///
    /// # Errors
    /// When a shape, an id or a slot index disagrees, or the device fails.
    fn adapt_embedding(
        &self,
        x: &mut Act,
        ids: &[u32],
        slots: &[Option<EmbeddingDelta>],
        segments: &[RowSegment],
    ) -> Result<()>;

    /// `x · Wᵀ + bias`: `[T, in]` → `[T, out]`; `bias` is `[1, out]`.
    ///
    /// # Errors
    /// When a shape disagrees, or the device fails.
    fn linear(&self, x: &Act, weight: &BaseWeight, bias: Option<&Act>) -> Result<Act>;

    /// `y += x · Wᵀ + bias`: a layer whose output goes straight to the residual, `y` `[T, out]`.
    ///
    /// # Errors
    /// When a shape disagrees, or the device fails.
    fn add_linear(
        &self,
        y: &mut Act,
        x: &Act,
        weight: &BaseWeight,
        bias: Option<&Act>,
    ) -> Result<()>;

    /// What adapters change at all the layers that share the input `x` `[T, in]` and have made `y` `[T, out]`, which
    /// holds nothing but their outputs.
    ///
    /// With what slot `s` holds at a target, for each row `t` in a segment of slot `s`:
    /// `y[t, columns] ← (1 + Σ weight · (gain − 1)) ∘ y[t, columns]` over all segments that hold the row, then
    /// `+ weight · (x[t] · aᵀ) · b`, `+ weight · shift` and `+ weight · x[t] · trainedᵀ` at the columns it replaces,
    /// of every segment that holds the row. The order of the sum depends on the row's own segments alone. Rows in no
    /// segment, and rows whose slot is `None` at a target, stay as they are there. Hu et al. 2021, section 4.1.
    ///
    /// # Errors
    /// When a shape or a slot index disagrees, targets share columns, or the device fails.
    fn add_lora(
        &self,
        y: &mut Act,
        x: &Act,
        targets: &[LoraTarget<'_>],
        segments: &[RowSegment],
    ) -> Result<()>;

    /// A layer's output as its adapters have it: [`Kernels::linear`] with the base's weight and bias, then
    /// [`Kernels::add_lora`] to that.
    ///
    /// # Errors
    /// As theirs.
    fn adapted_linear(
        &self,
        x: &Act,
        (weight, bias): (&BaseWeight, Option<&Act>),
        targets: &[LoraTarget<'_>],
        segments: &[RowSegment],
    ) -> Result<Act> {
        let mut y = self.linear(x, weight, bias)?;
        self.add_lora(&mut y, x, targets, segments)?;
        Ok(y)
    }

    /// Adds a layer's output as its adapters have it to `y`, `[T, out]`: [`Kernels::add_linear`] with the base's weight
    /// and bias, then [`Kernels::add_lora`] of that output, whose gains leave what `y` had before as it was.
    ///
    /// # Errors
    /// As theirs.
    fn add_adapted(
        &self,
        y: &mut Act,
        x: &Act,
        (weight, bias): (&BaseWeight, Option<&Act>),
        targets: &[LoraTarget<'_>],
        segments: &[RowSegment],
    ) -> Result<()> {
        aside::keeping_aside(y, targets, segments, |y| {
            self.add_linear(y, x, weight, bias)?;
            self.add_lora(y, x, targets, segments)
        })
    }

    /// `x / sqrt(mean(x²) + eps) · weight` of each row; a weight is as long as a row.
    ///
    /// # Errors
    /// When a shape or a slot index disagrees, or the device fails.
    fn rms_norm(&self, x: &Act, weights: NormWeights<'_>, eps: f32) -> Result<Act>;

    /// `(x − mean(x)) / sqrt(var(x) + eps) · weight + bias` of each row, the variance without Bessel's correction
    /// (Ba et al. 2016); weight and bias are as long as a row.
    ///
    /// # Errors
    /// When a shape or a slot index disagrees, or the device fails.
    fn layer_norm(
        &self,
        x: &Act,
        weights: NormWeights<'_>,
        biases: Option<NormWeights<'_>>,
        eps: f32,
    ) -> Result<Act>;

    /// [`Kernels::rms_norm`] of each head in some columns of `x`, in place; a head is as long as a weight.
    ///
    /// # Errors
    /// When the columns are no heads of `x`, a shape or a slot index disagrees, or the device fails.
    fn head_norm(
        &self,
        x: &mut Act,
        columns: Range<usize>,
        weights: NormWeights<'_>,
        eps: f32,
    ) -> Result<()>;

    /// Rotates the query and key heads of `qkv` in place and writes keys and values to `layer`.
    ///
    /// A row of `qkv` is `[heads | kv_heads | kv_heads] * head_dim`: queries, keys, values. Where there is a table, each
    /// query and key head is rotated to its row's position; the pairs are `(i, i + head_dim / 2)`, as in
    /// `transformers`' `rotate_half`. Row `t` goes to KV row `slot_mapping[t]`.
    ///
    /// # Errors
    /// When a shape disagrees, a position is outside the table or a KV row outside the cache, or the
    /// device fails.
    fn rope_write_kv(
        &self,
        qkv: &mut Act,
        cache: &mut KvCache,
        layer: usize,
        args: &RopeKvArgs<'_>,
    ) -> Result<()>;

    /// `activation(gate) · up` of rows `[gate | up]`: `[T, 2 * inner]` → `[T, inner]`.
    ///
    /// # Errors
    /// When the columns are odd in number, or the device fails.
    fn gated(&self, gate_up: &Act, activation: Activation) -> Result<Act>;

    /// `activation(x)`, in place.
    ///
    /// # Errors
    /// When the device fails.
    fn activate(&self, x: &mut Act, activation: Activation) -> Result<()>;

    /// [`Kernels::gated`] or [`Kernels::activate`] of `wide`: `[T, inner]`.
    ///
    /// # Errors
    /// As theirs.
    fn inner(&self, mut wide: Act, between: FeedForward) -> Result<Act> {
        match between {
            FeedForward::Gated(activation) => self.gated(&wide, activation),
            FeedForward::Plain(activation) => {
                self.activate(&mut wide, activation)?;
                Ok(wide)
            }
        }
    }

    /// Adds a feed-forward layer's output to `y`, `[T, out]`: [`Kernels::add_adapted`] of what `between` makes of `wide`,
    /// the output of its first product.
    ///
    /// # Errors
    /// As theirs.
    fn add_feed_forward(
        &self,
        y: &mut Act,
        (wide, between): (Act, FeedForward),
        base: (&BaseWeight, Option<&Act>),
        targets: &[LoraTarget<'_>],
        segments: &[RowSegment],
    ) -> Result<()> {
        self.add_adapted(y, &self.inner(wide, between)?, base, targets, segments)
    }

    /// `x[t] += table[rows[t]]`: `x` is `[T, cols]`, `table` `[n, cols]`, `rows` `[T]`.
    ///
    /// # Errors
    /// When a shape disagrees, a row is outside the table, or the device fails.
    fn add_rows(&self, x: &mut Act, table: &Act, rows: &[u32]) -> Result<()>;

    /// The mean of the rows of each range: `[ranges.len(), cols]`. A mean's order of summation depends on its own rows
    /// alone.
    ///
    /// # Errors
    /// When a range is empty or outside `x`, or the device fails.
    fn mean_rows(&self, x: &Act, ranges: &[Range<u32>]) -> Result<Act>;

    /// Attention over each sequence's blocks, as far as `args` says: `[T, heads * head_dim]`.
    ///
    /// The queries are the first `heads * head_dim` columns of `q`; what follows them is not read.
    ///
    /// # Errors
    /// When the arguments disagree, or the device fails.
    fn paged_attention(
        &self,
        q: &Act,
        cache: &KvCache,
        layer: usize,
        args: &AttentionArgs<'_>,
    ) -> Result<Act>;

    /// The column of each row's greatest value, the lowest of equals; `rows` is `[R, cols]` on the host.
    ///
    /// `None` for a row of nothing but minus infinities, or with anything else in it that is no number.
    ///
    /// # Errors
    /// When `rows` is no whole number of rows.
    fn highest(&self, rows: &[f32], cols: usize, highest: &mut Vec<Option<u32>>) -> Result<()> {
        Reference.highest(rows, cols, highest)
    }

    /// Calls `task` once for each of `0..items`, on the host's threads that these kernels have.
    fn for_each(&self, items: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..items).for_each(task);
    }

    /// The named rows of `x`, in that order: `[rows.len(), cols]`.
    ///
    /// # Errors
    /// When a row is outside `x`, or the device fails.
    fn select_rows(&self, x: &Act, rows: &[u32]) -> Result<Act>;
}
