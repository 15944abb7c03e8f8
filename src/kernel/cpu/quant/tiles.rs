//! AMX: the dots of a group for 16 rows and 16 columns at a time, in tiles of signed bytes.
//!
//! The tiles hold exact integers; the sums of the groups are formed in registers, in the same order as everywhere, while
//! the tiles have the next group.
#![expect(unsafe_code, reason = "tile instructions; the token proves that the machine has them")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::amx::{Shape, TILE, configure, release};
use super::super::buffers::Scratch;
use super::super::isa::Level;
use super::super::machine::Machine;
use super::dots::{Dots, LINE, Line};
use super::format::{Format, Int4, Int8, WIDTH};
use super::product::{AHEAD, Product};
use super::round::TOGETHER;
use super::vnni::Vnni;
use std::arch::asm;
use std::arch::x86_64::__m512;
use std::marker::PhantomData;
use std::ops::Range;

/// Below this many rows the products on vectors keep up with the memory.
const FEW: usize = 5;

/// How many groups the sums are behind the tiles: what a tile has stored can be read when it has left the processor's
/// queue of stores, not before.
const BEHIND: usize = 2;

/// Sets of dots that are in use at a time, and a power of two.
const SETS: usize = 4;

// A block of rounded rows is a tile's.
const _: () = assert!(TOGETHER == TILE);

/// The proof that the machine has tiles of bytes and lets this process use them, and AVX-512 VNNI.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByteTiles {
    vnni: Vnni,
}

impl ByteTiles {
    /// The token, where `level` has the tiles and so many rows are worth them.
    pub(super) fn of(level: Level, rows: usize) -> Option<Self> {
        level.tiles().filter(|amx| amx.bytes && rows >= FEW)?;
        Vnni::detect().map(|vnni| Self { vnni })
    }
}

/// How a format's weights come into tiles.
pub(super) trait TileFormat: Format {
    /// Words of signed bytes to make of a group, if its weights are not such already.
    const MADE: usize;
    /// Makes them.
    fn make(vnni: Vnni, group: &[u32], to: &mut [u32]);
    /// `[QUADS, WIDTH]` words of signed bytes: of the group itself, or what was made of it.
    fn bytes<'a>(group: &'a [u32], made: &'a [u32]) -> &'a [u32];
}

impl TileFormat for Int8 {
    const MADE: usize = 0;

    #[inline(always)]
    fn make(_: Vnni, _: &[u32], _: &mut [u32]) {}

    #[inline(always)]
    fn bytes<'a>(group: &'a [u32], _: &'a [u32]) -> &'a [u32] {
        &group[WIDTH..]
    }
}

impl TileFormat for Int4 {
    const MADE: usize = Self::QUADS * WIDTH;

    #[inline(always)]
    fn make(vnni: Vnni, group: &[u32], to: &mut [u32]) {
        let pairs = group[LINE..].as_chunks::<LINE>().0.as_chunks::<2>().0;
        let lines = to.as_chunks_mut::<LINE>().0.as_chunks_mut::<4>().0;
        for (pair, [earlier_low, earlier_high, later_low, later_high]) in pairs.iter().zip(lines) {
            vnni.signed_nibbles(&pair[0], [earlier_low, later_low]);
            vnni.signed_nibbles(&pair[1], [earlier_high, later_high]);
        }
    }

    #[inline(always)]
    fn bytes<'a>(_: &'a [u32], made: &'a [u32]) -> &'a [u32] {
        made
    }
}

/// The dots of a group: `[TILE, TILE]`.
#[repr(C, align(64))]
struct DotTile([Line; TILE]);

/// What a thread needs for its panels; its tiles are released in the end.
pub(super) struct Worker<'a, F> {
    token: ByteTiles,
    /// Rows of the tiles.
    height: usize,
    /// What is made of a panel's groups.
    made: Scratch<'a, u32>,
    /// Of the last groups.
    dots: [DotTile; SETS],
    format: PhantomData<F>,
    /// The configuration is the thread's own.
    thread: PhantomData<*const ()>,
}

impl<'a, F: TileFormat + Sync> Worker<'a, F> {
    /// With tiles for full blocks, for panels of so many groups.
    pub(super) fn new(token: ByteTiles, machine: &'a Machine, groups: usize) -> Self {
        configure(&shape::<F>(TILE));
        let made = machine.words.scratch(groups * F::MADE);
        let dots = [const { DotTile([[0; LINE]; TILE]) }; SETS];
        Self { token, height: TILE, made, dots, format: PhantomData, thread: PhantomData }
    }

    /// Some rows of a panel's columns, from the first of a block on.
    pub(super) fn panel(&mut self, product: &Product<'_, F>, panel: usize, rows: Range<usize>) {
        // SAFETY: the token proves VNNI.
        unsafe { self.make(product, panel) };
        for start in rows.clone().step_by(TILE) {
            let block = start..(start + TILE).min(rows.end);
            if block.len() != self.height {
                configure(&shape::<F>(block.len()));
                self.height = block.len();
            }
            for half in 0..WIDTH / TILE {
                // The first pass over a panel is the one that waits for the memory.
                let first = start == rows.start && half == 0 && F::MADE == 0;
                // SAFETY: the token proves VNNI.
                unsafe { self.half(product, (panel, half), block.clone(), first) };
            }
        }
    }

    /// Makes bytes of a panel, if it is none.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn make(&mut self, product: &Product<'_, F>, panel: usize) {
        if F::MADE > 0 {
            for (group, to) in product.groups(panel).zip(self.made.chunks_exact_mut(F::MADE)) {
                self.token.bring(group);
                F::make(self.token.vnni, group, to);
            }
        }
    }

    /// Sixteen columns of a block, a group after the other.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn half(
        &mut self,
        product: &Product<'_, F>,
        (panel, half): (usize, usize),
        rows: Range<usize>,
        first: bool,
    ) {
        let vnni = self.token.vnni;
        let (x, x_scales) = product.x.tiles(rows.start);
        let groups = product.groups(panel);
        let mut to_multiply = groups.clone().zip(x.chunks_exact(TOGETHER * F::QUADS)).enumerate();
        let mut to_add = groups.zip(x_scales).enumerate();
        let mut sums = [Vnni::zeros(vnni); TILE];
        for turn in 0..x_scales.len() + BEHIND {
            if let Some((index, (group, x))) = to_multiply.next() {
                if first {
                    self.token.bring(group);
                }
                let made = &self.made[index * F::MADE..][..F::MADE];
                let weights = &F::bytes(group, made)[half * LINE..];
                multiply::<F>(self.token, x, weights, &mut self.dots[index % SETS]);
            }
            if turn < BEHIND {
                continue;
            }
            if let Some((index, group)) = to_add.next() {
                add::<F>(vnni, &mut sums, &self.dots[index % SETS], half, group);
            }
        }
        let mut lines = [[0.0; LINE]; TILE];
        for (line, sums) in lines.iter_mut().zip(sums) {
            Vnni::store(vnni, sums, line);
        }
        product.write(panel * WIDTH + half * LINE, rows.clone(), &lines[..rows.len()]);
    }
}

impl<F> Drop for Worker<'_, F> {
    fn drop(&mut self) {
        release();
    }
}

impl ByteTiles {
    /// Asks for what comes some groups after this one.
    #[inline(always)]
    fn bring(self, group: &[u32]) {
        for line in group.as_chunks::<LINE>().0 {
            self.vnni.prefetch(line, AHEAD);
        }
    }
}

/// Registers 0 dots, 4 rows, 6 weights.
fn shape<F: Format>(height: usize) -> Shape {
    const COLUMNS: usize = LINE * size_of::<u32>();
    let (dots, rows, weights) = ((height, COLUMNS), (height, F::GROUP), (F::QUADS, COLUMNS));
    let unused = (0, 0);
    Shape::of([dots, unused, unused, unused, rows, unused, weights, unused])
}

/// The dots of one group for the rows of a block, for which the tiles are configured: `x` is `[TOGETHER, QUADS]` words,
/// `weights` begins with the first of `QUADS` lines, a panel's width from one to the next.
#[inline(always)]
fn multiply<F: Format>(_: ByteTiles, x: &[u32], weights: &[u32], dots: &mut DotTile) {
    assert_eq!(x.len(), TOGETHER * F::QUADS, "a tile has whole rows");
    assert!(weights.len() >= (F::QUADS - 1) * WIDTH + LINE, "a group is a whole number of quads");
    // SAFETY: the worker has configured the tiles for at most as many rows and just as many quads as there are, as just
    // asserted; the dots have room for a whole tile.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tileloadd tmm4, [{x} + {row} * 1]",
            "tileloadd tmm6, [{w} + {line} * 2]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tilestored [{dots} + {line} * 1], tmm0",
            x = in(reg) x.as_ptr(),
            row = in(reg) F::GROUP,
            w = in(reg) weights.as_ptr(),
            line = in(reg) 64_usize,
            dots = in(reg) dots,
            out("tmm0") _, out("tmm4") _, out("tmm6") _,
            options(nostack),
        );
    }
}

/// Adds the dots of a group to the sums.
#[inline(always)]
fn add<F: Format>(
    vnni: Vnni,
    sums: &mut [__m512; TILE],
    dots: &DotTile,
    half: usize,
    (group, x_scales): (&[u32], &[u32; TOGETHER]),
) {
    let scales = F::scales(vnni, group)[half];
    for ((sums, dots), x_scale) in sums.iter_mut().zip(&dots.0).zip(x_scales) {
        let (dots, x_scale) = (Vnni::load(vnni, dots), f32::from_bits(*x_scale));
        *sums = Vnni::plus_scaled(vnni, *sums, dots, x_scale, scales);
    }
}
