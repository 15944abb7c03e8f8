//! `x · Wᵀ + bias` in bfloat16 on tiles: one pass over a panel of weights for 16 rows.
#![expect(unsafe_code, reason = "threads write their own columns of one result")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::amx::{Ahead, Amx, Block, Place, Sums, TILE, Tiles, WIDTH};
use super::linear::{Linear, write_vector};
use super::lora_panels::Shrunk;
use super::machine::{Machine, rows_per_item};
use super::pack::PackedWeight;
use super::pool::Pieces;
use super::simd::{Simd, Task};
use super::spans::spans;
use std::ops::Range;

/// How far ahead of the product the weights are asked for.
const AHEAD_BYTES: usize = 8192;

/// A cache line.
const LINE: usize = 64;

/// Below this many multiplications one thread is faster than waking another.
const SERIAL: usize = 200_000;

/// Values of a row that one word of a tile's row holds, and that a whole step takes.
const STEP_VALUES: usize = 2 * TILE;

impl Linear<'_> {
    /// `y` is `[rows, out]`, every element of it is written.
    pub(super) fn tiled(
        &self,
        (machine, amx): (&Machine, Amx),
        weight: &PackedWeight,
        panels: &[u32],
        y: &mut [f32],
    ) {
        let mut scratch = machine.words.scratch(self.rows * weight.steps + TILE);
        let start = scratch.as_ptr().align_offset(64).min(TILE);
        let x = &mut scratch[start..][..self.rows * weight.steps];
        self.round_to_tiles(machine, amx, weight.steps, x);
        let (x, steps) = (&*x, weight.steps);
        let deltas = self.pairs.map(|pairs| Shrunk::new(pairs, (machine, amx), x, steps));
        let (y, deltas) = (&Pieces::new(y), deltas.as_ref());
        let product = Product { amx, linear: self, steps, panels, x, y, deltas };
        let count = self.out_features.div_ceil(WIDTH);
        if self.rows * self.in_features * self.out_features < SERIAL {
            let mut worker = Worker::new(amx);
            (0..count).for_each(|panel| product.panel(&mut worker, panel));
        } else {
            let new = || Worker::new(amx);
            spans(&machine.pool, count, new, |worker, panel| product.panel(worker, panel));
        }
    }

    /// The rows rounded to bfloat16, `TILE` at a time: `[steps, rows, TILE]` pairs.
    fn round_to_tiles(&self, machine: &Machine, amx: Amx, steps: usize, to: &mut [u32]) {
        let rows = rows_per_item(self.in_features).next_multiple_of(TILE);
        machine.pool.chunks(to, rows * steps, |index, to| {
            let x = &self.x[index * rows * self.in_features..];
            let tiles = x.chunks(TILE * self.in_features).zip(to.chunks_mut(TILE * steps));
            for (x, to) in tiles {
                let height = to.len() / steps;
                amx.pairs.vectorize(RoundTile { x, in_features: self.in_features, height, to });
            }
        });
    }
}

/// What a thread needs for its panels.
struct Worker {
    tiles: Tiles,
    sums: [Sums; 2],
}

impl Worker {
    fn new(amx: Amx) -> Self {
        let sums = || Sums([0.0; TILE * WIDTH]);
        Self { tiles: Tiles::new(amx), sums: [sums(), sums()] }
    }
}

/// A product whose rows are rounded.
struct Product<'a> {
    amx: Amx,
    linear: &'a Linear<'a>,
    /// Pairs of a column, a multiple of [`TILE`].
    steps: usize,
    panels: &'a [u32],
    x: &'a [u32],
    y: &'a Pieces<'a, f32>,
    deltas: Option<&'a Shrunk<'a>>,
}

impl Product<'_> {
    /// All rows of a panel's columns.
    fn panel(&self, worker: &mut Worker, panel: usize) {
        let columns = panel * WIDTH..((panel + 1) * WIDTH).min(self.linear.out_features);
        match (self.linear.bias, self.linear.onto) {
            (Some(_), true) => self.sums_and_bias(worker, panel, &columns),
            _ if columns.len() < WIDTH || self.steps == 0 => {
                self.sums_and_bias(worker, panel, &columns);
            }
            (bias, onto) => {
                let bias = bias.map(|bias| &bias[columns.clone()]);
                self.sums_in_place(&mut worker.tiles, panel, (columns.start, bias, onto));
            }
        }
        if self.deltas.is_some_and(|deltas| deltas.add(self.amx, &columns, self.y)) {
            worker.tiles.were_changed();
        }
    }

    /// Tiles begin with what is there, or with the bias, and go to the result as they are.
    fn sums_in_place(
        &self,
        tiles: &mut Tiles,
        panel: usize,
        (column, bias, onto): (usize, Option<&[f32]>, bool),
    ) {
        let out = self.linear.out_features;
        let blocks = self.linear.rows.div_ceil(TILE);
        for block in 0..blocks {
            let rows = block * TILE..((block + 1) * TILE).min(self.linear.rows);
            let to =
                self.y.start_of(rows.start * out + column..(rows.end - 1) * out + column + WIDTH);
            let from = match bias {
                _ if onto => Place::new(to.cast_const(), out),
                Some(bias) => Place::repeated(bias),
                None => Place::zeros(),
            };
            // SAFETY: these rows are inside the result and its columns of one panel belong to one item of the job; a
            // bias and zeros are a panel's width.
            unsafe {
                tiles.add_product(&self.block(panel, block, blocks), from, Place::new(to, out));
            }
        }
    }

    /// Sums that vectors take to the result.
    ///
    /// A block's are written after the next block's product: tiles are slow on their way to memory, and
    /// until they are there nobody can read them.
    fn sums_and_bias(
        &self,
        Worker { tiles, sums }: &mut Worker,
        panel: usize,
        columns: &Range<usize>,
    ) {
        let blocks = self.linear.rows.div_ceil(TILE);
        for block in 0..blocks {
            tiles.multiply(&self.block(panel, block, blocks), &mut sums[block % 2]);
            if block > 0 {
                self.write(block - 1, columns, &sums[(block - 1) % 2]);
            }
        }
        if let Some(last) = blocks.checked_sub(1) {
            self.write(last, columns, &sums[last % 2]);
        }
    }

    fn block(&self, panel: usize, block: usize, blocks: usize) -> Block<'_> {
        let height = TILE * self.steps;
        let rows = &self.x[block * height..((block + 1) * height).min(self.x.len())];
        Block { rows, panel: self.weights(panel), ahead: self.ahead(block, blocks) }
    }

    fn weights(&self, panel: usize) -> &[u32] {
        let size = self.steps * WIDTH;
        &self.panels[panel * size..][..size]
    }

    /// A single block streams through the panel; several share the next panel out among them, so that it is near
    /// when all rows are through this one.
    fn ahead(&self, block: usize, blocks: usize) -> Ahead {
        const STEP_LINES: usize = WIDTH * TILE * size_of::<u32>() / LINE;
        if blocks == 1 {
            return Ahead::Stream(AHEAD_BYTES);
        }
        let lines = STEP_LINES.div_ceil(blocks);
        let steps = self.steps / TILE;
        Ahead::Share { start: steps * (STEP_LINES + block * lines) * LINE, lines }
    }

    fn write(&self, block: usize, columns: &Range<usize>, sums: &Sums) {
        let rows = block * TILE..((block + 1) * TILE).min(self.linear.rows);
        let columns = columns.clone();
        self.amx.wide.vectorize(Write { product: self, rows, columns, sums });
    }
}

/// Takes a block's sums to the result: the one place where it is written.
struct Write<'a> {
    product: &'a Product<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
    sums: &'a Sums,
}

impl Task for Write<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let linear = self.product.linear;
        let bias = linear.bias.map(|bias| &bias[self.columns.clone()]);
        for (row, sums) in self.rows.zip(self.sums.0.as_chunks::<WIDTH>().0) {
            let start = row * linear.out_features;
            let at = start + self.columns.start..start + self.columns.end;
            // SAFETY: a row's columns of one panel belong to one item of the job.
            let y = unsafe { self.product.y.piece(at) };
            for at in (0..y.len()).step_by(S::LANES) {
                let bias = bias.map(|bias| &bias[at..]);
                let to = at..(at + S::LANES).min(y.len());
                write_vector(simd, simd.load(&sums[at..]), (bias, linear.onto), &mut y[to]);
            }
        }
    }
}

/// Up to [`TILE`] rows.
pub(super) struct RoundTile<'a> {
    pub(super) x: &'a [f32],
    pub(super) in_features: usize,
    pub(super) height: usize,
    /// `[steps, height, TILE]` pairs, all written.
    pub(super) to: &'a mut [u32],
}

impl Task for RoundTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (row, x) in self.x.chunks_exact(self.in_features).take(self.height).enumerate() {
            let words = self.to[row * TILE..].chunks_mut(self.height * TILE);
            for (x, to) in x.chunks(STEP_VALUES).zip(words) {
                let to = &mut to[..TILE];
                let (to, padding) = to.split_at_mut(x.len().div_ceil(2));
                simd.round_to_parts(x, to);
                padding.fill(0);
            }
        }
    }
}
