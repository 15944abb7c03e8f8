//! What a product of tiles adds in its end: small products with what the same rows were made to before.
use super::amx::{GROUP, TILE};
use std::mem::offset_of;

/// Pairs in a cache line.
const LINE: usize = 16;

/// Another product with a panel, of what a block's rows were made to before: whole tiles too.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Extra<'a> {
    /// `[rows, products, TILE]` pairs, and bytes from one row to the next.
    x: *const u32,
    x_row: usize,
    /// `[products, TILE, TILE]` pairs for each half of the panel: the first, and how many bytes on the second.
    w: *const u32,
    half: usize,
    products: usize,
    /// How much of both to ask for before, in [`GROUP`] lines.
    groups: usize,
    /// Bytes to the one behind it, 0 behind the last.
    next: usize,
    /// What `w` is a part of.
    all: &'a [u32],
}

impl<'a> Extra<'a> {
    /// `x` is `[TILE, row]` pairs, of which `products` tiles count; `w` has `half` pairs for each tile of columns, of which
    /// the panel's are `tile` and the next one. What a product reads beyond its own is times 0. If `far`, they are asked
    /// for before.
    ///
    /// # Panics
    /// When a tile would be outside.
    pub(super) fn new(
        (x, row): (&'a [u32], usize),
        (w, half, tile): (&'a [u32], usize, usize),
        products: usize,
        far: bool,
    ) -> Self {
        assert!(products > 0 && products * TILE <= row && TILE * row <= x.len(), "whole rows");
        let mut extra = Self {
            x: x.as_ptr(),
            x_row: row * size_of::<u32>(),
            w: w.as_ptr(),
            half: half * size_of::<u32>(),
            products,
            groups: if far { (half + products * TILE * TILE).div_ceil(GROUP * LINE) } else { 0 },
            next: size_of::<Self>(),
            all: w,
        };
        extra.turn_to(tile);
        extra
    }

    fn turn_to(&mut self, tile: usize) {
        let half = self.half / size_of::<u32>();
        let end = (tile + 1) * half + self.products * TILE * TILE;
        assert!(end <= self.all.len(), "whole tiles");
        self.w = self.all[tile * half..].as_ptr();
    }
}

/// Those of a block: one for each of its rows at most, and an end.
pub(super) struct Extras<'a> {
    all: [Extra<'a>; TILE + 1],
    count: usize,
}

const END: Extra<'_> = Extra {
    x: std::ptr::null(),
    x_row: 0,
    w: std::ptr::null(),
    half: 0,
    products: 0,
    groups: 0,
    next: 0,
    all: &[],
};

impl Default for Extras<'_> {
    fn default() -> Self {
        Self { all: [END; TILE + 1], count: 0 }
    }
}

impl<'a> Extras<'a> {
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// At other columns: those of the panel that begins with `tile`.
    ///
    /// # Panics
    /// When a tile would be outside.
    pub(super) fn turn_to(&mut self, tile: usize) {
        self.all[..self.count].iter_mut().for_each(|extra| extra.turn_to(tile));
    }

    /// # Panics
    /// When there are sixteen.
    pub(super) fn push(&mut self, extra: Extra<'a>) {
        self.count += 1;
        self.all[self.count] = END;
        self.all[self.count - 1] = extra;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where the assembly begins, null if there are none.
    pub(super) fn start_of(all: Option<&Self>) -> *const () {
        let some = all.filter(|all| !all.is_empty());
        some.map_or(std::ptr::null(), |some| some.all.as_ptr().cast())
    }
}

/// As the assembly reads them.
const _: () = {
    assert!(offset_of!(Extra<'_>, x) == 0 && offset_of!(Extra<'_>, x_row) == 8);
    assert!(offset_of!(Extra<'_>, w) == 16 && offset_of!(Extra<'_>, half) == 24);
    assert!(offset_of!(Extra<'_>, products) == 32 && offset_of!(Extra<'_>, groups) == 40);
    assert!(offset_of!(Extra<'_>, next) == 48);
};
