//! What a product of tiles adds in its end: small products with what the same rows were made to before.
#![expect(unsafe_code, reason = "addresses that the assembly follows")]
use super::amx::{GROUP, TILE};
use super::buffers::Scratch;
use super::machine::Machine;
use std::marker::PhantomData;
use std::mem::offset_of;

/// Pairs in a cache line.
const LINE: usize = 16;

/// Another product with a panel, of what a block's rows were made to before: whole tiles too. By default the end of some.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Extra {
    /// `[rows, products, TILE]` pairs, and bytes from one row to the next.
    x: *const u32,
    x_row: usize,
    /// `[products, TILE, TILE]` pairs for each half of the panel: the first, and how many bytes on the second.
    w: *const u32,
    half: usize,
    products: usize,
    /// How much of both to ask for before, in [`GROUP`] lines.
    groups: usize,
    /// Bytes to the one behind it, 0 at the end.
    next: usize,
    /// What `w` is a part of.
    all: *const u32,
    len: usize,
}

// SAFETY: addresses and numbers; only `ExtraList` follows them, which borrows what lies there.
unsafe impl Send for Extra {}

impl Default for Extra {
    fn default() -> Self {
        let nowhere = std::ptr::null();
        let (x, w, all) = (nowhere, nowhere, nowhere);
        Self { x, x_row: 0, w, half: 0, products: 0, groups: 0, next: 0, all, len: 0 }
    }
}

impl Extra {
    /// # Panics
    /// When a tile would be outside.
    fn turn_to(&mut self, tile: usize) {
        let half = self.half / size_of::<u32>();
        let end = (tile + 1) * half + self.products * TILE * TILE;
        assert!(end <= self.len, "whole tiles");
        self.w = self.all.wrapping_add(tile * half);
    }
}

/// Those of all blocks, at one panel after the other.
pub(super) struct ExtraList<'a> {
    /// Each block's, and behind them an end.
    all: Scratch<'a, Extra>,
    len: usize,
    /// Where the next block's begin.
    next: usize,
    /// Their rows and weights.
    borrowed: PhantomData<&'a [u32]>,
}

/// Those of one block, with the end.
#[derive(Clone, Copy)]
pub(super) struct Extras<'a>(&'a [Extra]);

impl<'a> ExtraList<'a> {
    /// With room for `extras` of `blocks`.
    pub(super) fn new(machine: &'a Machine, extras: usize, blocks: usize) -> Self {
        let all = machine.extras.scratch(extras + blocks);
        Self { all, len: 0, next: 0, borrowed: PhantomData }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Another one of the block at hand: `x` is `[TILE, row]` pairs, of which `products` tiles count; `w` has `half` pairs
    /// for each tile of columns. What a product reads beyond its own is times 0. If `far`, its weights are asked for before.
    ///
    /// # Panics
    /// When a tile of rows would be outside, or there is no room.
    pub(super) fn push(
        &mut self,
        (x, row): (&'a [u32], usize),
        (w, half): (&'a [u32], usize),
        products: usize,
        far: bool,
    ) {
        assert!(products > 0 && products * TILE <= row && TILE * row <= x.len(), "whole rows");
        let lines = (half + products * TILE * TILE).div_ceil(GROUP * LINE);
        self.all[self.len] = Extra {
            x: x.as_ptr(),
            x_row: row * size_of::<u32>(),
            w: w.as_ptr(),
            half: half * size_of::<u32>(),
            products,
            groups: if far { lines } else { 0 },
            next: size_of::<Extra>(),
            all: w.as_ptr(),
            len: w.len(),
        };
        self.len += 1;
    }

    /// The block has no more.
    ///
    /// # Panics
    /// When there is no room.
    pub(super) fn end_block(&mut self) {
        self.all[self.len] = Extra::default();
        self.len += 1;
    }

    /// To the panel whose columns are tile `tile` of the weights and the next one.
    ///
    /// # Panics
    /// When a tile would be outside.
    pub(super) fn turn_to(&mut self, tile: usize) {
        let extras = self.all[..self.len].iter_mut().filter(|extra| extra.next > 0);
        extras.for_each(|extra| extra.turn_to(tile));
        self.next = 0;
    }

    /// Those of the next block; none, where there are no more blocks.
    pub(super) fn next_block(&mut self) -> Extras<'_> {
        let rest = &self.all[self.next.min(self.len)..self.len];
        let count = rest.iter().take_while(|extra| extra.next > 0).count();
        self.next += count + 1;
        Extras(&rest[..rest.len().min(count + 1)])
    }
}

impl Extras<'_> {
    pub(super) fn is_empty(self) -> bool {
        self.0.len() < 2
    }

    /// Where the assembly begins, null if there are none.
    pub(super) fn start_of(all: Option<Self>) -> *const () {
        let some = all.filter(|all| !all.is_empty());
        some.map_or(std::ptr::null(), |some| some.0.as_ptr().cast())
    }
}

/// As the assembly reads them.
const _: () = {
    assert!(offset_of!(Extra, x) == 0 && offset_of!(Extra, x_row) == 8);
    assert!(offset_of!(Extra, w) == 16 && offset_of!(Extra, half) == 24);
    assert!(offset_of!(Extra, products) == 32 && offset_of!(Extra, groups) == 40);
    assert!(offset_of!(Extra, next) == 48);
};
