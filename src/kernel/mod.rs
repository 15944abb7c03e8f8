//! What the device does: a step's operations, once per device.
//!
//! Knows numbers and shapes, the instruction sets and the devices. Knows no names, no requests, no models.
mod act;
mod args;
mod candle_ops;
mod check;
mod cpu;
mod device;
mod error;
mod kv;
#[cfg(test)]
mod oracle_tests;
mod reference;
mod weight;

pub use act::Act;
pub use args::{Activation, AttentionArgs, LowRank, RopeTable, RowSegment};
pub use candle_ops::CandleOps;
pub use cpu::{CpuKernels, Isa};
pub use device::{DeviceChoice, KernelConfig, open};
pub use error::{KernelError, Result};
pub use kv::{KvCache, KvShape};
pub use reference::Reference;
pub use weight::{BaseWeight, Precision};

use candle_core::Tensor;
use std::borrow::Cow;

/// One device's implementation of everything a forward pass needs.
///
/// Every operation adds up each row in an order that depends on that row alone, so a row's result is
/// the same bits whoever shares the batch.
pub trait Kernels: Send + Sync {
    /// The device, its instruction set and its threads, for the log.
    fn describe(&self) -> String;

    /// The precision [`Precision::Auto`] stands for on this device.
    fn auto_precision(&self) -> Precision;

    /// Takes a weight `[out, in]` (host tensor of any float dtype) into the device's own layout.
    ///
    /// # Errors
    /// When it is not a matrix, the precision does not exist here, or the device fails.
    fn pack(&self, weight: &Tensor, precision: Precision) -> Result<BaseWeight>;

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

    /// Brings a low-rank pair to the device; on the CPU it shares the host's memory.
    ///
    /// # Errors
    /// When the device fails.
    fn load_low_rank(&self, pair: &LowRank) -> Result<LowRank>;

    /// Brings a rope table to the device, so that [`Kernels::rope`] need not do it at every step.
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

    /// `x · Wᵀ + bias`: `[T, in]` → `[T, out]`; `bias` is `[1, out]`.
    ///
    /// # Errors
    /// When a shape disagrees, or the device fails.
    fn linear(&self, x: &Act, weight: &BaseWeight, bias: Option<&Act>) -> Result<Act>;

    /// Adds every row's low-rank delta to `y`.
    ///
    /// `y[t] += weight · (x[t] · aᵀ) · b` with `slots[s]`'s factors, for each row `t` in a segment of slot
    /// `s`, one segment after the other where they overlap. Rows in no segment, and rows whose slot is
    /// `None` here, stay as they are.
    /// `y`: `[T, out]`, `x`: `[T, in]`. Hu et al. 2021, section 4.1.
    ///
    /// # Errors
    /// When a shape or a slot index disagrees, or the device fails.
    fn add_lora(
        &self,
        y: &mut Act,
        x: &Act,
        slots: &[Option<LowRank>],
        segments: &[RowSegment],
    ) -> Result<()>;

    /// `x / sqrt(mean(x²) + eps) · weight` over each group of `weight.cols()` columns of a row.
    ///
    /// A group is the whole row in a block's norm, one head in Qwen3's query and key norms.
    ///
    /// # Errors
    /// When the row is no multiple of the group, or the device fails.
    fn rms_norm(&self, x: &Act, weight: &Act, eps: f32) -> Result<Act>;

    /// `y += x`, same shape.
    ///
    /// # Errors
    /// When the shapes differ, or the device fails.
    fn add(&self, y: &mut Act, x: &Act) -> Result<()>;

    /// Rotates each head of `x` (`[T, heads * head_dim]`) in place to its row's position; the pairs are
    /// `(i, i + head_dim / 2)`, as in `transformers`' `rotate_half`.
    ///
    /// # Errors
    /// When a position is outside the table, or the device fails.
    fn rope(&self, x: &mut Act, positions: &[u32], table: &RopeTable) -> Result<()>;

    /// `activation(gate) · up`, same shape.
    ///
    /// # Errors
    /// When the shapes differ, or the device fails.
    fn gated(&self, gate: &Act, up: &Act, activation: Activation) -> Result<Act>;

    /// Writes row `t` of `k` and `v` (`[T, kv_heads * head_dim]`) to KV row `slot_mapping[t]` of `layer`.
    ///
    /// # Errors
    /// When a row is outside the cache, or the device fails.
    fn write_kv(
        &self,
        cache: &mut KvCache,
        layer: usize,
        k: &Act,
        v: &Act,
        slot_mapping: &[u32],
    ) -> Result<()>;

    /// Causal attention of `q` (`[T, heads * head_dim]`) over each sequence's blocks: `[T, heads * head_dim]`.
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

    /// The named rows of `x`, in that order: `[rows.len(), cols]`.
    ///
    /// # Errors
    /// When a row is outside `x`, or the device fails.
    fn select_rows(&self, x: &Act, rows: &[u32]) -> Result<Act>;
}
