//! f32 tensors in host memory, read in place.
use super::super::{KernelError, Result};
use candle_core::{CpuStorage, Storage, Tensor};
use std::ops::{Deref, Range};

/// The values of a tensor for as long as they are read; `G` keeps others from writing them.
struct Values<G> {
    storage: G,
    range: Range<usize>,
}

/// The values of a contiguous f32 host tensor, row-major.
pub(super) fn values(tensor: &Tensor) -> Result<impl Deref<Target = [f32]> + '_> {
    let (storage, layout) = tensor.storage_and_layout();
    let range = layout.contiguous_offsets().map(|(start, end)| start..end);
    match (range, &*storage) {
        (Some(range), Storage::Cpu(CpuStorage::F32(values))) if range.end <= values.len() => {
            Ok(Values { storage, range })
        }
        _ => Err(KernelError::mismatch(
            "tensor",
            format!("{tensor:?} is no contiguous f32 tensor in host memory"),
        )),
    }
}

impl<G: Deref<Target = Storage>> Deref for Values<G> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            _ => &[],
        }
    }
}
