//! Tensor types: how many bytes their blocks take, and what numbers they stand for.
use candle_core::{
    DType, Device, Result, Tensor,
    quantized::{GgmlDType, ggml_file::qtensor_from_ggml},
};

/// How a tensor's elements are stored.
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
    /// From its number in the file.
    pub(super) fn from_number(number: u32) -> Option<Self> {
        STORAGES.iter().find(|(known, _)| *known == number).map(|(_, storage)| *storage)
    }

    /// Bytes of a tensor whose rows have `cols` elements; `None` where blocks do not fill a row, or for more than
    /// there can be.
    pub(super) fn bytes(self, rows: usize, cols: usize) -> Option<usize> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotary_pairs_become_halves_within_each_head() {
        let rows = Tensor::arange(0_u32, 8, &Device::Cpu).unwrap();
        let halves = pairs_to_halves(&rows, 2).unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(halves, [0, 2, 1, 3, 4, 6, 5, 7]);
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
