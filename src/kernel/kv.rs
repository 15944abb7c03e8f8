//! The memory of keys and values. Which block belongs to whom is the engine's business.
use super::cpu::{Pages, Quad};
use super::{KernelError, Precision, Result};
use candle_core::Tensor;
use std::{fmt, str::FromStr};

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KvPrecision {
    /// 32-bit floats.
    F32,
    /// bfloat16: half the bytes, each number rounded once, when it is written.
    Bf16,
    /// Bytes: about half again. Each head of a token's keys, or of its values, is rounded once, when it is written, to
    /// −127..=127 steps of a scale of its own.
    Int8,
}

impl KvPrecision {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Bytes of what `head_dim` numbers of one head share.
    fn scale_bytes(self) -> usize {
        if self == Self::Int8 { size_of::<f32>() } else { 0 }
    }

    /// Bytes of one head of a token's keys, or of its values.
    pub fn head_bytes(self, head_dim: usize) -> usize {
        head_dim * self.bytes() + self.scale_bytes()
    }
}

impl fmt::Display for KvPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

/// How keys and values are kept, as the user names it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum KvChoice {
    /// As exact as the base weights, and no wider than they need.
    #[default]
    Auto,
    /// This one.
    Fixed(KvPrecision),
}

impl KvChoice {
    /// What it means beside base weights kept in `base`.
    pub fn beside(self, base: Precision) -> KvPrecision {
        match (self, base) {
            (Self::Fixed(precision), _) => precision,
            (Self::Auto, Precision::F32) => KvPrecision::F32,
            (Self::Auto, _) => KvPrecision::Bf16,
        }
    }
}

impl FromStr for KvChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            // The longer names are those that vLLM's `--kv-cache-dtype` takes.
            "f32" | "float32" => Ok(Self::Fixed(KvPrecision::F32)),
            "bf16" | "bfloat16" => Ok(Self::Fixed(KvPrecision::Bf16)),
            "int8" | "int8_per_token_head" => Ok(Self::Fixed(KvPrecision::Int8)),
            other => Err(format!("`{other}` is not a KV precision; use auto, f32, bf16 or int8")),
        }
    }
}

impl fmt::Display for KvChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(precision) => precision.fmt(f),
        }
    }
}

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
    /// How they are kept.
    pub precision: KvPrecision,
}

impl KvShape {
    /// Elements of one token's keys (or values) in one layer.
    pub fn row(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Bytes one block takes over all layers, keys and values, without padding.
    pub fn block_bytes(&self) -> usize {
        let token = self.kv_heads * self.precision.head_bytes(self.head_dim);
        2 * self.layers * self.block_size * token
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
    /// Host memory, `[blocks * block_size, kv_heads, head_dim]` each, rounded as the precision says.
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
    /// The same in pairs of bfloat16.
    Pairs {
        /// Keys.
        keys: Pages<u32>,
        /// Values.
        values: Pages<u32>,
    },
    /// The same in quads of bytes.
    Quads {
        /// Keys.
        keys: Pages<Quad>,
        /// Values.
        values: Pages<Quad>,
        /// What a step of each token's keys is, and of its values, under each head.
        scales: [Pages<f32>; 2],
    },
    /// Candle tensors of the precision's dtype, `[blocks * block_size, kv_heads * head_dim]` each.
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
            _ => Err(foreign()),
        }
    }

    /// Keys and values of one layer in host memory, to write to.
    pub(super) fn host_layer_mut(&mut self, layer: usize) -> Result<(&mut [f32], &mut [f32])> {
        match self.layers.get_mut(layer) {
            Some(KvLayer::Host { keys, values }) => Ok((keys, values)),
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

/// A cache that other kernels made, or too few layers.
pub(super) fn foreign() -> KernelError {
    KernelError::mismatch("kv cache", "no such layer in these kernels' memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_is_named_as_it_is_shown() {
        for text in ["auto", "f32", "bf16", "int8"] {
            assert_eq!(text.parse::<KvChoice>().unwrap().to_string(), text);
        }
        assert_eq!("int8_per_token_head".parse(), Ok(KvChoice::Fixed(KvPrecision::Int8)));
        assert!("int4".parse::<KvChoice>().unwrap_err().contains("`int4`"));
    }

    #[test]
    fn a_block_counts_its_scales() {
        let shape = |precision| KvShape {
            layers: 3,
            blocks: 1,
            block_size: 16,
            kv_heads: 2,
            head_dim: 64,
            precision,
        };
        assert_eq!(shape(KvPrecision::Bf16).block_bytes(), 2 * 3 * 16 * 2 * 128);
        assert_eq!(shape(KvPrecision::Int8).block_bytes(), 2 * 3 * 16 * 2 * 68);
    }

    #[test]
    fn auto_keeps_what_the_base_keeps() {
        assert_eq!(KvChoice::Auto.beside(Precision::F32), KvPrecision::F32);
        assert_eq!(KvChoice::Auto.beside(Precision::Bf16), KvPrecision::Bf16);
        let fixed = KvChoice::Fixed(KvPrecision::F32);
        assert_eq!(fixed.beside(Precision::Bf16), KvPrecision::F32);
    }
}
