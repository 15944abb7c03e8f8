//! `x · Wᵀ + bias` of rounded rows and rounded weights.
//!
//! A panel's groups are read one after the other, once for a block of rows; the sums of the block stay in the
//! nearest cache, the dots of a few rows in registers.
#![expect(unsafe_code, reason = "threads write their own columns of one result")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::super::rounding::{INT4_GROUP, INT8_GROUP};
use super::super::linear::Linear;
use super::super::machine::Machine;
use super::super::pool::Pieces;
use super::super::spans::spans;
use super::arithmetic::Arithmetic;
use super::dots::{Dots, LINE, Work};
use super::format::{Format, Int4, Int8, Tile, WIDTH};
use super::pack::{Kind, QuantWeight};
use super::round::{RoundedRows, TOGETHER};
#[cfg(target_arch = "x86_64")]
use super::tiles::{ByteTiles, TileFormat, Worker};
use std::marker::PhantomData;
use std::ops::Range;

#[cfg(not(target_arch = "x86_64"))]
use super::format::Format as TileFormat;

/// Rows that share one pass over a panel.
pub(super) const BLOCK: usize = 32;

/// Words of a panel to ask for in advance: the hardware stops at each page.
pub(super) const AHEAD: usize = 1024;

/// Below this many multiplications one thread is faster than waking another.
const SERIAL: usize = 200_000;

/// The sums of a block's rows.
pub(super) type Sums = [[f32; WIDTH]; BLOCK];

impl QuantWeight {
    /// `y` is `[rows, out]`, every element of it is written.
    pub(in super::super) fn multiply(&self, linear: &Linear<'_>, machine: &Machine, y: &mut [f32]) {
        let (x, k) = (linear.x, linear.in_features);
        match self.kind {
            Kind::Int8 => {
                let x = RoundedRows::new::<INT8_GROUP>(machine, x, k);
                Product::<Int8>::new(linear, self, &x, y).run(machine);
            }
            Kind::Int4 => {
                let x = RoundedRows::new::<INT4_GROUP>(machine, x, k);
                Product::<Int4>::new(linear, self, &x, y).run(machine);
            }
        }
    }
}

/// A product whose operands are rounded.
pub(super) struct Product<'a, F> {
    linear: &'a Linear<'a>,
    words: &'a [u32],
    pub(super) x: &'a RoundedRows<'a>,
    y: Pieces<'a, f32>,
    format: PhantomData<F>,
}

impl<'a, F: TileFormat + Sync> Product<'a, F> {
    fn new(
        linear: &'a Linear<'a>,
        weight: &'a QuantWeight,
        x: &'a RoundedRows<'a>,
        y: &'a mut [f32],
    ) -> Self {
        Self { linear, words: &weight.words, x, y: Pieces::new(y), format: PhantomData }
    }

    fn run(&self, machine: &Machine) {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = ByteTiles::of(machine.level, self.linear.rows) {
            let groups = self.linear.in_features.div_ceil(F::GROUP);
            let new = || Worker::<F>::new(token, machine, groups);
            return self.share(machine, new, |worker, panel, rows| worker.panel(self, panel, rows));
        }
        let arithmetic = Arithmetic::of(machine.level);
        let part = |(), panel, rows| arithmetic.run(Part { product: self, panel, rows });
        self.share(machine, || (), |&mut state, panel, rows| part(state, panel, rows));
    }

    /// Calls `task` with each panel and all rows of it, perhaps in parts, on all threads if it is worth it.
    fn share<S>(
        &self,
        machine: &Machine,
        state: impl Fn() -> S + Sync,
        task: impl Fn(&mut S, usize, Range<usize>) + Sync,
    ) {
        let Linear { rows, in_features, out_features, .. } = *self.linear;
        let panels = out_features.div_ceil(WIDTH);
        let cuts = self.cuts(machine, panels);
        let height = rows.div_ceil(cuts).next_multiple_of(TOGETHER);
        let item = |state: &mut S, item: usize| {
            let (panel, cut) = (item / cuts, item % cuts);
            task(state, panel, (cut * height).min(rows)..((cut + 1) * height).min(rows));
        };
        if rows * in_features * out_features < SERIAL {
            let mut state = state();
            (0..panels * cuts).for_each(|index| item(&mut state, index));
        } else {
            spans(&machine.pool, panels * cuts, state, item);
        }
    }

    /// Into how many parts the rows are cut, so that few panels still keep all threads busy.
    fn cuts(&self, machine: &Machine, panels: usize) -> usize {
        let wanted = (4 * machine.pool.threads()).div_ceil(panels.max(1));
        wanted.clamp(1, self.linear.rows.div_ceil(BLOCK).max(1))
    }

    /// Takes the sums of some rows to the result, from column `first` on as many as there are.
    #[inline(always)]
    pub(super) fn write<const N: usize>(
        &self,
        first: usize,
        rows: Range<usize>,
        sums: &[[f32; N]],
    ) {
        let Linear { out_features, bias, onto, .. } = *self.linear;
        let columns = first.min(out_features)..(first + N).min(out_features);
        let bias = bias.map(|bias| padded::<N>(&bias[columns.clone()]));
        for (row, sums) in rows.zip(sums) {
            let at = row * out_features;
            // SAFETY: a row's columns of one panel belong to one item of the job.
            let y = unsafe { self.y.piece(at + columns.start..at + columns.end) };
            let mut line = *sums;
            if let Some(bias) = &bias {
                line.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
            }
            // A whole line is a few vectors.
            if let Ok(y) = <&mut [f32; N]>::try_from(&mut *y) {
                if onto {
                    line.iter_mut().zip(&*y).for_each(|(sum, y)| *sum += y);
                }
                *y = line;
            } else {
                for (y, sum) in y.iter_mut().zip(line) {
                    *y = if onto { *y + sum } else { sum };
                }
            }
        }
    }

    /// The groups of a panel.
    #[inline(always)]
    pub(super) fn groups(&self, panel: usize) -> impl ExactSizeIterator<Item = &'a [u32]> + Clone {
        let size = self.linear.in_features.div_ceil(F::GROUP) * F::WORDS;
        self.words[panel * size..][..size].chunks_exact(F::WORDS)
    }
}

/// One panel against some rows.
struct Part<'a, F> {
    product: &'a Product<'a, F>,
    panel: usize,
    rows: Range<usize>,
}

impl<F: TileFormat + Sync> Work for Part<'_, F> {
    #[inline(always)]
    fn run<D: Dots>(self, dots: D) {
        let mut sums: Sums = [[0.0; WIDTH]; BLOCK];
        let mut start = self.rows.start;
        while start < self.rows.end {
            let rows = start..(start + BLOCK).min(self.rows.end);
            start = rows.end;
            let sums = &mut sums[..rows.len()];
            sums.fill([0.0; WIDTH]);
            for (index, words) in self.product.groups(self.panel).enumerate() {
                for line in words.as_chunks::<LINE>().0 {
                    dots.prefetch(line, AHEAD);
                }
                let group = Group::<F> { words, index, x: self.product.x, format: PhantomData };
                group.add(dots, rows.clone(), sums);
            }
            self.product.write(self.panel * WIDTH, rows, sums);
        }
    }
}

/// One group of a panel.
struct Group<'a, F> {
    words: &'a [u32],
    index: usize,
    x: &'a RoundedRows<'a>,
    format: PhantomData<F>,
}

impl<F: Format> Group<'_, F> {
    /// Adds the group to the sums of `rows`, a few at a time.
    #[inline(always)]
    fn add<D: Dots>(&self, dots: D, rows: Range<usize>, sums: &mut [[f32; WIDTH]]) {
        let tiles = rows.len().div_ceil(D::ROWS).max(1);
        let (height, taller) = (rows.len() / tiles, rows.len() % tiles);
        let mut done = 0;
        for tile in 0..tiles {
            let height = height + usize::from(tile < taller);
            let (row, sums) = (rows.start + done, &mut sums[done..]);
            match height {
                1 => self.tile::<D, 1>(dots, row, sums),
                2 => self.tile::<D, 2>(dots, row, sums),
                3 => self.tile::<D, 3>(dots, row, sums),
                4 => self.tile::<D, 4>(dots, row, sums),
                5 => self.tile::<D, 5>(dots, row, sums),
                6 => self.tile::<D, 6>(dots, row, sums),
                7 => self.tile::<D, 7>(dots, row, sums),
                8 => self.tile::<D, 8>(dots, row, sums),
                _ => {}
            }
            done += height;
        }
    }

    #[inline(always)]
    fn tile<D: Dots, const ROWS: usize>(&self, dots: D, first: usize, sums: &mut [[f32; WIDTH]]) {
        let mut rows = [self.x.group(first, self.index); ROWS];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = self.x.group(first + r, self.index);
        }
        let mut tile: Tile<D, ROWS> = rows.map(|row| [dots.start(F::BIAS, row.sum); 2]);
        let x = rows.map(|row| row.quads);
        F::add(dots, &mut tile, self.words, &x);
        let scales = F::scales(dots, self.words);
        for ((row, dots_of), sums) in rows.iter().zip(tile).zip(sums) {
            for ((to, part), scales) in sums.as_chunks_mut().0.iter_mut().zip(dots_of).zip(scales) {
                dots.add_scaled(to, part, row.scale, scales);
            }
        }
    }
}

/// Filled up with zeros.
#[inline(always)]
fn padded<const N: usize>(values: &[f32]) -> [f32; N] {
    let mut padded = [0.0; N];
    padded[..values.len()].copy_from_slice(values);
    padded
}
