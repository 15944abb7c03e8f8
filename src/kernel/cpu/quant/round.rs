//! Activations rounded to bytes, each group of a row with its own scale.
use super::super::super::rounding::round_bytes;
use super::super::buffers::Scratch;
use super::super::machine::{Machine, rows_per_item};
use super::super::simd::{Simd, Task};

/// Words of a cache line: rows begin at one if the first does.
const LINE: usize = 16;

/// `[rows, stride]` words: a row's quads of bytes, then its groups' scales, then the sums of their bytes.
pub(super) struct RoundedRows<'a> {
    words: Scratch<'a, u32>,
    first: usize,
    shape: Shape,
}

/// How a row of `GROUP` inputs a group lies in its words.
#[derive(Clone, Copy, Debug)]
struct Shape {
    groups: usize,
    quads: usize,
    stride: usize,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundedRow<'a> {
    /// `[groups, GROUP / 4]`
    pub(super) quads: &'a [u32],
    /// `[groups]`, bits of f32.
    scales: &'a [u32],
    /// `[groups]`
    sums: &'a [u32],
}

impl<'a> RoundedRows<'a> {
    /// Rounds `x` `[rows, in]` in groups of `GROUP`.
    pub(super) fn new<const GROUP: usize>(
        machine: &'a Machine,
        x: &[f32],
        in_features: usize,
    ) -> Self {
        let groups = in_features.div_ceil(GROUP);
        let quads = groups * GROUP / 4;
        let shape = Shape { groups, quads, stride: (quads + 2 * groups).next_multiple_of(LINE) };
        let rows = x.len().checked_div(in_features).unwrap_or(0);
        // Tiles load whole lines: the first row begins at one.
        let mut words = machine.words.scratch(rows * shape.stride + LINE);
        let first = words.as_ptr().align_offset(LINE * size_of::<u32>()).min(LINE);
        let chunk = rows_per_item(in_features);
        let to = &mut words[first..][..rows * shape.stride];
        machine.pool.chunks(to, (chunk * shape.stride).max(1), |index, to| {
            let x = &x[index * chunk * in_features..];
            machine.level.run(Round::<GROUP> { x, in_features, shape, to });
        });
        Self { words, first, shape }
    }

    /// Row `row`.
    pub(super) fn row(&self, row: usize) -> RoundedRow<'_> {
        let Shape { groups, quads, stride } = self.shape;
        let row = &self.words[self.first + row * stride..][..stride];
        let (quads, rest) = row.split_at(quads);
        RoundedRow { quads, scales: &rest[..groups], sums: &rest[groups..2 * groups] }
    }
}

#[cfg(target_arch = "x86_64")]
impl RoundedRows<'_> {
    /// The quads of one group of row `row`, and how many bytes later the next row's are.
    pub(super) fn group(&self, row: usize, group: usize, quads: usize) -> (&[u32], usize) {
        let row = self.row(row).quads;
        (&row[group * quads..][..quads], self.shape.stride * size_of::<u32>())
    }
}

impl RoundedRow<'_> {
    /// What a step of a group's bytes is.
    pub(super) fn scale(&self, group: usize) -> f32 {
        f32::from_bits(self.scales[group])
    }

    /// The sum of a group's bytes.
    pub(super) fn sum(&self, group: usize) -> i32 {
        self.sums[group].cast_signed()
    }
}

/// Some rows.
struct Round<'a, const GROUP: usize> {
    x: &'a [f32],
    in_features: usize,
    shape: Shape,
    to: &'a mut [u32],
}

impl<const GROUP: usize> Task for Round<'_, GROUP> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "compiled with the caller's instruction set")]
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Shape { groups, quads, stride } = self.shape;
        let rows = self.x.chunks_exact(self.in_features);
        for (x, to) in rows.zip(self.to.chunks_exact_mut(stride)) {
            let (to, rest) = to.split_at_mut(quads);
            let (scales, sums) = rest.split_at_mut(groups);
            for (group, x) in x.chunks(GROUP).enumerate() {
                let mut bytes = [0; GROUP];
                scales[group] = round_padded(x, &mut bytes).to_bits();
                let sum: i32 = bytes.iter().map(|byte| i32::from(*byte)).sum();
                sums[group] = sum.cast_unsigned();
                let words = &mut to[group * (GROUP / 4)..][..GROUP / 4];
                for (word, quad) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *word = u32::from_le_bytes(quad.map(i8::cast_unsigned));
                }
            }
        }
    }
}

#[expect(clippy::inline_always, reason = "compiled with the caller's instruction set")]
#[inline(always)]
fn round_padded<const GROUP: usize>(x: &[f32], bytes: &mut [i8; GROUP]) -> f32 {
    if let Ok(whole) = x.try_into() {
        return round_bytes(whole, bytes);
    }
    let mut padded = [0.0; GROUP];
    padded[..x.len()].copy_from_slice(x);
    round_bytes(&padded, bytes)
}
