//! Keys and values in host memory: tokens side by side for the keys, `head_dim` side by side for the values.
//!
//! A score is a sum over `head_dim`, so with tokens in the lanes a vector of scores needs no sum across
//! lanes; an output is a sum over tokens, so values lie with `head_dim` in the lanes. In bfloat16 what is
//! summed over lies in pairs: two elements of a key, two tokens' values.
#![expect(unsafe_code, reason = "threads write their own heads of one cache")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::kv::{KvLayer, foreign};
use super::super::{KvCache, KvPrecision, KvShape, Result};
use super::attend::Attend;
#[cfg(target_arch = "x86_64")]
use super::attend_tiles::{self, AttendTiles};
use super::attention::Attention;
use super::isa::Level;
use super::machine::Machine;
use super::memory::{Arena, Plain};
use super::pool::Pieces;
use super::simd::{Simd, Task, pair, round_to_pairs};

/// Below this many numbers one thread writes them faster than it wakes another.
const SERIAL: usize = 8_192;

/// Words of a key rounded side by side before each goes its own way.
const KEY_WORDS: usize = 32;

/// Four bytes of the cache.
pub(super) trait Word: Plain + Default {
    /// Numbers a word holds.
    const NUMBERS: usize;
    /// Takes in `numbers`, the rest of the last word 0.
    fn fill(words: &mut [Self], numbers: &[f32]);
    /// Puts the same one of each word's numbers.
    fn set(words: &mut [Self], number: usize, values: &[f32]);
    /// One of its numbers.
    fn get(self, number: usize) -> f32;
    /// That number of each of the first words.
    fn widen<S: Simd>(simd: S, from: &[Self], number: usize) -> S::V;

    /// Words an [`Attend`] needs besides its values.
    fn words(_: &Attention<'_, Self>) -> usize {
        0
    }

    /// Runs `attend` in the fastest way this machine has.
    fn attend(level: Level, attend: Attend<'_, Self>) {
        level.run(attend);
    }
}

impl Word for f32 {
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn fill(words: &mut [Self], numbers: &[f32]) {
        words.copy_from_slice(numbers);
    }

    #[inline(always)]
    fn set(words: &mut [Self], _: usize, values: &[f32]) {
        words.copy_from_slice(values);
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
    fn fill(words: &mut [Self], numbers: &[f32]) {
        round_to_pairs(numbers, words);
    }

    #[inline(always)]
    fn set(words: &mut [Self], number: usize, values: &[f32]) {
        let words = words.iter_mut().zip(values);
        if number == 0 {
            words.for_each(|(to, value)| *to = (*to & 0xffff_0000) | pair(*value, 0.0));
        } else {
            words.for_each(|(to, value)| *to = (*to & 0xffff) | pair(0.0, *value));
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
    fn attend(level: Level, attend: Attend<'_, Self>) {
        match level.tiles() {
            Some(amx) if attend_tiles::fits(attend.piece.attention.layout) => {
                amx.pairs.vectorize(AttendTiles { amx, attend });
            }
            _ => level.run(attend),
        }
    }
}

/// In words: keys `[blocks, kv_heads, groups, head_dim / numbers, lanes]`, values
/// `[blocks, kv_heads, block_size / numbers, head_dim]`, both quotients rounded up.
///
/// Token `o` of a block is lane `o % lanes` of group `o / lanes` in the keys, number `o % numbers` of row
/// `o / numbers` in the values.
#[derive(Clone, Copy, Debug)]
pub(super) struct KvLayout {
    pub(super) shape: KvShape,
    pub(super) lanes: usize,
}

impl KvLayout {
    /// Numbers a word holds.
    fn numbers(self) -> usize {
        match self.shape.precision {
            KvPrecision::F32 => f32::NUMBERS,
            KvPrecision::Bf16 => u32::NUMBERS,
        }
    }

    /// Groups of tokens a block has.
    pub(super) fn groups(self) -> usize {
        self.shape.block_size.div_ceil(self.lanes)
    }

    /// Words one token's key takes.
    pub(super) fn key_words(self) -> usize {
        self.shape.head_dim.div_ceil(self.numbers())
    }

    /// Words of one group of keys.
    pub(super) fn group_len(self) -> usize {
        self.key_words() * self.lanes
    }

    /// Words of one block's values under one head.
    pub(super) fn values_len(self) -> usize {
        self.shape.block_size.div_ceil(self.numbers()) * self.shape.head_dim
    }

    /// Where a group of keys begins.
    pub(super) fn group(self, block: usize, kv_head: usize, group: usize) -> usize {
        ((block * self.shape.kv_heads + kv_head) * self.groups() + group) * self.group_len()
    }

    /// The group of a position, counted over a sequence's blocks.
    pub(super) fn group_of(self, position: usize) -> usize {
        let size = self.shape.block_size;
        position / size * self.groups() + position % size / self.lanes
    }

    /// The first position of a group, counted over a sequence's blocks.
    pub(super) fn position_of(self, group: usize) -> usize {
        group / self.groups() * self.shape.block_size + group % self.groups() * self.lanes
    }

    /// Where a block's values begin.
    pub(super) fn values(self, block: usize, kv_head: usize) -> usize {
        (block * self.shape.kv_heads + kv_head) * self.values_len()
    }

    /// Bytes one block takes over all layers.
    pub(super) fn block_bytes(self) -> usize {
        let head = self.groups() * self.group_len() + self.values_len();
        self.shape.layers * self.shape.kv_heads * head * size_of::<u32>()
    }

    /// A whole cache of zeros.
    pub(super) fn allocate(self, arena: &Arena) -> Result<KvCache> {
        let heads = self.shape.blocks * self.shape.kv_heads;
        let (keys, values) = (heads * self.groups() * self.group_len(), heads * self.values_len());
        let layer = |_| match self.shape.precision {
            KvPrecision::F32 => {
                Ok(KvLayer::Pages { keys: arena.zeroed(keys)?, values: arena.zeroed(values)? })
            }
            KvPrecision::Bf16 => {
                Ok(KvLayer::Pairs { keys: arena.zeroed(keys)?, values: arena.zeroed(values)? })
            }
        };
        let layers = (0..self.shape.layers).map(layer).collect::<Result<_>>()?;
        Ok(KvCache { shape: self.shape, layers })
    }

    /// Writes the keys and values of row `t`, its last columns (`[2, kv_heads, head_dim]`), to KV row
    /// `slots[t]`.
    ///
    /// # Errors
    /// When other kernels made the cache.
    pub(super) fn write(
        self,
        machine: &Machine,
        layer: &mut KvLayer,
        (rows, cols): (&[f32], usize),
        slots: &[u32],
    ) -> Result<()> {
        match layer {
            KvLayer::Pages { keys, values } => {
                Write { layout: self, rows, cols, slots }.run(machine, keys, values);
            }
            KvLayer::Pairs { keys, values } => {
                Write { layout: self, rows, cols, slots }.run(machine, keys, values);
            }
            KvLayer::Host { .. } | KvLayer::Device { .. } => return Err(foreign()),
        }
        Ok(())
    }
}

/// Rows on their way into one layer.
#[derive(Clone, Copy)]
struct Write<'a> {
    layout: KvLayout,
    /// `[rows, cols]`
    rows: &'a [f32],
    cols: usize,
    slots: &'a [u32],
}

impl Write<'_> {
    fn run<W: Word>(&self, machine: &Machine, keys: &mut [W], values: &mut [W]) {
        let (keys, values) = (&Pieces::new(keys), &Pieces::new(values));
        let heads = self.layout.shape.kv_heads;
        let head = |head| machine.level.run(WriteHead { rows: *self, head, keys, values });
        if self.slots.len() * self.layout.shape.row() < SERIAL {
            (0..heads).for_each(head);
        } else {
            machine.pool.run(heads, &head);
        }
    }
}

struct WriteHead<'a, W> {
    rows: Write<'a>,
    head: usize,
    keys: &'a Pieces<'a, W>,
    values: &'a Pieces<'a, W>,
}

impl<W: Word> Task for WriteHead<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Write { layout, rows, cols, slots } = self.rows;
        let KvShape { block_size, kv_heads, head_dim, .. } = layout.shape;
        let row = kv_heads * head_dim;
        for (slot, kv) in slots.iter().zip(rows.chunks_exact(cols)) {
            let (k, v) = kv[cols - 2 * row..].split_at(row);
            let (block, offset) = (*slot as usize / block_size, *slot as usize % block_size);
            let from = self.head * head_dim;
            let (lane, number) = (offset % layout.lanes, offset % W::NUMBERS);
            let group = layout.group(block, self.head, offset / layout.lanes);
            // SAFETY: a head's groups belong to one item of the job, and one borrow at a time.
            let keys = unsafe { self.keys.piece(group..group + layout.group_len()) };
            let mut words = [W::default(); KEY_WORDS];
            let mut lane = keys[lane..].iter_mut().step_by(layout.lanes);
            for key in k[from..from + head_dim].chunks(KEY_WORDS * W::NUMBERS) {
                let words = &mut words[..key.len().div_ceil(W::NUMBERS)];
                W::fill(words, key);
                words.iter().zip(lane.by_ref()).for_each(|(word, to)| *to = *word);
            }
            let row = layout.values(block, self.head) + offset / W::NUMBERS * head_dim;
            // SAFETY: a head's values belong to one item of the job, and one borrow at a time.
            let values = unsafe { self.values.piece(row..row + head_dim) };
            W::set(values, number, &v[from..from + head_dim]);
        }
    }
}
