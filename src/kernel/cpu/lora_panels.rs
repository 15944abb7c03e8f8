//! Deltas that join the base's product: the rows are rounded once for both, and a block of the result has its deltas
//! before it leaves the registers.
//!
//! The same terms in the same order as by themselves (`lora_tiles`), so the way may be chosen by what is in a batch.
#![expect(unsafe_code, reason = "pieces, and a panel's columns, belong to one thread")]
use super::super::RowSegment;
use super::amx::{Amx, Place, TILE, Tiles, WIDTH};
use super::buffers::Scratch;
use super::extras::{ExtraList, Extras};
use super::lora::{AddLora, disjoint};
use super::lora_tiles::{RowTiles, TilePair, Weigh};
use super::machine::Machine;
use super::pool::Pieces;
use super::simd::Simd;
use std::hint::spin_loop;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::yield_now;

impl AddLora<'_> {
    /// Whether there are pairs, and all can join the product: they are tiles over whole panels.
    ///
    /// A row of several segments gets its deltas in the order of those, so then none may join. Nor may a pair with a
    /// value that is not finite: rows of others would get it times 0.
    pub(super) fn fits_panels(&self) -> bool {
        let mut pairs = self.used(self.segments).map(|(_, pair)| TilePair::of(pair)).peekable();
        let whole = |columns: &Range<usize>| {
            columns.start.is_multiple_of(WIDTH) && columns.len().is_multiple_of(WIDTH)
        };
        pairs.peek().is_some()
            && pairs.all(|pair| pair.is_some_and(TilePair::is_finite))
            && disjoint(self.segments) == self.segments.len()
            && self.targets.iter().all(|target| whole(&target.columns))
    }

    /// The rows of a block of [`TILE`].
    fn block(&self, block: usize) -> Range<usize> {
        block * TILE..((block + 1) * TILE).min(self.rows)
    }
}

/// Rows of a segment that lie in one block of [`TILE`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Piece {
    segment: u32,
    block: u32,
    start: u32,
    end: u32,
}

impl Piece {
    fn rows(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// In the order of the rows.
fn pieces(segments: &[RowSegment]) -> impl Iterator<Item = Piece> {
    segments.iter().enumerate().flat_map(|(segment, RowSegment { rows, .. })| {
        let (start, end) = (rows.start, rows.end);
        let blocks = if rows.is_empty() { 0..0 } else { start / TILE..end.div_ceil(TILE) };
        blocks.map(move |block| {
            let (start, end) = ((block * TILE).max(start), ((block + 1) * TILE).min(end));
            let [segment, block, start, end] = [segment, block, start, end].map(|at| at as u32);
            Piece { segment, block, start, end }
        })
    })
}

/// Deltas on their way into a product.
///
/// The threads of the product first shrink the rows, a piece after the other at each target. Who finds nothing left to
/// shrink begins with the product, and adds to what it has done before the last piece was there in the end.
pub(super) struct Joined<'a> {
    lora: &'a AddLora<'a>,
    machine: &'a Machine,
    amx: Amx,
    /// `[blocks, steps, rows, TILE]` pairs.
    x: &'a [u32],
    steps: usize,
    pieces: Scratch<'a, Piece>,
    /// What they are shrunk to: `[targets, pieces, TILE, pairs]`, a whole block each, the rows of other pieces zeros.
    parts: Pieces<'a, u32>,
    pairs: usize,
    /// Items that somebody has taken, and those that are done.
    taken: AtomicUsize,
    done: AtomicUsize,
}

/// Where they are shrunk to.
pub(super) struct Parts<'a> {
    words: Scratch<'a, u32>,
    pairs: usize,
}

impl<'a> Parts<'a> {
    pub(super) fn new(lora: &AddLora<'_>, machine: &'a Machine) -> Self {
        let shapes =
            lora.used(lora.segments).filter_map(|(_, pair)| Some(TilePair::of(pair)?.shape));
        let pairs = TILE * shapes.map(|shape| shape.parts).max().unwrap_or(0);
        let items = pieces(lora.segments).count() * lora.targets.len();
        Self { words: machine.words.scratch(items * TILE * pairs), pairs }
    }
}

impl<'a> Joined<'a> {
    /// Of the rows `x` `[blocks, steps, rows, TILE]` pairs.
    pub(super) fn new(
        lora: &'a AddLora<'a>,
        (machine, amx): (&'a Machine, Amx),
        (x, steps): (&'a [u32], usize),
        parts: &'a mut Parts<'_>,
    ) -> Self {
        let mut all = machine.pieces.scratch(pieces(lora.segments).count());
        all.iter_mut().zip(pieces(lora.segments)).for_each(|(to, piece)| *to = piece);
        let (pairs, parts) = (parts.pairs, Pieces::new(&mut parts.words));
        let (taken, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { lora, machine, amx, x, steps, pieces: all, parts, pairs, taken, done }
    }

    /// Pieces at targets.
    fn items(&self) -> usize {
        self.pieces.len() * self.lora.targets.len()
    }

    /// Shrinks what nobody has taken yet.
    pub(super) fn shrink(&self, tiles: &mut Tiles) {
        /// Counts an item, also when it panics: nobody may wait for it then.
        struct Done<'a>(&'a AtomicUsize);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Release);
            }
        }
        let shapes = self.lora.used(self.lora.segments).filter_map(|(_, pair)| TilePair::of(pair));
        let most = shapes.map(|pair| pair.shape.shrunk()).max().unwrap_or(0);
        let mut sums = self.machine.floats.scratch(TILE * most);
        loop {
            let item = self.taken.fetch_add(1, Ordering::Relaxed);
            if item >= self.items() {
                break;
            }
            let done = Done(&self.done);
            self.shrink_piece(tiles, item, &mut sums);
            drop(done);
        }
    }

    /// What an item's rows meet.
    fn held(&self, item: usize) -> Option<&'a TilePair> {
        let targets = &self.lora.targets;
        let piece = self.pieces.get(item / targets.len())?;
        let segment = &self.lora.segments[piece.segment as usize];
        self.lora.held_tiles(&targets[item % targets.len()], segment)
    }

    /// All targets of some rows, then those of the next.
    fn shrink_piece(&self, tiles: &mut Tiles, item: usize, sums: &mut [f32]) {
        let targets = self.lora.targets.len();
        let (target, index) = (item % targets, item / targets);
        let piece = self.pieces[index];
        let segment = &self.lora.segments[piece.segment as usize];
        let Some(pair) = self.held(item) else { return };
        let (rows, block) = (piece.rows(), self.lora.block(piece.block as usize));
        let (start, end) = (rows.start - block.start, rows.end - block.start);
        let shape = pair.shape;
        tiles.lay_out(rows.len(), 0);
        let words = &self.x[block.start * self.steps + start * TILE..block.end * self.steps];
        let sums = &mut sums[..rows.len() * shape.shrunk()];
        // The blocks of a long segment find its factors in the cache.
        let streams = segment.rows.len() <= TILE;
        tiles.shrink(RowTiles { words, block: block.len() }, pair, streams, sums);
        if let (Some(next), true) = (self.held(item + self.machine.pool.threads()), streams) {
            next.bring();
        }
        // SAFETY: a piece at a target is one item, which one thread has taken.
        let to = unsafe { self.parts.piece(self.place(target, index)) };
        to.fill(0);
        let (to, pairs) = (&mut to[start * self.pairs..end * self.pairs], self.pairs);
        self.amx.pairs.vectorize(Weigh { weight: segment.weight, from: sums, to, pairs, shape });
    }

    /// What a piece is shrunk to at a target.
    fn place(&self, target: usize, piece: usize) -> Range<usize> {
        let (at, size) = (target * self.pieces.len() + piece, TILE * self.pairs);
        at * size..(at + 1) * size
    }

    /// Whether all is shrunk.
    pub(super) fn are_there(&self) -> bool {
        self.done.load(Ordering::Acquire) == self.items()
    }

    /// Until all is shrunk.
    pub(super) fn wait(&self) {
        const TRIES: usize = 200;
        while !self.are_there() {
            (0..TRIES).for_each(|_| spin_loop());
            yield_now();
        }
    }

    /// For a thread that goes from panel to panel.
    pub(super) fn panels(&self) -> PanelDeltas<'_> {
        let blocks = self.lora.rows.div_ceil(TILE);
        let extras = ExtraList::new(self.machine, self.pieces.len(), blocks);
        PanelDeltas { joined: self, blocks, target: None, extras }
    }
}

/// The deltas of a panel, block by block, and then those of another.
pub(super) struct PanelDeltas<'a> {
    joined: &'a Joined<'a>,
    blocks: usize,
    /// The panel's target: the extras are those of its pairs.
    target: Option<usize>,
    /// Not made anew for each panel, for loads of tiles wait for stores that might concern them.
    extras: ExtraList<'a>,
}

impl PanelDeltas<'_> {
    /// Turns to the panel from `column` on; none may be asked for before [all are there](Joined::are_there).
    pub(super) fn turn_to(&mut self, column: usize) {
        let targets = self.joined.lora.targets;
        let target = targets.iter().position(|target| target.columns.contains(&column));
        if self.target != target {
            self.target = target;
            self.extras.clear();
            if let Some(target) = target {
                self.list(target);
            }
        }
        let tile = target.map_or(0, |at| (column - targets[at].columns.start) / TILE);
        self.extras.turn_to(tile);
    }

    /// Those of the next block; they come in order.
    pub(super) fn next_block(&mut self) -> Extras<'_> {
        self.extras.next_block()
    }

    /// Lists what the blocks get at a target.
    fn list(&mut self, target: usize) {
        let joined = self.joined;
        let (lora, pairs) = (joined.lora, joined.pairs);
        let mut rest = joined.pieces.iter().enumerate().peekable();
        for block in 0..self.blocks {
            while let Some((index, piece)) = rest.next_if(|(_, p)| p.block as usize <= block) {
                let segment = &lora.segments[piece.segment as usize];
                if let Some(pair) = lora.held_tiles(&lora.targets[target], segment) {
                    // SAFETY: all is shrunk, and nobody writes there any more.
                    let parts = unsafe { joined.parts.finished(joined.place(target, index)) };
                    let (half, products) = (pair.shape.column_tile(), pair.shape.parts);
                    // A segment's first rows bring it in for the others.
                    let far = piece.start as usize == segment.rows.start;
                    self.extras.push((parts, pairs), (pair.b(), half), products, far);
                }
            }
            self.extras.end_block();
        }
    }

    /// Adds all of a panel's, whose columns nobody else has.
    pub(super) fn add(&mut self, tiles: &mut Tiles, column: usize, y: &Pieces<'_, f32>) {
        self.turn_to(column);
        let (lora, out) = (self.joined.lora, self.joined.lora.out_features);
        for block in 0..self.blocks {
            let rows = lora.block(block);
            let extras = self.next_block();
            let to = y.start_of(rows.start * out + column..(rows.end - 1) * out + column + WIDTH);
            if !extras.is_empty() {
                // SAFETY: these rows and columns are inside the result, and the panel belongs to one thread.
                unsafe { tiles.add_extras(rows.len(), extras, Place::new(to, out)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        Act, CpuKernels, Isa, Kernels, LinearDelta, LoraTarget, LowRank, Precision,
    };
    use candle_core::{Device, Tensor};

    fn segment(rows: Range<usize>) -> RowSegment {
        RowSegment { rows, slot: 0, weight: 1.0 }
    }

    #[test]
    fn a_piece_lies_in_one_block() {
        let segments = [segment(3..40), segment(40..40), segment(41..43), segment(64..96)];
        let cut: Vec<_> = pieces(&segments).map(|piece| (piece.block, piece.rows())).collect();
        let all = [(0, 3..16), (1, 16..32), (2, 32..40), (2, 41..43), (4, 64..80), (5, 80..96)];
        assert_eq!(cut, all);
    }

    #[test]
    fn finite_pairs_over_whole_panels_fit() {
        if !Isa::Amx.available() {
            return;
        }
        let kernels = CpuKernels::with_isa(1, Isa::Amx).unwrap();
        let factor = |value: f32, out| Tensor::full(value, (4, out), &Device::Cpu).unwrap();
        let held = |value, precision| -> [Option<LinearDelta>; 1] {
            let pair = LowRank::new(factor(value, 8), factor(value, 64)).unwrap();
            [Some(kernels.load_low_rank(&pair, precision).unwrap().into())]
        };
        let (tiles, rows) = (held(0.0, Precision::Bf16), held(0.0, Precision::F32));
        let endless = held(f32::MAX, Precision::Bf16);
        let (x, y) =
            (kernels.upload(&[0.0; 800], 100, 8), kernels.upload(&vec![0.0; 9600], 100, 96));
        let (x, y): (Act, Act) = (x.unwrap(), y.unwrap());
        let fits = |columns, slots, segments: &[RowSegment]| {
            let targets = [LoraTarget { columns, slots }];
            AddLora::new(&x, &y, &targets, segments).unwrap().fits_panels()
        };
        let segments = [segment(0..3), segment(30..100)];
        assert!(fits(32..96, &tiles, &segments));
        assert!(!fits(16..80, &tiles, &segments), "panels are not cut");
        assert!(!fits(32..96, &rows, &segments), "pairs in rows have no tiles");
        assert!(!fits(32..96, &endless, &segments), "times 0 it is something");
        assert!(!fits(32..96, &tiles, &[]), "nothing");
        assert!(!fits(32..96, &tiles, &[segment(0..70), segment(60..100)]), "a mix");
    }
}
