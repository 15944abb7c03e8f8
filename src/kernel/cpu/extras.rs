//! What a product of tiles adds in its end: small products with what the same rows were made to before.
use super::amx::TILE;
use std::marker::PhantomData;
use std::mem::offset_of;

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
    /// Cache lines to ask for behind both.
    lines: usize,
    /// Whether another one lies behind it: 0 or 1.
    more: usize,
    borrowed: PhantomData<&'a [u32]>,
}

impl<'a> Extra<'a> {
    /// `x` is `[TILE, row]` pairs, of which `products` tiles count; in `w` the second half begins at `half`, and what a
    /// product reads beyond its own is times 0. `lines` of what comes next are asked for.
    ///
    /// # Panics
    /// When a tile would be outside.
    pub(super) fn new(
        (x, row): (&'a [u32], usize),
        (w, half): (&'a [u32], usize),
        products: usize,
        lines: usize,
    ) -> Self {
        assert!(products * TILE <= row && TILE * row <= x.len(), "whole rows");
        assert!(products > 0 && half + products * TILE * TILE <= w.len(), "whole tiles");
        Self {
            x: x.as_ptr(),
            x_row: row * size_of::<u32>(),
            w: w.as_ptr(),
            half: half * size_of::<u32>(),
            products,
            lines,
            more: 0,
            borrowed: PhantomData,
        }
    }
}

/// Those of a block: one for each of its rows at most.
pub(super) struct Extras<'a> {
    all: [Extra<'a>; TILE],
    count: usize,
}

impl Default for Extras<'_> {
    fn default() -> Self {
        const NONE: Extra<'_> = Extra {
            x: std::ptr::null(),
            x_row: 0,
            w: std::ptr::null(),
            half: 0,
            products: 0,
            lines: 0,
            more: 0,
            borrowed: PhantomData,
        };
        Self { all: [NONE; TILE], count: 0 }
    }
}

impl<'a> Extras<'a> {
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// # Panics
    /// When there are sixteen.
    pub(super) fn push(&mut self, extra: Extra<'a>) {
        self.all[self.count] = extra;
        if let Some(last) = self.count.checked_sub(1) {
            self.all[last].more = 1;
        }
        self.count += 1;
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
    assert!(offset_of!(Extra<'_>, products) == 32 && offset_of!(Extra<'_>, lines) == 40);
    assert!(offset_of!(Extra<'_>, more) == 48 && size_of::<Extra<'_>>() == 56);
};
