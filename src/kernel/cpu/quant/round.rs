//! Activations rounded to bytes, each group of a row with its own scale.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::super::rounding::round_bytes;
use super::super::buffers::Scratch;
use super::super::machine::{Machine, rows_per_item};
use super::super::simd::{Simd, Task};

/// Rows that lie together, as a tile takes them.
pub(super) const TOGETHER: usize = 16;

/// Blocks of [`TOGETHER`] rows; those that the last block lacks have scale 0.
pub(super) struct RoundedRows<'a> {
    words: Scratch<'a, u32>,
    shape: Shape,
}

/// How a block lies in its words: `[groups, TOGETHER, quads]` words of four bytes, then `[groups, TOGETHER]` scales, then
/// as many sums of the groups' bytes.
#[derive(Clone, Copy, Debug)]
struct Shape {
    groups: usize,
    /// Words of a row in a group.
    quads: usize,
}

impl Shape {
    /// Words of the bytes.
    fn bytes(self) -> usize {
        self.groups * TOGETHER * self.quads
    }

    /// Words of the scales, and of the sums.
    fn scales(self) -> usize {
        self.groups * TOGETHER
    }

    fn block(self) -> usize {
        self.bytes() + 2 * self.scales()
    }
}

/// What one row has in one group.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundedGroup<'a> {
    /// The bytes, four in a word.
    pub(super) quads: &'a [u32],
    /// What a step of them is.
    pub(super) scale: f32,
    /// Their sum.
    pub(super) sum: i32,
}

impl<'a> RoundedRows<'a> {
    /// Rounds `x` `[rows, in]` in groups of `GROUP`.
    pub(super) fn new<const GROUP: usize>(
        machine: &'a Machine,
        x: &[f32],
        in_features: usize,
    ) -> Self {
        let shape = Shape { groups: in_features.div_ceil(GROUP), quads: GROUP / 4 };
        let rows = x.len().checked_div(in_features).unwrap_or(0);
        let mut words = machine.words.scratch(rows.div_ceil(TOGETHER) * shape.block());
        let rows = rows_per_item(in_features).next_multiple_of(TOGETHER);
        machine.pool.chunks(&mut words, (rows / TOGETHER * shape.block()).max(1), |index, to| {
            let x = &x[index * rows * in_features..];
            machine.level.run(Round::<GROUP> { x, in_features, shape, to });
        });
        Self { words, shape }
    }

    /// What row `row` has in a group.
    #[inline(always)]
    pub(super) fn group(&self, row: usize, group: usize) -> RoundedGroup<'_> {
        let (block, at) = (self.block(row / TOGETHER), group * TOGETHER + row % TOGETHER);
        let (bytes, rest) = block.split_at(self.shape.bytes());
        let (scales, sums) = rest.split_at(self.shape.scales());
        RoundedGroup {
            quads: &bytes[at * self.shape.quads..][..self.shape.quads],
            scale: f32::from_bits(scales[at]),
            sum: sums[at].cast_signed(),
        }
    }

    #[inline(always)]
    fn block(&self, block: usize) -> &[u32] {
        let size = self.shape.block();
        &self.words[block * size..][..size]
    }
}

#[cfg(target_arch = "x86_64")]
impl RoundedRows<'_> {
    /// The bytes `[groups, TOGETHER, quads]` of the block in which `row` is the first, and the bits of its scales
    /// `[groups, TOGETHER]`.
    #[inline(always)]
    pub(super) fn tiles(&self, row: usize) -> (&[u32], &[[u32; TOGETHER]]) {
        let (bytes, rest) = self.block(row / TOGETHER).split_at(self.shape.bytes());
        (bytes, rest[..self.shape.scales()].as_chunks().0)
    }
}

/// Some whole blocks, or what is left of the rows.
struct Round<'a, const GROUP: usize> {
    x: &'a [f32],
    in_features: usize,
    shape: Shape,
    to: &'a mut [u32],
}

impl<const GROUP: usize> Task for Round<'_, GROUP> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let blocks = self.x.chunks(TOGETHER * self.in_features);
        for (x, to) in blocks.zip(self.to.chunks_exact_mut(self.shape.block())) {
            let (to, rest) = to.split_at_mut(self.shape.bytes());
            let (scales, sums) = rest.split_at_mut(self.shape.scales());
            if x.len() < TOGETHER * self.in_features {
                scales.fill(0);
            }
            for (row, x) in x.chunks_exact(self.in_features).enumerate() {
                for (group, x) in x.chunks(GROUP).enumerate() {
                    let (mut bytes, at) = ([0; GROUP], group * TOGETHER + row);
                    scales[at] = round_padded(x, &mut bytes).to_bits();
                    let sum: i32 = bytes.iter().map(|byte| i32::from(*byte)).sum();
                    sums[at] = sum.cast_unsigned();
                    let words = &mut to[at * (GROUP / 4)..][..GROUP / 4];
                    for (word, quad) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
                        *word = u32::from_le_bytes(quad.map(i8::cast_unsigned));
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn round_padded<const GROUP: usize>(x: &[f32], bytes: &mut [i8; GROUP]) -> f32 {
    if let Ok(whole) = x.try_into() {
        return round_bytes(whole, bytes);
    }
    let mut padded = [0.0; GROUP];
    padded[..x.len()].copy_from_slice(x);
    round_bytes(&padded, bytes)
}
