//! What four bytes of the cache hold: a number, a pair of bfloat16, or four bytes that count steps.
#![expect(unsafe_code, reason = "a wrapped word seen as the word")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::attend::Attend;
#[cfg(target_arch = "x86_64")]
use super::attend_tiles;
use super::attention::Attention;
use super::isa::Level;
use super::kv::WriteHeads;
use super::memory::Plain;
use super::simd::{Simd, Square, byte, pair};
use crate::kernel::rounding::Step;
use std::ops::Range;

/// Numbers a word holds at most.
pub(super) const MOST: usize = 4;

/// Four bytes of the cache.
pub(super) trait Word: Plain + Default {
    /// Numbers a word holds.
    const NUMBERS: usize;
    /// Takes in `numbers`, the rest of the last word 0; bytes are so many steps.
    fn fill<S: Simd>(simd: S, words: &mut [Self], numbers: &[f32], step: Step);
    /// Word `w` of each of the rows `lanes` becomes that lane of line `w` of `to`, `[words, Simd::LANES]`.
    fn turn<S: Simd>(simd: S, rows: &[[Self; 16]; 16], lanes: Range<usize>, to: &mut [Self]);
    /// Puts each word's numbers from `first` on, one from each of `rows`; the others stay as they are. Bytes are so many
    /// of the row's steps.
    fn put<S: Simd>(simd: S, words: &mut [Self], first: usize, rows: &[&[f32]], steps: &[Step]);
    /// One of its numbers.
    fn get(self, number: usize) -> f32;
    /// That number of each of the first words.
    fn widen<S: Simd>(simd: S, from: &[Self], number: usize) -> S::V;

    /// Words an [`Attend`] needs besides its values.
    fn words(_: &Attention<'_, Self>) -> usize {
        0
    }

    /// How many pieces [`Word::attend`] takes at a time, if they have one chunk each.
    fn together(_: Level, _: &Attention<'_, Self>) -> usize {
        1
    }

    /// Runs `attend` in the fastest way this machine has.
    fn attend(level: Level, attend: Attend<'_, Self>) {
        level.run(attend);
    }

    /// Runs `write` in the fastest way this machine has.
    fn write(level: Level, write: WriteHeads<'_, Self>) {
        level.run(write);
    }
}

impl Word for f32 {
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn fill<S: Simd>(_: S, words: &mut [Self], numbers: &[f32], _: Step) {
        words.copy_from_slice(numbers);
    }

    #[inline(always)]
    fn turn<S: Simd>(_: S, rows: &[[Self; 16]; 16], lanes: Range<usize>, to: &mut [Self]) {
        for lane in lanes {
            for (word, line) in rows[lane].iter().zip(to.chunks_exact_mut(S::LANES)) {
                line[lane] = *word;
            }
        }
    }

    #[inline(always)]
    fn put<S: Simd>(_: S, words: &mut [Self], _: usize, rows: &[&[f32]], _: &[Step]) {
        words.copy_from_slice(rows[0]);
    }

    #[inline(always)]
    fn get(self, _: usize) -> f32 {
        self
    }

    #[inline(always)]
    fn widen<S: Simd>(simd: S, from: &[Self], _: usize) -> S::V {
        simd.load(from)
    }
}

/// A pair of bfloat16, the earlier in the lower half.
impl Word for u32 {
    const NUMBERS: usize = 2;

    #[inline(always)]
    fn fill<S: Simd>(simd: S, words: &mut [Self], numbers: &[f32], _: Step) {
        simd.round_to_pairs(numbers, words);
    }

    #[inline(always)]
    fn turn<S: Simd>(simd: S, rows: &Square, lanes: Range<usize>, to: &mut [Self]) {
        simd.turn(rows, lanes, to);
    }

    #[inline(always)]
    fn put<S: Simd>(simd: S, words: &mut [Self], first: usize, rows: &[&[f32]], _: &[Step]) {
        match *rows {
            [earlier, later] => simd.round_side_by_side(earlier, later, words),
            [values] if first == 0 => {
                let words = words.iter_mut().zip(values);
                words.for_each(|(to, value)| *to = (*to & 0xffff_0000) | pair(*value, 0.0));
            }
            [values] => {
                let words = words.iter_mut().zip(values);
                words.for_each(|(to, value)| *to = (*to & 0xffff) | pair(0.0, *value));
            }
            _ => {}
        }
    }

    #[inline(always)]
    fn get(self, number: usize) -> f32 {
        f32::from_bits(if number == 0 { self << 16 } else { self & 0xffff_0000 })
    }

    #[inline(always)]
    fn widen<S: Simd>(simd: S, from: &[Self], number: usize) -> S::V {
        simd.widen(from, number)
    }

    #[cfg(target_arch = "x86_64")]
    fn words(attention: &Attention<'_, Self>) -> usize {
        attend_tiles::words(attention)
    }

    #[cfg(target_arch = "x86_64")]
    fn together(level: Level, attention: &Attention<'_, Self>) -> usize {
        attend_tiles::together(level, attention)
    }

    #[cfg(target_arch = "x86_64")]
    fn attend(level: Level, attend: Attend<'_, Self>) {
        attend_tiles::attend(level, attend);
    }

    #[cfg(target_arch = "x86_64")]
    fn write(level: Level, write: WriteHeads<'_, Self>) {
        match level.tiles() {
            Some(amx) => amx.pairs.vectorize(write),
            None => level.run(write),
        }
    }
}

/// Four bytes, the earliest in the lowest: how many steps of a scale kept elsewhere.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Quad(u32);

// SAFETY: it is a `u32`.
unsafe impl Plain for Quad {}

impl Quad {
    /// The words within.
    #[inline(always)]
    pub(super) fn words(quads: &[Self]) -> &[u32] {
        // SAFETY: a transparent wrapper has its word's size, alignment and values, and the borrow goes on.
        unsafe { std::slice::from_raw_parts(quads.as_ptr().cast(), quads.len()) }
    }

    /// [`Quad::words`], to write to.
    #[inline(always)]
    fn words_mut(quads: &mut [Self]) -> &mut [u32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(quads.as_mut_ptr().cast(), quads.len()) }
    }
}

impl Word for Quad {
    const NUMBERS: usize = 4;

    #[inline(always)]
    fn fill<S: Simd>(_: S, words: &mut [Self], numbers: &[f32], step: Step) {
        const WORDS: usize = 16;
        for (words, numbers) in words.chunks_mut(WORDS).zip(numbers.chunks(4 * WORDS)) {
            let mut bytes = [0; 4 * WORDS];
            bytes.iter_mut().zip(numbers).for_each(|(byte, number)| *byte = step.round(*number));
            for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *word = Self(u32::from_le_bytes(bytes.map(i8::cast_unsigned)));
            }
        }
    }

    #[inline(always)]
    fn turn<S: Simd>(simd: S, rows: &[[Self; 16]; 16], lanes: Range<usize>, to: &mut [Self]) {
        let rows = rows.map(|row| row.map(|quad| quad.0));
        simd.turn(&rows, lanes, Self::words_mut(to));
    }

    #[inline(always)]
    fn put<S: Simd>(_: S, words: &mut [Self], first: usize, rows: &[&[f32]], steps: &[Step]) {
        for (number, (row, step)) in (first..).zip(rows.iter().zip(steps)) {
            let (shift, others) = (8 * number, !(0xff << (8 * number)));
            for (word, value) in words.iter_mut().zip(*row) {
                let byte = step.round(*value).cast_unsigned();
                word.0 = (word.0 & others) | (u32::from(byte) << shift);
            }
        }
    }

    #[inline(always)]
    fn get(self, number: usize) -> f32 {
        byte(self.0, number)
    }

    #[inline(always)]
    fn widen<S: Simd>(simd: S, from: &[Self], number: usize) -> S::V {
        simd.widen_byte(Self::words(from), number)
    }

    #[cfg(target_arch = "x86_64")]
    fn words(attention: &Attention<'_, Self>) -> usize {
        attend_tiles::words(attention)
    }

    #[cfg(target_arch = "x86_64")]
    fn attend(level: Level, attend: Attend<'_, Self>) {
        attend_tiles::attend(level, attend);
    }
}
