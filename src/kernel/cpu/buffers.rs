//! Scratch memory and activations come from here and go back here, so that a steady step allocates nothing.
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// More than a step holds at once; beyond this many the smallest goes back to the allocator.
const MOST: usize = 16;

/// A cache line, in bytes.
const LINE: usize = 64;

/// A vector that begins with a cache line: one of registers as long as a line never straddles two.
#[derive(Debug, Default)]
pub(in super::super) struct Buffer<T> {
    values: Vec<T>,
    start: usize,
}

impl<T: Copy + Default> Buffer<T> {
    /// At least `len` elements.
    pub(super) fn new(len: usize) -> Self {
        let spare = LINE / size_of::<T>();
        let values = vec![T::default(); len + spare];
        let start = values.as_ptr().align_offset(LINE).min(spare);
        Self { values, start }
    }
}

/// As it is, wherever it begins.
impl<T> From<Vec<T>> for Buffer<T> {
    fn from(values: Vec<T>) -> Self {
        Self { values, start: 0 }
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.values[self.start..]
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..]
    }
}

/// Free buffers of one element type; clones share them.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Buffers<T>(Arc<Mutex<Vec<Buffer<T>>>>);

impl<T: Copy + Default> Buffers<T> {
    /// At least `len` elements of arbitrary value: whoever takes them writes what it reads.
    pub(in super::super) fn take(&self, len: usize) -> Buffer<T> {
        // Few different lengths, so that what grows by a token a step finds room for many steps.
        self.best(len).unwrap_or_else(|| Buffer::new(len.next_power_of_two()))
    }

    /// `len` elements of arbitrary value that come back by themselves.
    pub(super) fn scratch(&self, len: usize) -> Scratch<'_, T> {
        Scratch { values: self.take(len), len, home: self }
    }

    /// For a later [`Buffers::take`].
    pub(in super::super) fn give(&self, buffer: Buffer<T>) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(buffer);
        if free.len() > MOST {
            let smallest = free.iter().enumerate().min_by_key(|(_, buffer)| buffer.len());
            if let Some((index, _)) = smallest {
                free.swap_remove(index);
            }
        }
    }

    /// The smallest free one that is large enough.
    fn best(&self, len: usize) -> Option<Buffer<T>> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = free.iter().enumerate().filter(|(_, buffer)| buffer.len() >= len);
        let best = fits.min_by_key(|(_, buffer)| buffer.len())?.0;
        Some(free.swap_remove(best))
    }
}

/// A borrowed buffer.
pub(super) struct Scratch<'a, T: Copy + Default> {
    values: Buffer<T>,
    len: usize,
    home: &'a Buffers<T>,
}

impl<T: Copy + Default> Deref for Scratch<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.values[..self.len]
    }
}

impl<T: Copy + Default> DerefMut for Scratch<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[..self.len]
    }
}

impl<T: Copy + Default> Drop for Scratch<'_, T> {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.values));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_to_whoever_needs_its_size() {
        let buffers = Buffers::<f32>::default();
        let (small, large) = (buffers.take(10), buffers.take(1000));
        let addresses = (small.as_ptr(), large.as_ptr());
        buffers.give(large);
        buffers.give(small);
        let again = (buffers.take(9), buffers.take(1024));
        assert_eq!((again.0.as_ptr(), again.1.as_ptr()), addresses);
    }

    #[test]
    fn a_new_buffer_begins_with_a_cache_line() {
        for len in [1, 100, 100_000] {
            let (floats, bytes) = (Buffer::<f32>::new(len), Buffer::<u8>::new(len));
            assert!(floats.len() >= len && bytes.len() >= len);
            assert_eq!((floats.as_ptr() as usize % LINE, bytes.as_ptr() as usize % LINE), (0, 0));
        }
    }

    #[test]
    fn only_so_many_are_kept_and_those_the_largest() {
        let buffers = Buffers::<f32>::default();
        for len in 1..=MOST + 5 {
            buffers.give(vec![0.0; len].into());
        }
        let free = buffers.0.lock().unwrap();
        assert_eq!(free.len(), MOST);
        assert!(free.iter().all(|buffer| buffer.len() > 5));
    }

    #[test]
    fn scratch_gives_itself_back() {
        let buffers = Buffers::<u32>::default();
        let address = buffers.scratch(64).as_ptr();
        let again = buffers.scratch(50);
        assert_eq!((again.as_ptr(), again.len()), (address, 50));
    }
}
