//! Paged causal attention: what is computed by whom.
//!
//! Positions fall into chunks with fixed bounds. A chunk gives a row its greatest score, a sum and a sum of
//! values, each formed in the order of the positions, and the chunks are merged in their order: the same bits
//! whether the row came in a prompt, in a piece of one, or alone, and whether one thread took all chunks or
//! several shared them (Dao et al. 2023, "Flash-Decoding").
#![expect(unsafe_code, reason = "threads write their own heads and chunks of one result")]
use super::super::args::{AttentionArgs, SequenceArgs};
use super::attend::{Attend, Fold, Goal, memory};
use super::kv::KvLayout;
use super::kv_words::Word;
use super::machine::Machine;
use super::memory::Pages;
use super::partial;
use super::pool::Pieces;
use std::cmp::Reverse;
use std::ops::Range;
use std::slice::from_ref;

/// Queries (a row under one head) that use a piece of the keys and values while it is in the cache.
pub(super) const QUERIES: usize = 16;
/// Positions of a chunk, rounded to blocks: keys and values of one head stay in the nearest cache.
const CHUNK: usize = 256;
/// Below this many scores one thread is faster than waking another.
const SERIAL: usize = 1_000;
/// With fewer units for each thread than this, chunks are shared out one by one.
const UNITS: usize = 4;
/// Units that go through their only chunk side by side, at most.
pub(super) const TOGETHER: usize = 4;
/// Scores that those have at most: they stay in the nearest cache.
const NEAR: usize = 8192;

/// The operands, checked by the caller.
pub(super) struct Attention<'a, W> {
    /// `[rows, q_cols]`, the queries first.
    pub(super) q: &'a [f32],
    pub(super) q_cols: usize,
    pub(super) keys: &'a [W],
    pub(super) values: &'a [W],
    /// What a step of each token's keys is, and of its values, where they are counted in steps.
    pub(super) scales: Option<&'a [Pages<f32>; 2]>,
    pub(super) layout: KvLayout,
    pub(super) args: AttentionArgs<'a>,
}

/// Up to [`QUERIES`] of a sequence's queries under one key/value head, counted row by row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unit {
    sequence: u32,
    kv_head: u32,
    start: u32,
    end: u32,
}

impl Unit {
    /// The keys and values it reads: of which sequence, under which head.
    fn head(self) -> (u32, u32) {
        (self.sequence, self.kv_head)
    }
}

/// A [`Unit`] with what it reads.
#[derive(Clone)]
pub(super) struct Piece<'a, W> {
    pub(super) attention: &'a Attention<'a, W>,
    pub(super) sequence: SequenceArgs<'a>,
    pub(super) kv_head: usize,
    /// [`Attention::sharing`]
    sharing: usize,
    queries: Range<usize>,
}

impl<W: Word> Attention<'_, W> {
    /// `out` is `[rows, heads * head_dim]`, every element of it is written.
    pub(super) fn run(&self, machine: &Machine, out: &mut [f32]) {
        let mut units = machine.units.scratch(self.count());
        self.list(&mut units);
        let longest = self.args.context_lens.iter().copied().max().unwrap_or(0) as usize;
        let serial = out.len() / self.layout.shape.head_dim * longest < SERIAL;
        let out = Pieces::new(out);
        let chunks: usize = units.iter().map(|unit| self.piece(*unit).chunks().len()).sum();
        let threads = machine.pool.threads();
        if threads > 1 && units.len() < UNITS * threads && chunks > units.len() {
            self.run_chunks(machine, &units, chunks, &out);
        } else {
            self.run_units(machine, &units, serial, &out);
        }
    }

    /// Each unit from its first chunk to its last by one thread.
    fn run_units(&self, machine: &Machine, units: &[Unit], serial: bool, out: &Pieces<'_, f32>) {
        // A few items for each thread: what one has left at the end is short, and memory is asked for seldom.
        let batch = units.len().div_ceil(8 * machine.pool.threads()).max(1);
        let most = W::together(machine.level, self);
        let run = |index: usize| {
            let mut memory = machine.floats.scratch(most * memory(self));
            let mut words = machine.words.scratch(most * W::words(self));
            let last = ((index + 1) * batch).min(units.len());
            let mut rest = &units[index * batch..last];
            let mut before = None;
            while let Some(unit) = rest.first() {
                let (pieces, count) = self.together(&rest[..most.min(rest.len())]);
                let (goal, pieces) = (Goal::Output(out), &pieces[..count]);
                let (chunks, memory, words) = (pieces[0].chunks(), &mut memory[..], &mut words[..]);
                let again = before.replace(unit.head()) == Some(unit.head());
                W::attend(machine.level, Attend { pieces, chunks, memory, words, again, goal });
                rest = &rest[count..];
            }
        };
        let items = units.len().div_ceil(batch);
        if serial {
            (0..items).for_each(run);
        } else {
            machine.pool.run(items, &run);
        }
    }

    /// Each chunk by whoever is free, then all that belongs together folded by the caller.
    fn run_chunks(&self, machine: &Machine, units: &[Unit], chunks: usize, out: &Pieces<'_, f32>) {
        let len = partial::len(self.layout.shape.head_dim);
        let mut partials = machine.floats.scratch(chunks * len);
        let shared = Pieces::new(&mut partials);
        machine.pool.run(chunks, &|index| {
            let (piece, chunk) = self.nth_chunk(units, index);
            let mut memory = machine.floats.scratch(memory(self));
            let mut words = machine.words.scratch(W::words(self));
            // SAFETY: every item has its own range, and no item runs twice.
            let to = unsafe { shared.piece(index * len..(index + 1) * len) };
            let (pieces, chunks, goal) = (from_ref(&piece), chunk..chunk + 1, Goal::Partial(to));
            let (memory, words, again) = (&mut memory[..], &mut words[..], false);
            W::attend(machine.level, Attend { pieces, chunks, memory, words, again, goal });
        });
        let mut rest = &mut partials[..];
        for unit in units {
            let piece = &self.piece(*unit);
            let partials = rest.split_off_mut(..piece.chunks().len() * len).unwrap_or_default();
            machine.level.run(Fold { piece, partials, out });
        }
    }

    /// The first of `units`, and as many after it as have the same chunk and no other, in all with few scores.
    fn together(&self, units: &[Unit]) -> ([Piece<'_, W>; TOGETHER], usize) {
        let piece = |i: usize| units.get(i).map(|unit| self.piece(*unit));
        let first = self.piece(units[0]);
        let pieces = std::array::from_fn(|i| piece(i).unwrap_or_else(|| first.clone()));
        let chunks = first.chunks();
        let mut room = NEAR;
        let mut fits = |piece: &Piece<'_, W>| {
            let scores = piece.len() * piece.positions(chunks.start).len();
            let fits = piece.chunks() == chunks && scores <= room;
            room = room.saturating_sub(scores);
            fits
        };
        let count = pieces[..units.len()].iter().take_while(|piece| fits(piece)).count();
        (pieces, if chunks.len() == 1 { count.max(1) } else { 1 })
    }

    /// The `index`-th chunk of all units.
    fn nth_chunk(&self, units: &[Unit], mut index: usize) -> (Piece<'_, W>, usize) {
        let mut units = units.iter().map(|unit| self.piece(*unit));
        loop {
            let piece = units.next().expect("as many chunks as were counted");
            let chunks = piece.chunks();
            if index < chunks.len() {
                return (piece, chunks.start + index);
            }
            index -= chunks.len();
        }
    }

    /// Query heads that share a key/value head.
    fn sharing(&self) -> usize {
        self.args.heads / self.layout.shape.kv_heads
    }

    /// Positions of a chunk: whole blocks.
    pub(super) fn chunk(&self) -> usize {
        let block_size = self.layout.shape.block_size;
        block_size * (CHUNK / block_size).max(1)
    }

    /// Queries of a unit: whole rows where they fit.
    fn height(&self) -> usize {
        let sharing = self.sharing();
        if sharing > QUERIES { QUERIES } else { QUERIES / sharing * sharing }
    }

    fn count(&self) -> usize {
        let queries = self.args.sequences().map(|sequence| sequence.rows.len() * self.sharing());
        let units: usize = queries.map(|queries| queries.div_ceil(self.height())).sum();
        units * self.layout.shape.kv_heads
    }

    /// Long contexts and late rows first, so that no thread begins one last; what reads the same keys and
    /// values follows each other, so that they stay in the cache.
    fn list(&self, units: &mut [Unit]) {
        let mut next = units.iter_mut();
        for (sequence, SequenceArgs { rows, .. }) in self.args.sequences().enumerate() {
            let queries = rows.len() * self.sharing();
            for kv_head in 0..self.layout.shape.kv_heads {
                for start in (0..queries).step_by(self.height()) {
                    let end = (start + self.height()).min(queries);
                    let unit = next.next().expect("as many units as were counted");
                    let [sequence, kv_head] = [sequence as u32, kv_head as u32];
                    *unit = Unit { sequence, kv_head, start: start as u32, end: end as u32 };
                }
            }
        }
        units.sort_unstable_by_key(|unit| {
            let context = self.args.context_lens[unit.sequence as usize];
            (Reverse(context), unit.sequence, unit.kv_head, Reverse(unit.start))
        });
    }

    fn piece(&self, unit: Unit) -> Piece<'_, W> {
        Piece {
            attention: self,
            sequence: self.args.sequence(unit.sequence as usize),
            kv_head: unit.kv_head as usize,
            sharing: self.sharing(),
            queries: unit.start as usize..unit.end as usize,
        }
    }
}

impl<W: Word> Piece<'_, W> {
    /// How many queries it has.
    pub(super) fn len(&self) -> usize {
        self.queries.len()
    }

    /// Whether nobody else reads the same keys and values.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn is_alone(&self) -> bool {
        self.len() == self.sequence.rows.len() * self.sharing
    }

    /// The positions its `i`-th query sees.
    pub(super) fn seen(&self, i: usize) -> Range<usize> {
        let row = (self.queries.start + i) / self.sharing;
        self.sequence.visible(row, self.attention.args.reach)
    }

    /// Those of `positions`, counted from `base`.
    pub(super) fn seen_of(&self, i: usize, positions: &Range<usize>, base: usize) -> Range<usize> {
        let seen = self.seen(i);
        let start = seen.start.max(positions.start);
        start - base..seen.end.min(positions.end).max(start) - base
    }

    /// Where its `i`-th query or its output lies, in rows of `cols`.
    pub(super) fn place(&self, i: usize, cols: usize) -> Range<usize> {
        let (sharing, dim) = (self.sharing, self.attention.layout.shape.head_dim);
        let query = self.queries.start + i;
        let (row, head) =
            if sharing == 1 { (query, 0) } else { (query / sharing, query % sharing) };
        let row = self.sequence.rows.start + row;
        let head = self.kv_head * sharing + head;
        let start = row * cols + head * dim;
        start..start + dim
    }

    /// The chunks that any of its queries sees.
    pub(super) fn chunks(&self) -> Range<usize> {
        let (first, last) = (self.seen(0).start, self.seen(self.len() - 1).end);
        first / self.attention.chunk()..last.div_ceil(self.attention.chunk())
    }

    /// The positions of a chunk that any of its queries sees.
    pub(super) fn positions(&self, chunk: usize) -> Range<usize> {
        let size = self.attention.chunk();
        let (first, last) = (self.seen(0).start, self.seen(self.len() - 1).end);
        first.max(chunk * size)..last.min((chunk + 1) * size)
    }
}
