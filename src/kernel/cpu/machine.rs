//! What every kernel works with: the instruction set, the threads, the memory.
use super::super::{Act, Result};
use super::attention::Unit;
use super::buffers::Buffers;
#[cfg(target_arch = "x86_64")]
use super::extras::Extra;
use super::isa::Level;
#[cfg(target_arch = "x86_64")]
use super::lora_panels::Piece;
use super::memory::Arena;
use super::pool::Pool;

/// Values one thread handles before a second is worth waking.
pub(super) const SERIAL_VALUES: usize = 32_768;

pub(super) struct Machine {
    pub(super) level: Level,
    pub(super) pool: Pool,
    pub(super) floats: Buffers<f32>,
    pub(super) words: Buffers<u32>,
    pub(super) units: Buffers<Unit>,
    #[cfg(target_arch = "x86_64")]
    pub(super) pieces: Buffers<Piece>,
    #[cfg(target_arch = "x86_64")]
    pub(super) extras: Buffers<Extra>,
    pub(super) arena: Arena,
    /// For adapters that do not fill a large page.
    #[cfg(target_arch = "x86_64")]
    pub(super) small: Arena,
}

impl Machine {
    pub(super) fn new(level: Level, pool: Pool) -> Self {
        Self {
            level,
            pool,
            floats: Buffers::default(),
            words: Buffers::default(),
            units: Buffers::default(),
            #[cfg(target_arch = "x86_64")]
            pieces: Buffers::default(),
            #[cfg(target_arch = "x86_64")]
            extras: Buffers::default(),
            arena: Arena::default(),
            #[cfg(target_arch = "x86_64")]
            small: Arena::of_shared_pages(),
        }
    }

    /// A new activation whose values `fill` writes, all of them.
    pub(super) fn act(
        &self,
        rows: usize,
        cols: usize,
        fill: impl FnOnce(&mut [f32]) -> Result<()>,
    ) -> Result<Act> {
        let mut act = Act::recycled(self.floats.take(rows * cols), rows, cols, &self.floats);
        fill(act.values_mut()?)?;
        Ok(act)
    }
}

/// How many rows of `cols` values to hand to a thread at once.
pub(super) fn rows_per_item(cols: usize) -> usize {
    (SERIAL_VALUES / cols.max(1)).max(1)
}
