//! `x · Wᵀ + bias` in bfloat16 on tiles: one pass over a panel of weights for 16 rows.
#![expect(unsafe_code, reason = "threads write their own columns of one result")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::amx::{Ahead, Amx, Block, Place, Sums, TILE, Tiles, WIDTH};
use super::linear::{Linear, write_vector};
use super::lora_panels::{Joined, PanelDeltas, Parts};
use super::machine::{Machine, rows_per_item};
use super::pack::PackedWeight;
use super::pool::Pieces;
use super::row_tiles::{RoundInner, RoundTile};
use super::simd::{Simd, Task};
use super::spans::spans_to_the_end;
use std::ops::Range;

/// How far ahead of the product the weights are asked for.
const AHEAD_BYTES: usize = 8192;

/// Steps of 32 along `in` that many blocks take at a time: that much of a panel stays in the nearest cache meanwhile.
const NEAR_STEPS: usize = 18;

/// A cache line.
const LINE: usize = 64;

/// Below this many multiplications one thread is faster than waking another.
const SERIAL: usize = 200_000;

/// Panels that may wait for their deltas.
const LATE: usize = 64;

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
        let mut parts = self.pairs.map(|pairs| Parts::new(pairs, machine));
        let deltas = self.pairs.zip(parts.as_mut());
        let deltas =
            deltas.map(|(pairs, parts)| Joined::new(pairs, (machine, amx), (x, steps), parts));
        let (y, deltas) = (&Pieces::new(y), deltas.as_ref());
        let product = Product { amx, linear: self, steps, panels, x, y, deltas };
        let count = self.out_features.div_ceil(WIDTH);
        let begin = || product.begin();
        let end = |mut worker: Worker<'_>| product.catch_up(&mut worker);
        if self.rows * self.in_features * self.out_features < SERIAL {
            let mut worker = begin();
            (0..count).for_each(|panel| product.panel(&mut worker, panel));
            end(worker);
        } else {
            let task = |worker: &mut Worker<'_>, panel| product.panel(worker, panel);
            spans_to_the_end(&machine.pool, count, (begin, end), task);
        }
    }

    /// The rows rounded to bfloat16, `TILE` at a time: `[steps, rows, TILE]` pairs.
    fn round_to_tiles(&self, machine: &Machine, amx: Amx, steps: usize, to: &mut [u32]) {
        let (width, between) = (self.row_width(), self.between);
        let rows = rows_per_item(width).next_multiple_of(TILE);
        machine.pool.chunks(to, rows * steps, |index, to| {
            let x = &self.x[index * rows * width..];
            for (x, to) in x.chunks(TILE * width).zip(to.chunks_mut(TILE * steps)) {
                let height = to.len() / steps;
                let tile = RoundTile { x, width, height, to };
                amx.pairs.vectorize(RoundInner { tile, between });
            }
        });
    }
}

/// What a thread needs for its panels.
struct Worker<'a> {
    tiles: Tiles,
    sums: [Sums; 2],
    deltas: Option<PanelDeltas<'a>>,
    /// Panels whose deltas were not there yet.
    late: [usize; LATE],
    late_count: usize,
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
    deltas: Option<&'a Joined<'a>>,
}

impl Product<'_> {
    /// A thread comes: before its panels it shrinks rows for the deltas, as long as there are some to shrink.
    fn begin(&self) -> Worker<'_> {
        let sums = || Sums([0.0; TILE * WIDTH]);
        let mut tiles = Tiles::new(self.amx);
        if let Some(deltas) = self.deltas {
            deltas.shrink(&mut tiles);
        }
        let deltas = self.deltas.map(Joined::panels);
        Worker { tiles, sums: [sums(), sums()], deltas, late: [0; LATE], late_count: 0 }
    }

    /// Adds to a thread's panels what was not there in their time, and waits for it if others are still at it.
    fn catch_up(&self, worker: &mut Worker<'_>) {
        let late = &worker.late[..std::mem::take(&mut worker.late_count)];
        if let (Some(joined), Some(deltas), [_, ..]) = (self.deltas, &mut worker.deltas, late) {
            joined.wait();
            for panel in late {
                deltas.add(&mut worker.tiles, panel * WIDTH, self.y);
            }
        }
    }

    /// All rows of a panel's columns.
    fn panel(&self, worker: &mut Worker<'_>, panel: usize) {
        if worker.late_count == LATE {
            self.catch_up(worker);
        }
        let late = self.deltas.is_some_and(|deltas| !deltas.are_there());
        if late {
            worker.late[worker.late_count] = panel;
            worker.late_count += 1;
        }
        let columns = panel * WIDTH..((panel + 1) * WIDTH).min(self.linear.out_features);
        if columns.len() < WIDTH || self.steps == 0 {
            self.sums_and_bias(worker, panel, &columns);
        } else {
            let mut deltas = worker.deltas.as_mut().filter(|_| !late);
            if let Some(deltas) = &mut deltas {
                deltas.turn_to(columns.start);
            }
            self.sums_in_place(&mut worker.tiles, panel, (columns.start, deltas));
        }
    }

    /// Tiles begin with what is there, or with the bias, and go to the result as they are.
    ///
    /// Many blocks take a part of the panel after the other, each from where the part before left the result: the same
    /// terms in the same order as all at once.
    fn sums_in_place(
        &self,
        tiles: &mut Tiles,
        panel: usize,
        (column, mut deltas): (usize, Option<&mut PanelDeltas<'_>>),
    ) {
        let Linear { rows, out_features: out, bias, onto, .. } = *self.linear;
        let bias = bias.map(|bias| &bias[column..][..WIDTH]);
        let (blocks, steps) = (rows.div_ceil(TILE), self.steps / TILE);
        let parts = if blocks == 1 { 1 } else { steps.div_ceil(NEAR_STEPS) };
        for part in 0..parts {
            let steps = part * steps / parts..(part + 1) * steps / parts;
            for block in 0..blocks {
                if let (Some(bias), true, 0) = (bias, onto, part) {
                    // Of the next block, for a tile that is loaded from what has just been stored waits for it.
                    let rows = if block == 0 { 0 } else { block + 1 }..block + 2;
                    self.add_bias(rows, column, bias);
                }
                let rows = block * TILE..((block + 1) * TILE).min(rows);
                let to = self
                    .y
                    .start_of(rows.start * out + column..(rows.end - 1) * out + column + WIDTH);
                let from = match bias {
                    _ if onto || part > 0 => Place::new(to.cast_const(), out),
                    Some(bias) => Place::repeated(bias),
                    None => Place::zeros(),
                };
                let product = self.block(panel, steps.clone(), (block, blocks));
                let last = deltas.as_mut().filter(|_| part + 1 == parts);
                let extras = last.map(|deltas| deltas.next_block());
                let block = Block { extras, ..product };
                // SAFETY: these rows are inside the result and its columns of one panel belong to one item of the job;
                // a bias and zeros are a panel's width.
                unsafe { tiles.add_product(&block, from, Place::new(to, out)) }
            }
        }
    }

    /// Adds a bias, a panel's width from `column` on, to what the result has in some blocks.
    fn add_bias(&self, blocks: Range<usize>, column: usize, bias: &[f32]) {
        let Linear { rows, out_features, .. } = *self.linear;
        let rows = (blocks.start * TILE).min(rows)..(blocks.end * TILE).min(rows);
        self.amx.wide.vectorize(AddBias { bias, rows, row: out_features, column, y: self.y });
    }

    /// Sums that vectors take to the result.
    ///
    /// A block's are written after the next block's product: tiles are slow on their way to memory, and
    /// until they are there nobody can read them.
    fn sums_and_bias(
        &self,
        Worker { tiles, sums, .. }: &mut Worker<'_>,
        panel: usize,
        columns: &Range<usize>,
    ) {
        let blocks = self.linear.rows.div_ceil(TILE);
        for block in 0..blocks {
            let all = 0..self.steps / TILE;
            tiles.multiply(&self.block(panel, all, (block, blocks)), &mut sums[block % 2]);
            if block > 0 {
                self.write(block - 1, columns, &sums[(block - 1) % 2]);
            }
        }
        if let Some(last) = blocks.checked_sub(1) {
            self.write(last, columns, &sums[last % 2]);
        }
    }

    /// A block's values and a panel's at some `steps` of [`STEP_VALUES`](super::row_tiles::STEP_VALUES).
    fn block(
        &self,
        panel: usize,
        steps: Range<usize>,
        (block, blocks): (usize, usize),
    ) -> Block<'_> {
        let first = block * TILE;
        let height = (self.linear.rows - first).min(TILE);
        let values = |size: usize| steps.start * size..steps.end * size;
        let rows = &self.x[first * self.steps..][..height * self.steps];
        Block {
            rows: &rows[values(height * TILE)],
            panel: &self.weights(panel)[values(WIDTH * TILE)],
            ahead: self.ahead(steps.len(), (block, blocks)),
            extras: None,
        }
    }

    fn weights(&self, panel: usize) -> &[u32] {
        let size = self.steps * WIDTH;
        &self.panels[panel * size..][..size]
    }

    /// A single block streams through the panel; several share the next panel out among them, so that it is near
    /// when all rows are through this one.
    fn ahead(&self, steps: usize, (block, blocks): (usize, usize)) -> Ahead {
        const STEP_LINES: usize = WIDTH * TILE * size_of::<u32>() / LINE;
        if blocks == 1 {
            return Ahead::Stream(AHEAD_BYTES);
        }
        let lines = STEP_LINES.div_ceil(blocks);
        let panel = self.steps / TILE * STEP_LINES;
        Ahead::Share { start: (panel + steps * block * lines) * LINE, lines }
    }

    fn write(&self, block: usize, columns: &Range<usize>, sums: &Sums) {
        let rows = block * TILE..((block + 1) * TILE).min(self.linear.rows);
        let columns = columns.clone();
        self.amx.wide.vectorize(Write { product: self, rows, columns, sums });
    }
}

/// Adds a bias to some rows of a panel's columns.
struct AddBias<'a> {
    /// [`WIDTH`] values.
    bias: &'a [f32],
    rows: Range<usize>,
    /// Values from one row to the next.
    row: usize,
    column: usize,
    y: &'a Pieces<'a, f32>,
}

impl Task for AddBias<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for row in self.rows {
            let start = row * self.row + self.column;
            // SAFETY: a row's columns of one panel belong to one item of the job.
            let y = unsafe { self.y.piece(start..start + WIDTH) };
            let lanes = y.chunks_exact_mut(S::LANES).zip(self.bias.chunks_exact(S::LANES));
            for (y, bias) in lanes {
                simd.store(simd.add(simd.load(y), simd.load(bias)), y);
            }
        }
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
