//! The two layouts of a group: its scales, then its weights, 32 columns side by side.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::super::rounding::{INT4_GROUP, INT8_GROUP, round_bytes, round_nibbles};
use super::dots::{Dots, LINE, Line};

/// Columns of a panel.
pub(super) const WIDTH: usize = 2 * LINE;

/// Sums of up to [`Dots::ROWS`] rows for the two lines of a panel's columns.
pub(super) type Tile<D, const ROWS: usize> = [[<D as Dots>::Sums; 2]; ROWS];

/// How the weights of a group are stored and multiplied.
pub(super) trait Format {
    /// Inputs of a group.
    const GROUP: usize;
    /// Four inputs are a word of activations; this many are in a group.
    const QUADS: usize = Self::GROUP / 4;
    /// Words a group takes in a panel.
    const WORDS: usize;
    /// What instruction sets without signed products find added to each weight.
    const BIAS: i32;

    /// Rounds the weights of one column and puts them into a group's words.
    fn pack(values: &[f32], column: usize, group: &mut [u32]);
    /// The weights of one column as they are multiplied.
    fn unpack(group: &[u32], column: usize, to: &mut [f32]);
    /// The scales of a panel's columns.
    fn scales<D: Dots>(dots: D, group: &[u32]) -> [D::Scales; 2];
    /// Adds the dots of a group: `x` is [`Format::QUADS`] words of each row.
    fn add<D: Dots, const ROWS: usize>(
        dots: D,
        tile: &mut Tile<D, ROWS>,
        group: &[u32],
        x: &[&[u32]; ROWS],
    );
}

/// A line of each half of a panel.
fn halves(words: &[u32; WIDTH]) -> [&Line; 2] {
    let (low, high) = words.split_at(LINE);
    [low, high].map(|line| line.try_into().expect("half of it is a line"))
}

/// Bytes, f32 scales: `[WIDTH]` scales, `[QUADS, WIDTH]` words of four inputs.
pub(super) struct Int8;

impl Format for Int8 {
    const GROUP: usize = INT8_GROUP;
    const WORDS: usize = WIDTH + Self::QUADS * WIDTH;
    const BIAS: i32 = 128;

    #[inline(always)]
    fn pack(values: &[f32], column: usize, group: &mut [u32]) {
        let (mut padded, mut bytes) = ([0.0; INT8_GROUP], [0; INT8_GROUP]);
        padded[..values.len()].copy_from_slice(values);
        group[column] = round_bytes(&padded, &mut bytes).to_bits();
        let words = group[WIDTH + column..].iter_mut().step_by(WIDTH);
        for (word, quad) in words.zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(quad.map(i8::cast_unsigned));
        }
    }

    fn unpack(group: &[u32], column: usize, to: &mut [f32]) {
        let scale = f32::from_bits(group[column]);
        let words = group[WIDTH + column..].iter().step_by(WIDTH);
        for (to, word) in to.chunks_mut(4).zip(words) {
            let bytes = word.to_le_bytes();
            to.iter_mut().zip(bytes).for_each(|(to, byte)| {
                *to = f32::from(byte.cast_signed()) * scale;
            });
        }
    }

    #[inline(always)]
    fn scales<D: Dots>(dots: D, group: &[u32]) -> [D::Scales; 2] {
        let words = group.first_chunk().expect("a group begins with its scales");
        halves(words).map(|line| dots.scales(line))
    }

    #[inline(always)]
    fn add<D: Dots, const ROWS: usize>(
        dots: D,
        tile: &mut Tile<D, ROWS>,
        group: &[u32],
        x: &[&[u32]; ROWS],
    ) {
        let quads = group[WIDTH..].as_chunks::<WIDTH>().0;
        for (quad, words) in quads.iter().enumerate() {
            let [low, high] = halves(words);
            let weights = [dots.bytes(low), dots.bytes(high)];
            add_quad(dots, tile, weights, x, quad);
        }
    }
}

/// Nibbles, bfloat16 scales: `[LINE]` pairs of scales, `[QUADS / 2, WIDTH]` words of twice four inputs.
pub(super) struct Int4;

impl Format for Int4 {
    const GROUP: usize = INT4_GROUP;
    const WORDS: usize = LINE + Self::QUADS / 2 * WIDTH;
    const BIAS: i32 = 8;

    #[inline(always)]
    fn pack(values: &[f32], column: usize, group: &mut [u32]) {
        let (mut padded, mut nibbles) = ([0.0; INT4_GROUP], [0; INT4_GROUP]);
        padded[..values.len()].copy_from_slice(values);
        // A bfloat16 is the upper half of an f32.
        let scale = round_nibbles(&padded, &mut nibbles).to_bits() >> 16;
        group[column % LINE] |= scale << (column / LINE * 16);
        let words = group[LINE + column..].iter_mut().step_by(WIDTH);
        for (word, eight) in words.zip(nibbles.as_chunks::<8>().0) {
            let stored = eight.map(|nibble| (nibble + 8).cast_unsigned());
            let [a, b, c, d, e, f, g, h] = stored;
            *word = u32::from_le_bytes([a | e << 4, b | f << 4, c | g << 4, d | h << 4]);
        }
    }

    fn unpack(group: &[u32], column: usize, to: &mut [f32]) {
        let scale = f32::from_bits(group[column % LINE] >> (column / LINE * 16) << 16);
        let words = group[LINE + column..].iter().step_by(WIDTH);
        for (to, word) in to.chunks_mut(8).zip(words) {
            let bytes = word.to_le_bytes();
            let nibbles = bytes.iter().map(|byte| byte & 15).chain(bytes.iter().map(|b| b >> 4));
            to.iter_mut().zip(nibbles).for_each(|(to, nibble)| {
                *to = f32::from(nibble.cast_signed() - 8) * scale;
            });
        }
    }

    #[inline(always)]
    fn scales<D: Dots>(dots: D, group: &[u32]) -> [D::Scales; 2] {
        dots.half_scales(group.first_chunk().expect("a group begins with its scales"))
    }

    #[inline(always)]
    fn add<D: Dots, const ROWS: usize>(
        dots: D,
        tile: &mut Tile<D, ROWS>,
        group: &[u32],
        x: &[&[u32]; ROWS],
    ) {
        let pairs = group[LINE..].as_chunks::<WIDTH>().0;
        for (pair, words) in pairs.iter().enumerate() {
            let [low, high] = halves(words).map(|line| dots.nibbles(line));
            add_quad(dots, tile, [low[0], high[0]], x, 2 * pair);
            add_quad(dots, tile, [low[1], high[1]], x, 2 * pair + 1);
        }
    }
}

/// Adds four inputs of each row.
#[inline(always)]
fn add_quad<D: Dots, const ROWS: usize>(
    dots: D,
    tile: &mut Tile<D, ROWS>,
    weights: [D::Weights; 2],
    x: &[&[u32]; ROWS],
    quad: usize,
) {
    for (sums, x) in tile.iter_mut().zip(x) {
        let x = x[quad];
        for (sums, weights) in sums.iter_mut().zip(weights) {
            *sums = dots.add(*sums, weights, x);
        }
    }
}
