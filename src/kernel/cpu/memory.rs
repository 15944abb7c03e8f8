//! Long-lived memory in large pages: weights, adapters' factors and the KV cache are read from end to end at every step,
//! and with small pages the walks through the page tables cost as much as the reads.
#![expect(unsafe_code, reason = "pieces of one mapping, seen as elements")]
use super::super::{KernelError, Result};
use memmap2::MmapMut;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// A large page, and how a mapping is aligned.
pub(super) const PAGE: usize = 2 << 20;
/// What many pieces share; what is never touched takes no memory.
const MAPPING: usize = 32 * PAGE;
/// A cache line, and how a piece is aligned: no vector of it straddles two lines.
const LINE: usize = 64;

/// Elements of four bytes without padding, for which every bit pattern is a value, zeros included.
///
/// # Safety
/// As it says.
pub(in super::super) unsafe trait Plain:
    Copy + Send + Sync + 'static
{
}
// SAFETY: four bytes, no padding, no invalid pattern.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}

/// Hands out zeroed memory; what it handed out outlives it.
///
/// A mapping goes when all its pieces have gone, so pieces of one arena should live equally long.
pub(super) struct Arena {
    open: Mutex<Option<Open>>,
    /// A mapping's size unless one piece needs more.
    mapping: usize,
}

impl Default for Arena {
    fn default() -> Self {
        Self { open: Mutex::default(), mapping: MAPPING }
    }
}

/// A mapping that still has room.
struct Open {
    mapping: Arc<Mapping>,
    used: usize,
}

struct Mapping {
    start: *mut u8,
    len: usize,
    /// Keeps the memory; all access is through `start`.
    _map: MmapMut,
}

// SAFETY: the memory belongs to the mapping, and every piece of it to one `Pages` alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Arena {
    /// Gives each piece a mapping of its own, for what comes and goes by itself.
    pub(super) fn of_single_pieces() -> Self {
        Self::with_room_for(0)
    }

    /// For pieces of `bytes` in all, which come and go together.
    pub(super) fn with_room_for(bytes: usize) -> Self {
        Self { mapping: bytes, ..Self::default() }
    }

    /// For pieces too small for a large page of their own. One of them keeps its page, whatever has gone from it.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn of_shared_pages() -> Self {
        Self::with_room_for(PAGE)
    }

    /// `len` zeros.
    ///
    /// # Errors
    /// When the system has no address space left.
    pub(super) fn zeroed<T: Plain>(&self, len: usize) -> Result<Pages<T>> {
        let bytes = len
            .checked_mul(size_of::<T>())
            .and_then(|bytes| bytes.checked_next_multiple_of(LINE))
            .filter(|bytes| bytes.checked_add(PAGE).is_some())
            .ok_or_else(|| {
                KernelError::Unsupported(format!("{len} values are beyond all memory"))
            })?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = open.take().filter(|open| open.mapping.len - open.used >= bytes);
        let Open { mapping, used } = match fitting {
            Some(open) => open,
            None => Open { mapping: Arc::new(Mapping::new(bytes.max(self.mapping))?), used: 0 },
        };
        let piece = Pages { mapping: Arc::clone(&mapping), start: used, len, element: PhantomData };
        *open = Some(Open { mapping, used: used + bytes });
        Ok(piece)
    }
}

impl Mapping {
    fn new(len: usize) -> Result<Self> {
        let refused =
            |e| KernelError::Unsupported(format!("no memory for {len} bytes of weights: {e}"));
        let large = large_pages(len) * PAGE;
        let alignment = if large == 0 { LINE } else { PAGE };
        let mut map = MmapMut::map_anon(len.max(large) + alignment).map_err(refused)?;
        let aligned = map.as_ptr().align_offset(alignment);
        #[cfg(target_os = "linux")]
        if large > 0
            && let Err(error) = map.advise_range(memmap2::Advice::HugePage, aligned, large)
        {
            tracing::debug!(%error, "no large pages; computing from small ones");
        }
        let start = map[aligned..].as_mut_ptr();
        Ok(Self { start, len, _map: map })
    }
}

/// How many large pages `len` bytes take: the last if they fill at least half of it, else the rest is small pages.
fn large_pages(len: usize) -> usize {
    (len + PAGE / 2) / PAGE
}

/// How many bytes of an arena `len` elements of four bytes take.
#[cfg(any(target_arch = "x86_64", test))]
pub(super) fn piece_bytes(len: usize) -> usize {
    (len * size_of::<u32>()).next_multiple_of(LINE)
}

/// A fixed number of elements, zero at first.
pub(in super::super) struct Pages<T> {
    mapping: Arc<Mapping>,
    /// In bytes.
    start: usize,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Plain> Pages<T> {
    /// The memory itself.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the arena gave this piece the range alone, `len` elements of four initialised bytes.
        unsafe { std::slice::from_raw_parts(self.start().cast_const(), self.len * size_of::<T>()) }
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: the arena gave this piece a range of the mapping that begins here.
        unsafe { self.mapping.start.add(self.start) }
    }
}

impl<T: Plain> Deref for Pages<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: as in `bytes`; the start is a cache line's, and `Plain` allows any pattern.
        unsafe { std::slice::from_raw_parts(self.start().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Pages<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start().cast(), self.len) }
    }
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} elements", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zero_begin_at_a_line_and_keep_what_is_written() {
        let arena = Arena::default();
        let mut pieces: Vec<Pages<u32>> =
            [21, 0, 16, MAPPING / 4 + 1, 5].map(|len| arena.zeroed(len).unwrap()).into();
        drop(arena);
        for (i, piece) in pieces.iter_mut().enumerate() {
            assert_eq!(piece.as_ptr() as usize % LINE, 0);
            assert!(piece.iter().all(|value| *value == 0));
            piece.fill(i as u32);
        }
        for (i, piece) in pieces.iter().enumerate() {
            assert!(piece.iter().all(|value| *value == i as u32));
        }
        assert_eq!(pieces[0].bytes().len(), 84);
    }

    #[test]
    fn a_large_page_is_at_least_half_full() {
        let pages = [0, PAGE / 2 - 1, PAGE / 2, PAGE, 3 * PAGE / 2 - 1, 3 * PAGE / 2, MAPPING];
        assert_eq!(pages.map(large_pages), [0, 0, 1, 1, 1, 2, MAPPING / PAGE]);
    }

    #[test]
    fn pieces_that_go_together_share_a_mapping_of_their_size() {
        let lens = [3 * PAGE / 4 / 4, 5, PAGE / 2 / 4];
        let arena = Arena::with_room_for(lens.iter().map(|len| piece_bytes(*len)).sum());
        let mut pieces: Vec<Pages<u32>> = lens.map(|len| arena.zeroed(len).unwrap()).into();
        assert!(pieces.iter().all(|piece| Arc::ptr_eq(&piece.mapping, &pieces[0].mapping)));
        assert_eq!(pieces[0].mapping.len, 3 * PAGE / 4 + LINE + PAGE / 2);
        assert_eq!(pieces[0].as_ptr() as usize % PAGE, 0);
        drop(arena);
        let mapping = Arc::downgrade(&pieces[0].mapping);
        pieces.truncate(1);
        assert!(mapping.upgrade().is_some());
        pieces.clear();
        assert!(mapping.upgrade().is_none());
    }

    #[test]
    fn a_single_piece_takes_its_mapping_with_it() {
        let arena = Arena::of_single_pieces();
        let [first, second] = [100, 200].map(|len| arena.zeroed::<f32>(len).unwrap());
        let (mapping, kept) = (Arc::downgrade(&first.mapping), Arc::downgrade(&second.mapping));
        assert!(!mapping.ptr_eq(&kept));
        drop(first);
        assert!(mapping.upgrade().is_none());
        assert_eq!(kept.upgrade().unwrap().len, 832);
    }
}
