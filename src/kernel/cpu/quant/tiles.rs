//! AMX: the dots of a group for 32 rows and 32 columns at a time, in tiles of signed bytes.
//!
//! The tiles hold exact integers; the sums of the groups are formed outside, in the same order as everywhere.
#![expect(unsafe_code, reason = "tile instructions; the token proves that the machine has them")]
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::amx::{Shape, TILE, configure, release};
use super::super::isa::Level;
use super::dots::{Dots, LINE, Line};
use super::format::{Format, Int4, Int8, WIDTH};
use super::product::{AHEAD, BLOCK, Product, Sums};
use super::vnni::Vnni;
use std::arch::asm;
use std::marker::PhantomData;
use std::ops::Range;

/// Below this many rows the products on vectors keep up with the memory.
const FEW: usize = 5;

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
    /// Prepares a group's weights in `space`, if they are not bytes already.
    fn prepare(vnni: Vnni, group: &[u32], space: &mut Space);
    /// `[QUADS, WIDTH]` words of signed bytes.
    fn weights<'a>(group: &'a [u32], space: &'a Space) -> &'a [u32];
}

/// Room for the bytes of a group of nibbles.
#[repr(C, align(64))]
pub(super) struct Space([Line; Int4::QUADS * 2]);

impl TileFormat for Int8 {
    #[inline(always)]
    fn prepare(_: Vnni, _: &[u32], _: &mut Space) {}

    #[inline(always)]
    fn weights<'a>(group: &'a [u32], _: &'a Space) -> &'a [u32] {
        &group[WIDTH..]
    }
}

impl TileFormat for Int4 {
    #[inline(always)]
    fn prepare(vnni: Vnni, group: &[u32], space: &mut Space) {
        let pairs = group[LINE..].as_chunks::<LINE>().0.as_chunks::<2>().0;
        for (pair, to) in pairs.iter().zip(space.0.as_chunks_mut::<4>().0) {
            let [earlier_low, earlier_high, later_low, later_high] = to;
            vnni.signed_nibbles(&pair[0], [earlier_low, later_low]);
            vnni.signed_nibbles(&pair[1], [earlier_high, later_high]);
        }
    }

    #[inline(always)]
    fn weights<'a>(_: &'a [u32], space: &'a Space) -> &'a [u32] {
        space.0.as_flattened()
    }
}

/// The dots of a group: `[BLOCK, WIDTH]`, the lower tiles' from row [`TILE`] on.
#[repr(C, align(64))]
struct DotTiles([[Line; 2]; BLOCK]);

/// What a thread needs for its panels; its tiles are released in the end.
pub(super) struct Worker<F> {
    token: ByteTiles,
    /// Rows of the upper and the lower tiles.
    heights: [usize; 2],
    spaces: [Space; 2],
    dots: [DotTiles; 2],
    sums: Sums,
    format: PhantomData<F>,
    /// The configuration is the thread's own.
    thread: PhantomData<*const ()>,
}

impl<F: TileFormat + Sync> Worker<F> {
    /// With tiles for full blocks.
    pub(super) fn new(token: ByteTiles) -> Self {
        let heights = [TILE, TILE];
        configure(&shape::<F>(heights));
        let spaces = [[[0; LINE]; Int4::QUADS * 2]; 2].map(Space);
        let dots = [[[[0; LINE]; 2]; BLOCK]; 2].map(DotTiles);
        let sums = [[0.0; WIDTH]; BLOCK];
        Self { token, heights, spaces, dots, sums, format: PhantomData, thread: PhantomData }
    }

    /// Some rows of a panel's columns.
    pub(super) fn panel(&mut self, product: &Product<'_, F>, panel: usize, rows: Range<usize>) {
        for start in rows.clone().step_by(BLOCK) {
            let block = start..(start + BLOCK).min(rows.end);
            let heights = [block.len().min(TILE), block.len().saturating_sub(TILE)];
            if heights != self.heights {
                configure(&shape::<F>(heights));
                self.heights = heights;
            }
            self.sums[..block.len()].fill([0.0; WIDTH]);
            // SAFETY: the token proves VNNI.
            unsafe { self.block(product, panel, block.clone()) };
            product.write(panel, block.clone(), &self.sums[..block.len()]);
        }
    }

    /// The sums of a block, a group after the other: while the tiles have one, the vectors add the one before.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn block(&mut self, product: &Product<'_, F>, panel: usize, rows: Range<usize>) {
        let mut before = None;
        for (index, group) in product.groups(panel).enumerate() {
            for line in group.as_chunks::<LINE>().0 {
                self.token.vnni.prefetch(line, AHEAD);
            }
            let space = &mut self.spaces[index % 2];
            F::prepare(self.token.vnni, group, space);
            let dots = &mut self.dots[index % 2];
            multiply::<F>(self.token, (product, index, &rows), F::weights(group, space), dots);
            if let Some(before) = before.replace(group) {
                self.add(product, before, index - 1, &rows);
            }
        }
        if let Some(last) = before {
            self.add(product, last, product.groups(panel).len() - 1, &rows);
        }
    }

    /// Adds the dots of a group to the sums.
    #[inline(always)]
    fn add(&mut self, product: &Product<'_, F>, group: &[u32], index: usize, rows: &Range<usize>) {
        let vnni = self.token.vnni;
        let scales = F::scales(vnni, group);
        let dots = self.dots[index % 2].0.iter().zip(&mut self.sums);
        for (row, (dots, sums)) in rows.clone().zip(dots) {
            let x_scale = product.x.row(row).scale(index);
            let halves = sums.as_chunks_mut().0.iter_mut().zip(dots).zip(scales);
            for ((sums, dots), scales) in halves {
                vnni.add_scaled(sums, Vnni::load(vnni, dots), x_scale, scales);
            }
        }
    }
}

impl<F> Drop for Worker<F> {
    fn drop(&mut self) {
        release();
    }
}

/// Registers 0 to 3 dots, 4 and 5 rows, 6 and 7 weights.
fn shape<F: Format>([upper, lower]: [usize; 2]) -> Shape {
    const COLUMNS: usize = LINE * size_of::<u32>();
    let dots = |height| (height, COLUMNS);
    let rows = |height| (height, F::GROUP);
    let weights = (F::QUADS, COLUMNS);
    let (dots, rows) = ([upper, lower].map(dots), [upper, lower].map(rows));
    Shape::of([dots[0], dots[0], dots[1], dots[1], rows[0], rows[1], weights, weights])
}

/// The dots of one group for the rows of a block, for which the tiles are configured.
#[inline(always)]
fn multiply<F: Format>(
    _: ByteTiles,
    (product, index, rows): (&Product<'_, F>, usize, &Range<usize>),
    weights: &[u32],
    dots: &mut DotTiles,
) {
    assert_eq!(weights.len(), F::QUADS * WIDTH, "a group is a whole number of quads");
    let (upper, stride) = product.x.group(rows.start, index, F::QUADS);
    if rows.len() <= TILE {
        single((upper, stride), weights, dots);
    } else {
        let (lower, _) = product.x.group(rows.start + TILE, index, F::QUADS);
        double([upper, lower], stride, weights, dots);
    }
}

/// One tile of rows, `stride` bytes from one to the next.
#[inline(always)]
fn single((rows, stride): (&[u32], usize), weights: &[u32], dots: &mut DotTiles) {
    // SAFETY: the worker has configured the tiles for the rows that are there and the quads of the group, which
    // `multiply` has checked; the dots have room for all tiles.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tileloadd tmm4, [{x} + {stride} * 1]",
            "tileloadd tmm6, [{w} + {line} * 2]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {line} * 2 + 64]",
            "tdpbssd tmm1, tmm4, tmm7",
            "tilestored [{dots} + {line} * 2], tmm0",
            "tilestored [{dots} + {line} * 2 + 64], tmm1",
            x = in(reg) rows.as_ptr(),
            stride = in(reg) stride,
            w = in(reg) weights.as_ptr(),
            line = in(reg) 64_usize,
            dots = in(reg) dots,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Two tiles of rows, the upper one full.
#[inline(always)]
fn double(rows: [&[u32]; 2], stride: usize, weights: &[u32], dots: &mut DotTiles) {
    // SAFETY: as in `single`, for both tiles of rows.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "tileloadd tmm4, [{upper} + {stride} * 1]",
            "tileloadd tmm6, [{w} + {line} * 2]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {line} * 2 + 64]",
            "tdpbssd tmm1, tmm4, tmm7",
            "tilestored [{dots} + {line} * 2], tmm0",
            "tileloadd tmm5, [{lower} + {stride} * 1]",
            "tdpbssd tmm2, tmm5, tmm6",
            "tilestored [{dots} + {line} * 2 + 64], tmm1",
            "tdpbssd tmm3, tmm5, tmm7",
            "tilestored [{dots} + {line} * 2 + 2048], tmm2",
            "tilestored [{dots} + {line} * 2 + 2112], tmm3",
            upper = in(reg) rows[0].as_ptr(),
            lower = in(reg) rows[1].as_ptr(),
            stride = in(reg) stride,
            w = in(reg) weights.as_ptr(),
            line = in(reg) 64_usize,
            dots = in(reg) dots,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
