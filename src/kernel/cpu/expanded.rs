//! Words of the cache that tiles cannot read, made into pairs of bfloat16.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::attend::LINE;
use super::attention::{Attention, Piece};
use super::kv_words::{Quad, Word};
use super::simd::Simd;
use std::ops::Range;

/// Words that are pairs of bfloat16, or can be made so.
pub(super) trait TileWord: Word {
    /// Whether they must be made so.
    const EXPANDED: bool;
    /// The same words, where they are pairs.
    fn pairs(words: &[Self]) -> &[u32];
    /// Makes lines of pairs of lines of `row` words; asks for as much from `next` on meanwhile.
    fn expand<S: Simd>(simd: S, words: &[Self], next: (&[Self], usize), to: &mut [u32]);
}

impl TileWord for u32 {
    const EXPANDED: bool = false;

    #[inline(always)]
    fn pairs(words: &[Self]) -> &[u32] {
        words
    }

    #[inline(always)]
    fn expand<S: Simd>(_: S, _: &[Self], _: (&[Self], usize), _: &mut [u32]) {}
}

/// A step is at most 127 and bfloat16 has 8 bits: nothing is rounded.
impl TileWord for Quad {
    const EXPANDED: bool = true;

    #[inline(always)]
    fn pairs(_: &[Self]) -> &[u32] {
        &[]
    }

    #[inline(always)]
    fn expand<S: Simd>(simd: S, words: &[Self], (next, row): (&[Self], usize), to: &mut [u32]) {
        let rows = words.chunks_exact(row).zip(to.chunks_exact_mut(2 * row));
        for (index, (quads, pairs)) in rows.enumerate() {
            for at in (0..row).step_by(LINE) {
                if let Some(first) = next.first() {
                    simd.prefetch(first, index * row + at);
                }
            }
            let (earlier, later) = pairs.split_at_mut(row);
            simd.bytes_to_pairs(Quad::words(quads), earlier, later);
        }
    }
}

/// Chunks of one head that stay expanded: a long prompt's pieces read them one after the other.
const HELD: usize = 8;

/// What [`TileWord::expand`] makes of chunks, kept for the next piece of the same head.
pub(super) struct Expanded<'a> {
    tags: &'a mut [Tag],
    /// `[HELD, 2, chunk * head_dim / 2]` pairs: keys and values.
    pairs: &'a mut [u32],
    /// The chunk at hand, and where it is held.
    chunk: usize,
    held: usize,
    /// Whether there will be no next piece: then all chunks share the nearest memory.
    is_alone: bool,
}

/// A chunk, and a bit for each group of its keys and each step of its values that are there.
type Tag = [u32; 3];

impl<'a> Expanded<'a> {
    /// Tags, in words, a whole number of lines.
    const TAGS: usize = (HELD * size_of::<Tag>()).next_multiple_of(LINE) / size_of::<u32>();

    pub(super) fn words<W: TileWord>(attention: &Attention<'_, W>) -> usize {
        let chunk = attention.chunk() * attention.layout.shape.head_dim;
        if W::EXPANDED { Self::TAGS + HELD * chunk } else { 0 }
    }

    /// In `words`, which hold what the last piece left there if that read the same head.
    pub(super) fn of<W>(piece: &Piece<'_, W>, words: &'a mut [u32], again: bool) -> Self
    where
        W: TileWord,
    {
        let (tags, pairs) = words.split_at_mut(Self::TAGS.min(words.len()));
        let tags = tags.as_chunks_mut().0;
        if !again {
            tags.fill([u32::MAX, 0, 0]);
        }
        Self { tags, pairs, chunk: 0, held: 0, is_alone: piece.is_alone() }
    }

    pub(super) fn turn_to(&mut self, chunk: usize) {
        (self.chunk, self.held) = (chunk, if self.is_alone { 0 } else { chunk % HELD });
    }

    /// Expands the chunk's keys (0) or values (1) number `index` of that size, unless they are held.
    #[inline(always)]
    pub(super) fn fill<S: Simd, W: TileWord>(
        &mut self,
        simd: S,
        (which, index): (usize, usize),
        words: &[W],
        next: (&[W], usize),
    ) {
        let tag = &mut self.tags[self.held];
        if tag[0] != self.chunk as u32 {
            *tag = [self.chunk as u32, 0, 0];
        }
        if tag[1 + which] & (1 << index) == 0 {
            tag[1 + which] |= 1 << index;
            let place = self.place((which, index), words);
            W::expand(simd, words, next, &mut self.pairs[place]);
        }
    }

    /// The words as pairs, after [`Expanded::fill`] where they are none.
    #[inline(always)]
    pub(super) fn pairs<'b, W: TileWord>(
        &'b self,
        at: (usize, usize),
        words: &'b [W],
    ) -> &'b [u32] {
        if W::EXPANDED { &self.pairs[self.place(at, words)] } else { W::pairs(words) }
    }

    #[inline(always)]
    fn place<W: TileWord>(&self, (which, index): (usize, usize), words: &[W]) -> Range<usize> {
        let (len, size) = (words.len() * W::NUMBERS / 2, self.pairs.len() / (2 * HELD));
        let start = (2 * self.held + which) * size + index * len;
        start..start + len
    }
}
