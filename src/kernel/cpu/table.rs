//! Embeddings that are in no product: a token's row in one piece, where a panel has a cache line for each pair of it.
use super::super::weight::{Packed, WeightData};
use super::super::{BaseWeight, KernelError, Precision, Result, check};
use super::machine::{Machine, rows_per_item};
use super::memory::{Arena, Pages};
use super::pack::{Rows, on_host, widen};
use super::simd::pair;
use candle_core::Tensor;
use std::any::Any;

/// Rows one after the other.
enum Table {
    /// `[vocab, hidden]`
    F32 { values: Pages<f32>, hidden: usize },
    /// `[vocab, pairs]` of bfloat16, the earlier in the lower half; what is left of an odd row is a pair with 0.
    Bf16 { values: Pages<u32>, pairs: usize },
}

impl Packed for Table {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn row(&self, row: usize, to: &mut [f32]) {
        match self {
            Self::F32 { values, hidden } => to.copy_from_slice(&values[row * hidden..][..to.len()]),
            Self::Bf16 { values, pairs } => widen(values[row * pairs..][..*pairs].iter(), to),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::F32 { values, .. } => values.bytes(),
            Self::Bf16 { values, .. } => values.bytes(),
        }
    }
}

/// Packs a host table `[vocab, hidden]` row by row, to memory of `arena`.
pub(super) fn pack_table(
    table: &Tensor,
    precision: Precision,
    machine: &Machine,
    arena: &Arena,
) -> Result<BaseWeight> {
    let (vocab, hidden) = check::weight(table)?;
    let table = on_host(table)?;
    let (storage, layout) = table.storage_and_layout();
    let rows = Rows::new(&storage, layout.start_offset(), [vocab, hidden])?;
    let packed = match precision {
        Precision::F32 => {
            let mut values = arena.zeroed(vocab * hidden)?;
            fill(machine, &rows, (&mut values, hidden), <[f32]>::copy_from_slice);
            Table::F32 { values, hidden }
        }
        Precision::Bf16 => {
            let pairs = hidden.div_ceil(2);
            let mut values = arena.zeroed(vocab * pairs)?;
            fill(machine, &rows, (&mut values, pairs), |to, row| {
                to.iter_mut().zip(row.chunks(2)).for_each(|(to, two)| {
                    *to = pair(two[0], two.get(1).copied().unwrap_or(0.0));
                });
            });
            Table::Bf16 { values, pairs }
        }
        Precision::Auto | Precision::Int8 | Precision::Int4 => {
            return Err(KernelError::Unsupported(format!("no table of precision `{precision}`")));
        }
    };
    let data = WeightData::Packed(Box::new(packed));
    Ok(BaseWeight { out_features: vocab, in_features: hidden, precision, data })
}

/// Every row through `take`, to `width` elements of `to`.
fn fill<T: Send>(
    machine: &Machine,
    rows: &Rows<'_>,
    (to, width): (&mut [T], usize),
    take: impl Fn(&mut [T], &[f32]) + Sync,
) {
    let count = rows_per_item(width);
    machine.pool.chunks(to, count * width, |index, to| {
        let first = index * count;
        rows.each(first..first + to.len() / width, |place, row| {
            take(&mut to[place * width..][..width], row);
        });
    });
}

#[cfg(test)]
mod tests {
    use crate::kernel::{CpuKernels, Kernels, Precision};
    use candle_core::{Device, Tensor};

    #[test]
    fn a_table_is_in_no_product() {
        let kernels = CpuKernels::new(1).unwrap();
        let table = Tensor::ones((3, 5), candle_core::DType::F32, &Device::Cpu).unwrap();
        for precision in [Precision::F32, Precision::Bf16] {
            let table = kernels.pack_table(&table, precision).unwrap();
            let x = kernels.upload(&[0.0; 5], 1, 5).unwrap();
            let error = kernels.linear(&x, &table, None).expect_err("it has no panels");
            assert!(error.to_string().contains("rows are looked up"), "{error}");
        }
    }
}
