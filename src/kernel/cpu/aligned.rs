//! Memory that begins at a cache line, so that no vector of it straddles two.
#![expect(unsafe_code, reason = "views of the same memory at another element type")]
use std::marker::PhantomData;

/// Elements without padding for which every bit pattern is a value.
///
/// # Safety
/// As it says; four bytes each.
pub(super) unsafe trait Plain: Copy + Send + Sync + 'static {}
// SAFETY: four bytes, no padding, no invalid pattern.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// A fixed number of elements, zero at first.
pub(super) struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Plain> Aligned<T> {
    /// `len` zeros.
    pub(super) fn zeroed(len: usize) -> Self {
        Self { lines: vec![Line([0; 16]); len.div_ceil(16)], len, element: PhantomData }
    }

    pub(super) fn as_slice(&self) -> &[T] {
        // SAFETY: the lines hold at least `len` elements of four bytes; `Plain` allows any pattern.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        // SAFETY: `len` elements of four initialised bytes.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len * 4) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_at_a_cache_line_and_keeps_what_is_written() {
        let mut values = Aligned::<f32>::zeroed(21);
        values.as_mut_slice()[20] = 1.0;
        assert_eq!(values.as_slice().as_ptr() as usize % 64, 0);
        assert_eq!((values.as_slice()[0], values.as_slice()[20]), (0.0, 1.0));
        assert_eq!(
            (values.as_bytes().len(), &values.as_bytes()[80..]),
            (84, &1f32.to_le_bytes()[..])
        );
    }
}
