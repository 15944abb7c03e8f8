//! Tensors in host memory, read in place.
use super::super::{KernelError, Result};
use candle_core::{Storage, Tensor, WithDType};
use std::marker::PhantomData;
use std::ops::{Deref, Range};

/// The values of a tensor for as long as they are read; `G` keeps others from writing them.
struct Values<G, T> {
    storage: G,
    range: Range<usize>,
    value: PhantomData<T>,
}

/// The values of a contiguous f32 host tensor, row-major.
pub(super) fn values(tensor: &Tensor) -> Result<impl Deref<Target = [f32]> + '_> {
    values_of::<f32>(tensor)
}

/// The values of a contiguous host tensor of `T`, row-major.
pub(super) fn values_of<T: WithDType>(tensor: &Tensor) -> Result<impl Deref<Target = [T]> + '_> {
    let (storage, layout) = tensor.storage_and_layout();
    let range = layout.contiguous_offsets().map(|(start, end)| start..end);
    match range {
        Some(range) if range.end <= slice::<T>(&storage).len() => {
            Ok(Values { storage, range, value: PhantomData })
        }
        _ => Err(KernelError::mismatch(
            "tensor",
            format!("{tensor:?} is no contiguous {:?} tensor in host memory", T::DTYPE),
        )),
    }
}

/// All of the values; none where they are of another type or elsewhere.
fn slice<T: WithDType>(storage: &Storage) -> &[T] {
    match storage {
        Storage::Cpu(values) => T::cpu_storage_as_slice(values).unwrap_or_default(),
        _ => &[],
    }
}

impl<G: Deref<Target = Storage>, T: WithDType> Deref for Values<G, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        slice(&self.storage).get(self.range.clone()).unwrap_or_default()
    }
}
