//! Keys and values in host memory: tokens side by side for the keys, `head_dim` side by side for the values.
//!
//! A score is a sum over `head_dim`, so with tokens in the lanes a vector of scores needs no sum across
//! lanes; an output is a sum over tokens, so values lie with `head_dim` in the lanes. What is summed over lies
//! in pairs of bfloat16 or quads of bytes: two or four elements of a key, two or four tokens' values.
#![expect(unsafe_code, reason = "threads write their own heads of one cache")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::kv::{KvLayer, foreign};
use super::super::{KvCache, KvPrecision, KvShape, Result};
use super::kv_words::{MOST, Quad, Word};
use super::machine::Machine;
use super::memory::{Arena, Pages};
use super::pool::Pieces;
use super::simd::{Simd, Task};
use crate::kernel::rounding::Step;
use std::ops::Range;

/// Below this many numbers one thread writes them faster than it wakes another.
const SERIAL: usize = 8_192;

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
            KvPrecision::Int8 => Quad::NUMBERS,
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

    /// Scales of one block's keys, or of its values, under one head; 0 where numbers have none.
    fn scales_len(self) -> usize {
        if self.shape.precision == KvPrecision::Int8 { self.groups() * self.lanes } else { 0 }
    }

    /// Where those begin.
    pub(super) fn scales(self, block: usize, kv_head: usize) -> usize {
        (block * self.shape.kv_heads + kv_head) * self.scales_len()
    }

    /// Bytes one block takes over all layers.
    pub(super) fn block_bytes(self) -> usize {
        let head = self.groups() * self.group_len() + self.values_len() + 2 * self.scales_len();
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
            KvPrecision::Int8 => {
                let scales = || arena.zeroed(heads * self.scales_len());
                let (keys, values) = (arena.zeroed(keys)?, arena.zeroed(values)?);
                Ok(KvLayer::Quads { keys, values, scales: [scales()?, scales()?] })
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
        let write = Write { layout: self, rows, cols, slots };
        match layer {
            KvLayer::Pages { keys, values } => write.run(machine, (keys, values), None),
            KvLayer::Pairs { keys, values } => write.run(machine, (keys, values), None),
            KvLayer::Quads { keys, values, scales } => {
                write.run(machine, (keys, values), Some(scales));
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
    fn run<W: Word>(
        &self,
        machine: &Machine,
        (keys, values): (&mut [W], &mut [W]),
        scales: Option<&mut [Pages<f32>; 2]>,
    ) {
        let (keys, values) = (&Pieces::new(keys), &Pieces::new(values));
        let scales = &scales.map(|scales| scales.each_mut().map(|scales| Pieces::new(scales)));
        let heads = self.layout.shape.kv_heads;
        let write = |heads| {
            W::write(machine.level, WriteHeads { rows: *self, heads, keys, values, scales });
        };
        if self.slots.len() * self.layout.shape.row() < SERIAL {
            write(0..heads);
        } else {
            // Neighbours lie side by side in a row.
            let items = (2 * machine.pool.threads()).min(heads);
            let start = |item: usize| item * heads / items;
            machine.pool.run(items, &|item| write(start(item)..start(item + 1)));
        }
    }
}

/// Some heads of them.
pub(super) struct WriteHeads<'a, W> {
    rows: Write<'a>,
    heads: Range<usize>,
    keys: &'a Pieces<'a, W>,
    values: &'a Pieces<'a, W>,
    /// Of the keys and of the values.
    scales: &'a Option<[Pieces<'a, f32>; 2]>,
}

impl<W: Word> Task for WriteHeads<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut first = 0;
        while first < self.rows.slots.len() {
            let count = self.together(first, S::LANES);
            for head in self.heads.clone() {
                self.keys(simd, head, first..first + count);
                self.values(simd, head, first..first + count);
            }
            first += count;
        }
    }
}

impl<W: Word> WriteHeads<'_, W> {
    /// How many rows from `first` on go to one group of keys, side by side.
    #[inline(always)]
    fn together(&self, first: usize, lanes: usize) -> usize {
        let Write { layout, slots, .. } = self.rows;
        let start = slots[first] as usize;
        let offset = start % layout.shape.block_size;
        let most = (lanes - offset % lanes).min(layout.shape.block_size - offset);
        let next = slots[first..].iter().zip(start..).take(most);
        next.take_while(|(slot, expected)| **slot as usize == *expected).count()
    }

    /// A head's part of a row's last columns: keys (0) or values (1).
    #[inline(always)]
    fn of_row(&self, row: usize, which: usize, head: usize) -> &[f32] {
        let Write { layout, rows, cols, .. } = self.rows;
        let KvShape { kv_heads, head_dim, .. } = layout.shape;
        let start = (row + 1) * cols - ((2 - which) * kv_heads - head) * head_dim;
        &rows[start..][..head_dim]
    }

    /// A row's block and its place there.
    #[inline(always)]
    fn place(&self, row: usize) -> (usize, usize) {
        let (slot, size) = (self.rows.slots[row] as usize, self.rows.layout.shape.block_size);
        (slot / size, slot % size)
    }

    #[inline(always)]
    fn keys<S: Simd>(&self, simd: S, head: usize, rows: Range<usize>) {
        let layout = self.rows.layout;
        let (block, offset) = self.place(rows.start);
        let group = layout.group(block, head, offset / S::LANES);
        // SAFETY: these heads' groups belong to one item of the job, and one borrow at a time.
        let keys = unsafe { self.keys.piece(group..group + layout.group_len()) };
        let lanes = offset % S::LANES..offset % S::LANES + rows.len();
        let mut steps = [Step::NONE; 16];
        for (row, step) in rows.clone().zip(&mut steps) {
            *step = self.step(row, 0, head);
        }
        let mut square = [[W::default(); 16]; 16];
        for (index, to) in keys.chunks_mut(16 * S::LANES).enumerate() {
            let words = to.len() / S::LANES;
            let rows = rows.clone().zip(steps);
            for ((row, step), square) in rows.zip(&mut square[lanes.clone()]) {
                let key = &self.of_row(row, 0, head)[index * 16 * W::NUMBERS..];
                let key = &key[..key.len().min(words * W::NUMBERS)];
                W::fill(simd, &mut square[..words], key, step);
            }
            W::turn(simd, &square, lanes.clone(), to);
        }
    }

    /// The rows are of one block.
    #[inline(always)]
    fn values<S: Simd>(&self, simd: S, head: usize, Range { start: mut row, end }: Range<usize>) {
        let layout = self.rows.layout;
        let dim = layout.shape.head_dim;
        let (block, first) = self.place(row);
        let first = first.wrapping_sub(row);
        while row < end {
            let offset = first.wrapping_add(row);
            let number = offset % W::NUMBERS;
            let numbers = (W::NUMBERS - number).min(end - row);
            let start = layout.values(block, head) + offset / W::NUMBERS * dim;
            // SAFETY: these heads' values belong to one item of the job, and one borrow at a time.
            let values = unsafe { self.values.piece(start..start + dim) };
            let (mut rows, mut steps) = ([&[][..]; MOST], [Step::NONE; MOST]);
            for i in 0..numbers {
                (rows[i], steps[i]) = (self.of_row(row + i, 1, head), self.step(row + i, 1, head));
            }
            W::put(simd, values, number, &rows[..numbers], &steps[..numbers]);
            row += numbers;
        }
    }

    /// What a head's part of a row's keys (0) or values (1) is rounded by; the cache notes it.
    #[inline(always)]
    fn step(&self, row: usize, which: usize, head: usize) -> Step {
        let Some(scales) = self.scales else { return Step::NONE };
        let step = Step::of(self.of_row(row, which, head));
        let (block, offset) = self.place(row);
        let at = self.rows.layout.scales(block, head) + offset;
        // SAFETY: these heads' scales belong to one item of the job, and one borrow at a time.
        let scale = unsafe { scales[which].piece(at..at + 1) };
        scale[0] = step.size;
        step
    }
}
