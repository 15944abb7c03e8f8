//! Scratch memory and activations come from here and go back here, so that a steady step allocates little.
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// More than a step holds at once; beyond this many the smallest goes back to the allocator.
const MOST: usize = 16;

/// Free vectors of one element type; clones share them.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Buffers<T>(Arc<Mutex<Vec<Vec<T>>>>);

impl<T: Copy + Default> Buffers<T> {
    /// `len` elements of arbitrary value: whoever takes them writes them all.
    pub(super) fn take(&self, len: usize) -> Vec<T> {
        let mut buffer = self.best(len).unwrap_or_default();
        buffer.resize(len, T::default());
        buffer
    }

    /// `len` elements of arbitrary value that come back by themselves.
    pub(super) fn scratch(&self, len: usize) -> Scratch<'_, T> {
        Scratch { values: self.take(len), home: self }
    }

    /// For a later [`Buffers::take`].
    pub(in super::super) fn give(&self, buffer: Vec<T>) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(buffer);
        if free.len() > MOST {
            let smallest = free.iter().enumerate().min_by_key(|(_, buffer)| buffer.capacity());
            if let Some((index, _)) = smallest {
                free.swap_remove(index);
            }
        }
    }

    /// The smallest free one that is large enough.
    fn best(&self, len: usize) -> Option<Vec<T>> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = free.iter().enumerate().filter(|(_, buffer)| buffer.capacity() >= len);
        let best = fits.min_by_key(|(_, buffer)| buffer.capacity())?.0;
        Some(free.swap_remove(best))
    }
}

/// A borrowed buffer.
pub(super) struct Scratch<'a, T: Copy + Default> {
    values: Vec<T>,
    home: &'a Buffers<T>,
}

impl<T: Copy + Default> Deref for Scratch<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.values
    }
}

impl<T: Copy + Default> DerefMut for Scratch<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values
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
        let again = (buffers.take(9), buffers.take(900));
        assert_eq!((again.0.as_ptr(), again.1.as_ptr()), addresses);
        assert_eq!((again.0.len(), again.1.len()), (9, 900));
    }

    #[test]
    fn only_so_many_are_kept_and_those_the_largest() {
        let buffers = Buffers::<f32>::default();
        for len in 1..=MOST + 5 {
            buffers.give(vec![0.0; len]);
        }
        let free = buffers.0.lock().unwrap();
        assert_eq!(free.len(), MOST);
        assert!(free.iter().all(|buffer| buffer.capacity() > 5));
    }

    #[test]
    fn scratch_gives_itself_back() {
        let buffers = Buffers::<u32>::default();
        let address = buffers.scratch(64).as_ptr();
        assert_eq!(buffers.scratch(64).as_ptr(), address);
    }
}
