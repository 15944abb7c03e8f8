//! AMX: products of 16×16 tiles of bfloat16 pairs in registers of their own.
//!
//! The intrinsics are not stable, so the whole product of a block is one piece of assembly: it begins with what is there,
//! runs along `in`, adds what else belongs to the block, and stores the sums. Between pieces nothing is kept in tiles.
#![expect(unsafe_code, reason = "tile instructions; the token proves that the machine has them")]
use super::avx512::Avx512;
use super::extras::Extras;
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Rows of a tile, and f32 columns, and pairs of bfloat16 along `in`.
pub(super) const TILE: usize = 16;
/// Columns of a panel: two tiles side by side.
pub(super) const WIDTH: usize = 2 * TILE;

/// Cache lines that [`groups`] asks for together.
pub(super) const GROUP: usize = 4;

/// The assembly of extras. Needs registers `extra` and `line`, and leaves nothing in the others that it names.
macro_rules! extras {
    () => {
        concat!(
            "6:\n",
            "mov {from}, [{extra}]\n",
            "mov {from_row}, [{extra} + 8]\n",
            "mov {w}, [{extra} + 16]\n",
            "mov {next}, [{extra} + 24]\n",
            "mov {left}, [{extra} + 32]\n",
            "add {next}, {w}\n",
            "7:\n",
            "tileloadd tmm4, [{from} + {from_row} * 1]\n",
            "tileloadd tmm6, [{w} + {line} * 1]\n",
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            "tileloadd tmm6, [{next} + {line} * 1]\n",
            "tdpbf16ps tmm1, tmm4, tmm6\n",
            "add {from}, 64\n",
            "add {w}, 1024\n",
            "add {next}, 1024\n",
            "dec {left}\n",
            "jnz 7b\n",
            "add {extra}, [{extra} + 48]\n",
            "cmp qword ptr [{extra} + 48], 0\n",
            "jne 6b\n",
        )
    };
}

/// Asks for as many groups of lines as `left` says, from the register `$from` on; neither holds anything afterwards.
macro_rules! groups {
    ($from:literal) => {
        concat!(
            "test {left}, {left}\n",
            "jz 9f\n",
            "8:\n",
            "prefetcht0 [",
            $from,
            "]\n",
            "prefetcht0 [",
            $from,
            " + 64]\n",
            "prefetcht0 [",
            $from,
            " + 128]\n",
            "prefetcht0 [",
            $from,
            " + 192]\n",
            "add ",
            $from,
            ", 256\n",
            "dec {left}\n",
            "jnz 8b\n",
            "9:\n",
        )
    };
}
pub(super) use groups;

/// Asks for the weights of one extra more, at each step those of the next. Needs `extra`, and registers `from` and
/// `from_row`, which [`first_extra`] prepares.
macro_rules! every_extra {
    () => {
        concat!(
            "mov {left}, [{from_row} + 40]\n",
            "mov {from}, [{from_row} + 16]\n",
            groups!("{from}"),
            "add {from_row}, [{from_row} + 48]\n",
        )
    };
}

/// Where [`every_extra`] begins.
macro_rules! first_extra {
    () => {
        "mov {from_row}, {extra}"
    };
}

/// Asks for a step's 32 lines from `next` on.
macro_rules! every_line {
    () => {
        concat!(
            ".irp line, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n",
            "prefetcht0 [{next} + \\line * 128]\n",
            "prefetcht0 [{next} + \\line * 128 + 64]\n",
            ".endr\n",
            "add {next}, 2048\n",
        )
    };
}

/// Asks for `lines` lines from `next` on. Needs registers `lines` and `left`.
macro_rules! some_lines {
    () => {
        concat!(
            "mov {left}, {lines}\n",
            "test {left}, {left}\n",
            "jz 4f\n",
            "3:\n",
            "prefetcht1 [{next}]\n",
            "add {next}, 64\n",
            "dec {left}\n",
            "jnz 3b\n",
            "4:\n",
        )
    };
}

/// A block's product: rows loaded by `$load`, `$before` its first step, `$meanwhile` at each, and `$after` the last; with
/// the operands of these three.
macro_rules! product {
    (
        ($block:ident, $ahead:ident, $steps:ident, $to:ident),
        $load:literal, [$($before:expr)?], [$($meanwhile:expr),*], [$($after:expr)?], [$($operand:tt)*]
    ) => {
        asm!(
            "tileloadd tmm0, [{from} + {from_row} * 1]",
            "tileloadd tmm1, [{from} + {from_row} * 1 + 64]",
            $($before,)?
            "2:",
            concat!($load, " tmm4, [{x} + {line} * 1]"),
            "tileloadd tmm6, [{w} + {line} * 2]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm6, [{w} + {line} * 2 + 64]",
            $($meanwhile,)*
            "tdpbf16ps tmm1, tmm4, tmm6",
            "add {x}, {x_step}",
            "add {w}, 2048",
            "dec {steps}",
            "jnz 2b",
            $($after,)?
            "tilestored [{to} + {to_row} * 1], tmm0",
            "tilestored [{to} + {to_row} * 1 + 64], tmm1",
            x = inout(reg) $block.rows.as_ptr() => _,
            x_step = in(reg) $block.rows.len() / $steps * size_of::<u32>(),
            w = inout(reg) $block.panel.as_ptr() => _,
            next = inout(reg) $block.panel.as_ptr().wrapping_byte_add($ahead) => _,
            line = in(reg) 64_usize,
            steps = inout(reg) $steps => _,
            to = in(reg) $to.start,
            to_row = in(reg) $to.row,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _,
            $($operand)*
            options(nostack),
        )
    };
}

/// The proof that the machine has AMX for bfloat16, that the system lets this process use it, and that
/// AVX-512 with BF16 is there too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amx {
    /// For everything but products.
    pub(super) wide: Avx512<false>,
    /// For rounding.
    pub(super) pairs: Avx512<true>,
    /// Whether there are products of bytes too.
    pub(super) bytes: bool,
}

impl Amx {
    /// The token, where this machine has the instructions.
    pub(super) fn detect() -> Option<Self> {
        // Asked once: on a virtual machine `cpuid` is a journey to the host.
        static USABLE: OnceLock<Option<Features>> = OnceLock::new();
        let (wide, pairs) = (Avx512::detect()?, Avx512::detect()?);
        let usable = USABLE.get_or_init(|| Features::read().filter(|_| may_use_tiles()));
        usable.map(|Features { bytes }| Self { wide, pairs, bytes })
    }
}

/// Tiles of this thread, given up in the end, so that a thread at rest carries no tile state.
pub(super) struct Tiles {
    height: usize,
    pairs: usize,
    /// The configuration is the thread's own.
    thread: PhantomData<*const ()>,
}

impl Tiles {
    /// Not yet laid out; the token proves that they exist.
    pub(super) fn new(_: Amx) -> Self {
        Self { height: 0, pairs: 0, thread: PhantomData }
    }

    /// For `height` rows: registers 0 and 1 sums, 4 rows, 6 weights; and if `pairs` is not 0, 5 rows of so many pairs and
    /// 7 so many rows of weights.
    pub(super) fn lay_out(&mut self, height: usize, pairs: usize) {
        if (height, pairs) != (self.height, self.pairs) {
            const LINE: usize = TILE * size_of::<u32>();
            let (rows, unused) = ((height, LINE), (0, 0));
            let narrow = if pairs == 0 { unused } else { (height, pairs * size_of::<u32>()) };
            let weights = [(TILE, LINE), (pairs, LINE)];
            let shape = [rows, rows, unused, unused, rows, narrow, weights[0], weights[1]];
            configure(&Shape::of(shape));
            (self.height, self.pairs) = (height, pairs);
        }
    }

    /// Rows they are laid out for.
    pub(super) fn height(&self) -> usize {
        self.height
    }

    /// The sums of `block`, one term of `in` after the other, 32 at a time: the same for any height.
    ///
    /// # Panics
    /// When the block's parts do not fit each other.
    pub(super) fn multiply(&mut self, block: &Block<'_>, sums: &mut Sums) {
        if block.rows.is_empty() {
            return sums.0.fill(0.0);
        }
        let (from, to) = (Place::zeros(), Place::new(sums.0.as_mut_ptr(), WIDTH));
        // SAFETY: one line serves all rows, and the sums have room for sixteen.
        unsafe { self.add_product(block, from, to) }
    }

    /// As [`Tiles::multiply`], the terms added to what is at `from`.
    ///
    /// # Safety
    /// As many rows of [`WIDTH`] values as the block has can be read at `from` and written at `to`.
    ///
    /// # Panics
    /// When the block has no rows, or its parts do not fit each other.
    pub(super) unsafe fn add_product(
        &mut self,
        block: &Block<'_>,
        from: Place<*const f32>,
        to: Place<*mut f32>,
    ) {
        let steps = block.panel.len() / (WIDTH * TILE);
        let height = block.rows.len().checked_div(steps * TILE).unwrap_or(0);
        assert_eq!(block.panel.len(), steps * WIDTH * TILE, "a panel is whole steps");
        assert_eq!(block.rows.len(), height * steps * TILE, "whole rows");
        assert!((1..=TILE).contains(&height), "a tile has sixteen rows");
        self.lay_out(height, 0);
        match block.ahead {
            // SAFETY: the block is whole steps of whole rows, as asserted; `from` and `to` have them, by contract.
            Ahead::Stream(start) => unsafe { stream(block, start, steps, (from, to)) },
            Ahead::Share { start, lines } => {
                if from.row == 0 {
                    own(to, height);
                }
                // SAFETY: as above.
                unsafe { share(block, (start, lines), steps, (from, to)) }
            }
        }
    }
}

impl Tiles {
    /// `y += extras`, `height` rows: as at the end of a product.
    ///
    /// # Safety
    /// As many rows of [`WIDTH`] values as `height` can be read and written at `y`, and there are extras.
    pub(super) unsafe fn add_extras(
        &mut self,
        height: usize,
        extras: Extras<'_>,
        y: Place<*mut f32>,
    ) {
        self.lay_out(height, 0);
        // SAFETY: by contract, and as `ExtraList` asserts; a prefetch cannot fault.
        unsafe {
            asm!(
                "tileloadd tmm0, [{from} + {from_row} * 1]",
                "tileloadd tmm1, [{from} + {from_row} * 1 + 64]",
                extras!(),
                "tilestored [{to} + {to_row} * 1], tmm0",
                "tilestored [{to} + {to_row} * 1 + 64], tmm1",
                from = inout(reg) y.start => _,
                from_row = inout(reg) y.row => _,
                w = out(reg) _,
                next = out(reg) _,
                left = out(reg) _,
                line = in(reg) 64_usize,
                to = in(reg) y.start,
                to_row = in(reg) y.row,
                extra = inout(reg) Extras::start_of(Some(extras)) => _,
                out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _,
                options(nostack),
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        release();
    }
}

/// Some rows against one panel.
pub(super) struct Block<'a> {
    /// Up to [`TILE`] rows: `[steps, rows, TILE]` pairs.
    pub(super) rows: &'a [u32],
    /// `[steps, TILE, WIDTH]` pairs.
    pub(super) panel: &'a [u32],
    /// What to ask the memory for meanwhile.
    pub(super) ahead: Ahead,
    /// What is added in the end.
    pub(super) extras: Option<Extras<'a>>,
}

/// Weights to bring near during a product; where they begin is in bytes from the panel's start, and need not exist.
#[derive(Clone, Copy)]
pub(super) enum Ahead {
    /// As many as the product reads: this block is the only one that comes by.
    Stream(usize),
    /// Some cache lines at each step of 32 along `in`: other blocks bring the rest.
    Share { start: usize, lines: usize },
}

/// Where rows of [`WIDTH`] values lie.
#[derive(Clone, Copy)]
pub(super) struct Place<P> {
    start: P,
    /// Bytes from one row to the next.
    row: usize,
}

impl<P> Place<P> {
    /// `row` values from one row to the next.
    pub(super) fn new(start: P, row: usize) -> Self {
        Self { start, row: row * size_of::<f32>() }
    }
}

impl Place<*const f32> {
    /// Zeros for all rows.
    pub(super) fn zeros() -> Self {
        static ZEROS: Line = Line([0.0; WIDTH]);
        Self::repeated(&ZEROS.0)
    }

    /// The same for all rows.
    pub(super) fn repeated(row: &[f32]) -> Self {
        Self::new(row.as_ptr(), 0)
    }
}

/// One row.
#[repr(C, align(64))]
struct Line([f32; WIDTH]);

/// `[TILE, WIDTH]`
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [f32; TILE * WIDTH]);

/// What `ldtilecfg` takes: each register's rows and bytes in a row.
#[repr(C, align(64))]
pub(super) struct Shape {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shape {
    /// Rows and bytes in a row of each register; one without rows is not used.
    ///
    /// # Panics
    /// When a register has more than 16 rows or 64 bytes.
    pub(super) fn of(registers: [(usize, usize); 8]) -> Self {
        let mut shape =
            Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let used = registers.into_iter().enumerate().filter(|(_, (height, _))| *height > 0);
        for (register, (height, bytes)) in used {
            assert!(height <= 16 && bytes <= 64, "a tile has 16 rows of 64 bytes");
            shape.row_bytes[register] = bytes as u16;
            shape.rows[register] = height as u8;
        }
        shape
    }
}

/// Gives the tiles of this thread up; only a token's holder comes here.
pub(super) fn release() {
    // SAFETY: the machine has the instruction; nothing in the tiles is needed any more.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// Lays out the tiles of this thread, all zero.
pub(super) fn configure(shape: &Shape) {
    // SAFETY: only a token's holder comes here; the shape keeps to palette 1, 16 rows and 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) shape, options(nostack, readonly)) }
}

/// Asks for what rows of sums are going to be written to: stores that wait for their lines hold up the loads behind them.
fn own(to: Place<*mut f32>, height: usize) {
    for row in 0..height {
        let line = to.start.wrapping_byte_add(row * to.row);
        // SAFETY: a prefetch cannot fault.
        unsafe {
            asm!("prefetchw [{0}]", "prefetchw [{0} + 64]", in(reg) line, options(nostack, readonly));
        }
    }
}

/// One tile of rows, at the pace of the memory: asks for 32 lines a step, without a loop.
///
/// Both halves of a panel go through one register. The processor has few more tiles than there are names for, which its
/// two hardware threads share: each name in use leaves one less to load the next tile into while the last is multiplied.
/// Two tiles of rows in eight registers would load less, and beside a busy neighbour wait for each other at every step.
///
/// # Safety
/// The rows hold `steps` tiles of the configured height, the panel `steps` pairs of tiles; both tiles of sums can be
/// read at `from` and written at `to`.
unsafe fn stream(
    block: &Block<'_>,
    ahead: usize,
    steps: usize,
    (from, to): (Place<*const f32>, Place<*mut f32>),
) {
    let extra = Extras::start_of(block.extras);
    if extra.is_null() {
        // SAFETY: by contract; a prefetch cannot fault.
        unsafe {
            product!(
                (block, ahead, steps, to), "tileloadd", [], [every_line!()], [],
                [from = in(reg) from.start, from_row = in(reg) from.row,]
            );
        }
    } else {
        // SAFETY: by contract, and as `ExtraList` asserts; a prefetch cannot fault.
        unsafe {
            product!(
                (block, ahead, steps, to), "tileloadd",
                [first_extra!()], [every_line!(), every_extra!()], [extras!()],
                [
                    from = inout(reg) from.start => _,
                    from_row = inout(reg) from.row => _,
                    left = out(reg) _,
                    extra = inout(reg) extra => _,
                ]
            );
        }
    }
}

/// One tile of many rows. They are too many for the first cache, so they are loaded with the hint that they will not be
/// needed soon, and the panel stays there.
///
/// # Safety
/// As [`stream`].
unsafe fn share(
    block: &Block<'_>,
    (ahead, lines): (usize, usize),
    steps: usize,
    (from, to): (Place<*const f32>, Place<*mut f32>),
) {
    let extra = Extras::start_of(block.extras);
    if extra.is_null() {
        // SAFETY: as in `stream`.
        unsafe {
            product!(
                (block, ahead, steps, to), "tileloaddt1", [], [some_lines!()], [],
                [
                    from = in(reg) from.start,
                    from_row = in(reg) from.row,
                    lines = in(reg) lines,
                    left = out(reg) _,
                ]
            );
        }
    } else {
        // SAFETY: as in `stream`.
        unsafe {
            product!(
                (block, ahead, steps, to), "tileloaddt1",
                [first_extra!()], [some_lines!(), every_extra!()], [extras!()],
                [
                    from = inout(reg) from.start => _,
                    from_row = inout(reg) from.row => _,
                    lines = in(reg) lines,
                    left = out(reg) _,
                    extra = inout(reg) extra => _,
                ]
            );
        }
    }
}

/// What a processor with tiles and their products of bfloat16 has besides.
#[derive(Clone, Copy)]
struct Features {
    bytes: bool,
}

impl Features {
    fn read() -> Option<Self> {
        const BF16: u32 = 1 << 22;
        const TILES: u32 = 1 << 24;
        const BYTES: u32 = 1 << 25;
        let features = __cpuid_count(7, 0).edx;
        let tiles = features & (BF16 | TILES) == BF16 | TILES;
        tiles.then_some(Self { bytes: features & BYTES != 0 })
    }
}

/// Asks the system for the tiles' state, which no process has before it asks.
#[cfg(target_os = "linux")]
fn may_use_tiles() -> bool {
    const ARCH_PRCTL: usize = 158;
    const REQUEST_PERMISSION: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let answer: isize;
    // SAFETY: a system call that changes nothing but which registers this process may use.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

#[cfg(not(target_os = "linux"))]
fn may_use_tiles() -> bool {
    false
}
