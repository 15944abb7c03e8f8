//! Base weights in the device's own layout.
use candle_core::Tensor;
use std::{any::Any, fmt, str::FromStr};

/// How base weights are stored and multiplied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Precision {
    /// The fastest this device has that keeps the model's quality.
    Auto,
    /// 32-bit floats.
    F32,
    /// bfloat16 weights and products, f32 sums.
    Bf16,
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(format!("`{other}` is not a precision; use auto, f32 or bf16")),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// A linear layer's weight `[out, in]`, packed once at load and never changed.
pub struct BaseWeight {
    pub(super) out_features: usize,
    pub(super) in_features: usize,
    pub(super) precision: Precision,
    pub(super) data: WeightData,
}

/// The layout behind a [`BaseWeight`].
pub(super) enum WeightData {
    /// A candle tensor `[out, in]`.
    Device(Tensor),
    /// The CPU kernels' own panels.
    Packed(Box<dyn Packed>),
}

/// A packed layout: opaque outside the kernels that made it.
pub(super) trait Packed: Any + Send + Sync {
    /// For the kernels to get their own type back.
    fn as_any(&self) -> &dyn Any;
    /// Its memory, in order, for [`BaseWeight::fingerprint`].
    fn bytes(&self) -> &[u8];
}

impl BaseWeight {
    /// Bytes it takes on the device.
    pub fn bytes(&self) -> usize {
        match &self.data {
            WeightData::Device(tensor) => tensor.elem_count() * tensor.dtype().size_in_bytes(),
            WeightData::Packed(packed) => packed.bytes().len(),
        }
    }

    /// Rows of the weight.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Columns of the weight.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// How it is stored.
    pub fn precision(&self) -> Precision {
        self.precision
    }
}

impl fmt::Debug for BaseWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BaseWeight[{}, {}] {}", self.out_features, self.in_features, self.precision)
    }
}
