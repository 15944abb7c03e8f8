//! The memory of keys and values. Which block belongs to whom is the engine's business.
use super::cpu::Pages;
use super::{KernelError, Result};
use candle_core::Tensor;

/// Sizes of a KV cache.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KvShape {
    /// Decoder layers.
    pub layers: usize,
    /// Blocks a layer has.
    pub blocks: usize,
    /// Tokens a block holds.
    pub block_size: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
}

impl KvShape {
    /// Elements of one token's keys (or values) in one layer.
    pub fn row(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Bytes one block takes over all layers, keys and values, in f32.
    pub fn block_bytes(&self) -> usize {
        2 * self.layers * self.block_size * self.row() * size_of::<f32>()
    }
}

/// Keys and values of every layer in blocks; a KV row is `block * block_size + offset`.
#[derive(Debug)]
pub struct KvCache {
    pub(super) shape: KvShape,
    pub(super) layers: Vec<KvLayer>,
}

/// One layer's keys and values.
#[derive(Debug)]
pub(super) enum KvLayer {
    /// Host memory, `[blocks * block_size, kv_heads, head_dim]` each.
    Host {
        /// Keys.
        keys: Vec<f32>,
        /// Values.
        values: Vec<f32>,
    },
    /// Host memory in large pages, laid out as the CPU kernels like it.
    Pages {
        /// Keys.
        keys: Pages<f32>,
        /// Values.
        values: Pages<f32>,
    },
    /// Candle tensors `[blocks * block_size, kv_heads * head_dim]` each.
    Device {
        /// Keys.
        keys: Tensor,
        /// Values.
        values: Tensor,
    },
}

impl KvCache {
    /// Its sizes.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Zeroed host memory, a KV row after the other.
    pub(super) fn on_host(shape: KvShape) -> Self {
        let zeros = || vec![0.0; shape.blocks * shape.block_size * shape.row()];
        let layers =
            (0..shape.layers).map(|_| KvLayer::Host { keys: zeros(), values: zeros() }).collect();
        Self { shape, layers }
    }

    /// Keys and values of one layer in host memory.
    pub(super) fn host_layer(&self, layer: usize) -> Result<(&[f32], &[f32])> {
        match self.layers.get(layer) {
            Some(KvLayer::Host { keys, values }) => Ok((keys, values)),
            Some(KvLayer::Pages { keys, values }) => Ok((keys, values)),
            _ => Err(foreign()),
        }
    }

    /// Keys and values of one layer in host memory, to write to.
    pub(super) fn host_layer_mut(&mut self, layer: usize) -> Result<(&mut [f32], &mut [f32])> {
        match self.layers.get_mut(layer) {
            Some(KvLayer::Host { keys, values }) => Ok((keys, values)),
            Some(KvLayer::Pages { keys, values }) => Ok((keys, values)),
            _ => Err(foreign()),
        }
    }

    /// Keys and values of one layer as tensors.
    pub(super) fn device_layer(&self, layer: usize) -> Result<(&Tensor, &Tensor)> {
        match self.layers.get(layer) {
            Some(KvLayer::Device { keys, values }) => Ok((keys, values)),
            _ => Err(foreign()),
        }
    }
}

fn foreign() -> KernelError {
    KernelError::mismatch("kv cache", "no such layer in these kernels' memory")
}
