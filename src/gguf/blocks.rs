//! Tensor types: how many bytes their blocks take, and what numbers they stand for.
use candle_core::{
    DType, Device, Result, Tensor,
    quantized::{GgmlDType, QTensor, ggml_file::qtensor_from_ggml},
};
use std::fmt;

/// How a tensor's elements are stored. `Display` is the type's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Storage {
    /// One by one.
    Plain(DType),
    /// In blocks that share a scale; dequantised to f32.
    Blocks(GgmlDType),
}

/// By the format's number. llama.cpp's other types are its importance-matrix quants and those of intermediate results.
const STORAGES: &[(u32, Storage)] = &[
    (0, Storage::Plain(DType::F32)),
    (1, Storage::Plain(DType::F16)),
    (2, Storage::Blocks(GgmlDType::Q4_0)),
    (3, Storage::Blocks(GgmlDType::Q4_1)),
    (6, Storage::Blocks(GgmlDType::Q5_0)),
    (7, Storage::Blocks(GgmlDType::Q5_1)),
    (8, Storage::Blocks(GgmlDType::Q8_0)),
    (10, Storage::Blocks(GgmlDType::Q2K)),
    (11, Storage::Blocks(GgmlDType::Q3K)),
    (12, Storage::Blocks(GgmlDType::Q4K)),
    (13, Storage::Blocks(GgmlDType::Q5K)),
    (14, Storage::Blocks(GgmlDType::Q6K)),
    (30, Storage::Plain(DType::BF16)),
];

impl Storage {
    /// 32-bit floats.
    pub const F32: Self = Self::Plain(DType::F32);
    /// 16-bit floats of IEEE 754.
    pub const F16: Self = Self::Plain(DType::F16);
    /// The upper half of a 32-bit float.
    pub const BF16: Self = Self::Plain(DType::BF16);
    /// 32 octets that share a scale.
    pub const Q8_0: Self = Self::Blocks(GgmlDType::Q8_0);

    /// Its number in the file; `None` for a type the format has none for here.
    pub fn number(self) -> Option<u32> {
        STORAGES.iter().find(|(_, storage)| *storage == self).map(|(number, _)| *number)
    }

    /// Whether rows of `cols` elements can be stored so.
    pub fn fits(self, cols: usize) -> bool {
        self.bytes(1, cols).is_some()
    }

    /// The bytes that `tensor` has when it is stored so, rounded to the nearest.
    ///
    /// # Errors
    /// When blocks do not fill a row.
    pub fn encode(self, tensor: &Tensor) -> Result<Vec<u8>> {
        match self {
            Self::Blocks(dtype) => Ok(QTensor::quantize(tensor, dtype)?.data()?.into_owned()),
            Self::Plain(dtype) => {
                let tensor = tensor.to_dtype(dtype)?;
                Ok(safetensors::View::data(&tensor).into_owned())
            }
        }
    }

    /// From its number in the file.
    pub fn from_number(number: u32) -> Option<Self> {
        STORAGES.iter().find(|(known, _)| *known == number).map(|(_, storage)| *storage)
    }

    /// Bytes of a tensor whose rows have `cols` elements; `None` where blocks do not fill a row, or for more than
    /// there can be.
    pub fn bytes(self, rows: usize, cols: usize) -> Option<usize> {
        let (block, size) = match self {
            Self::Plain(dtype) => (1, dtype.size_in_bytes()),
            Self::Blocks(dtype) => (dtype.block_size(), dtype.type_size()),
        };
        if !cols.is_multiple_of(block) {
            return None;
        }
        rows.checked_mul(cols / block)?.checked_mul(size)
    }

    /// The numbers; `data` is as long as [`Storage::bytes`] says.
    pub(super) fn tensor(self, data: &[u8], shape: &[usize]) -> Result<Tensor> {
        match self {
            Self::Plain(dtype) => Tensor::from_raw_buffer(data, dtype, shape, &Device::Cpu),
            Self::Blocks(dtype) => qtensor_from_ggml(dtype, data, shape.to_vec(), &Device::Cpu)?
                .dequantize(&Device::Cpu),
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => write!(f, "{dtype:?}"),
            Self::Blocks(dtype) => write!(f, "{dtype:?}"),
        }
    }
}

/// Rows of each head from rotary pairs side by side, as llama.cpp keeps them, to rotary halves: `[heads * head_dim, …]`.
///
/// The inverse of `LlamaModel.permute` in llama.cpp's converter.
///
/// # Errors
/// When `heads` does not divide the rows into even numbers.
pub fn pairs_to_halves(tensor: &Tensor, heads: usize) -> Result<Tensor> {
    let rows = tensor.dim(0)?;
    let rest = tensor.elem_count() / rows.max(1);
    let pairs = tensor.reshape((heads, rows / heads / 2, 2, rest))?;
    pairs.transpose(1, 2)?.contiguous()?.reshape(tensor.shape())
}

/// The inverse of [`pairs_to_halves`].
///
/// # Errors
/// When `heads` does not divide the rows into even numbers.
pub fn halves_to_pairs(tensor: &Tensor, heads: usize) -> Result<Tensor> {
    let rows = tensor.dim(0)?;
    let rest = tensor.elem_count() / rows.max(1);
    let halves = tensor.reshape((heads, 2, rows / heads / 2, rest))?;
    halves.transpose(1, 2)?.contiguous()?.reshape(tensor.shape())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotary_pairs_become_halves_within_each_head() {
        let rows = Tensor::arange(0_u32, 8, &Device::Cpu).unwrap();
        let halves = pairs_to_halves(&rows, 2).unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(halves, [0, 2, 1, 3, 4, 6, 5, 7]);
        let halves = pairs_to_halves(&rows, 2).unwrap();
        let pairs = halves_to_pairs(&halves, 2).unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(pairs, rows.to_vec1::<u32>().unwrap());
    }

    #[test]
    fn sizes_that_overflow_or_split_a_block_are_none() {
        let q4 = Storage::from_number(2).unwrap();
        assert_eq!(q4.bytes(3, 64), Some(3 * 2 * 18));
        assert_eq!(q4.bytes(3, 65), None);
        assert_eq!(q4.bytes(usize::MAX, 64), None);
        assert_eq!(Storage::from_number(16), None);
    }
}
