//! The system's allocator, which counts while it is asked to.
#![expect(unsafe_code, reason = "an allocator is an unsafe trait")]
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

thread_local! {
    static LEFT_OUT: Cell<bool> = const { Cell::new(false) };
}

/// What every thread of the process allocates with.
pub(crate) struct Counting {
    on: AtomicBool,
    allocations: AtomicUsize,
}

impl Counting {
    pub(crate) const fn new() -> Self {
        Self { on: AtomicBool::new(false), allocations: AtomicUsize::new(0) }
    }

    /// Whether to count from here on.
    pub(crate) fn count(&self, on: bool) {
        self.on.store(on, SeqCst);
    }

    /// What this thread asks for is not counted.
    pub(crate) fn leave_out_this_thread() {
        LEFT_OUT.set(true);
    }

    /// How often any other thread has asked for memory meanwhile; the next count begins at 0.
    pub(crate) fn take(&self) -> usize {
        self.allocations.swap(0, SeqCst)
    }

    fn asked(&self) {
        if self.on.load(SeqCst) && !LEFT_OUT.get() {
            self.allocations.fetch_add(1, SeqCst);
        }
    }
}

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.asked();
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.asked();
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.realloc(memory, layout, size) }
    }
}
