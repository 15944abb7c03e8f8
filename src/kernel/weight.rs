//! Base weights in the device's own layout.
use super::{KernelError, Result};
use candle_core::{DType, Tensor};
use sha2::{Digest, Sha256};
use std::{any::Any, fmt, ops::Range, str::FromStr};

/// How base weights are stored and multiplied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Precision {
    /// The fastest this device has that keeps the model's quality.
    Auto,
    /// 32-bit floats.
    F32,
    /// bfloat16 weights and products, f32 sums.
    Bf16,
    /// 8-bit weights in groups of 64 inputs with an f32 scale, 8-bit activations with a scale for each row and
    /// group, exact sums within a group and f32 sums of the groups.
    Int8,
    /// 4-bit weights in groups of 32 inputs with a bfloat16 scale; activations and sums as at [`Precision::Int8`].
    Int4,
}

impl Precision {
    /// For tables with a row a token: an embedding and a head decide on every token, and 4 bits cost them too much.
    #[must_use]
    pub fn of_tables(self) -> Self {
        if self == Self::Int4 { Self::Int8 } else { self }
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            // The longer names are torch's, as vLLM's `--dtype` takes them.
            "f32" | "float32" | "float" => Ok(Self::F32),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            "int4" => Ok(Self::Int4),
            other => {
                Err(format!("`{other}` is not a precision; use auto, f32, bf16, int8 or int4"))
            }
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        })
    }
}

/// Matrices of one width as one, the rows of the first before those of the second.
///
/// # Errors
/// When there is none, or their widths differ.
pub(super) fn stack(parts: &[Tensor]) -> Result<Tensor> {
    let [first, rest @ ..] = parts else {
        return Err(KernelError::mismatch("pack", "no weight at all"));
    };
    let (_, width) = super::check::weight(first)?;
    for part in rest {
        if super::check::weight(part)?.1 != width {
            let detail = format!("{:?} on {:?}", part.dims(), first.dims());
            return Err(KernelError::mismatch("pack", detail));
        }
    }
    if rest.is_empty() {
        return Ok(first.clone());
    }
    if rest.iter().all(|part| part.dtype() == first.dtype()) {
        return Ok(Tensor::cat(parts, 0)?);
    }
    let widened = parts.iter().map(|part| Ok(part.to_dtype(DType::F32)?));
    Ok(Tensor::cat(&widened.collect::<Result<Vec<_>>>()?, 0)?)
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
    /// Row `row` of the weight, as many values of it as `to` is long.
    fn row(&self, row: usize, to: &mut [f32]);
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

    /// A candle tensor `[out, in]` as it is.
    pub(super) fn device(tensor: Tensor, precision: Precision) -> Result<Self> {
        let (out_features, in_features) = super::check::weight(&tensor)?;
        Ok(Self { out_features, in_features, precision, data: WeightData::Device(tensor) })
    }

    /// The tensor of an unpacked weight.
    pub(super) fn tensor(&self) -> Result<&Tensor> {
        match &self.data {
            WeightData::Device(tensor) => Ok(tensor),
            WeightData::Packed(_) => Err(KernelError::mismatch(
                "weight",
                "it was packed by another implementation of the kernels",
            )),
        }
    }

    /// Rows of the weight as it is multiplied: `[rows.len(), in]`, f32. From any thread, whatever else runs.
    ///
    /// # Errors
    /// When a row is outside the weight, or the device does not give the values back.
    pub fn rows(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        if rows.start > rows.end || rows.end > self.out_features {
            let detail = format!("rows {rows:?} of {}", self.out_features);
            return Err(KernelError::mismatch("weight", detail));
        }
        match &self.data {
            WeightData::Device(tensor) => {
                let rows = tensor.narrow(0, rows.start, rows.len())?.to_dtype(DType::F32)?;
                Ok(rows.flatten_all()?.to_vec1()?)
            }
            WeightData::Packed(packed) => {
                let mut values = vec![0.0; rows.len() * self.in_features];
                let to = values.chunks_exact_mut(self.in_features.max(1));
                to.zip(rows).for_each(|(to, row)| packed.row(row, to));
                Ok(values)
            }
        }
    }

    /// The layout of a packed weight.
    pub(super) fn packed(&self) -> Result<&dyn Packed> {
        match &self.data {
            WeightData::Packed(packed) => Ok(packed.as_ref()),
            WeightData::Device(_) => {
                Err(KernelError::mismatch("weight", format!("{self:?} is not packed")))
            }
        }
    }

    /// SHA-256 of shape, precision and the stored values: equal as long as nothing has changed.
    ///
    /// # Errors
    /// When the device does not give the values back.
    pub fn fingerprint(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        hash.update(format!("{self:?}"));
        match &self.data {
            WeightData::Packed(packed) => hash.update(packed.bytes()),
            WeightData::Device(tensor) => {
                let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
                for value in values {
                    hash.update(value.to_le_bytes());
                }
            }
        }
        Ok(hash.finalize().into())
    }
}

impl fmt::Debug for BaseWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BaseWeight[{}, {}] {}", self.out_features, self.in_features, self.precision)
    }
}
