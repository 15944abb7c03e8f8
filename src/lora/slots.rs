//! The adapters on the device: for each site, what every adapter slot holds there, at its exact rank.
use super::{LinearDelta, LoraWeights, Site};
use crate::kernel::{Kernels, Precision, Result};
use std::collections::HashMap;

/// Index of one resident adapter. "Slot" alone means a KV row; this one is always "adapter slot".
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AdapterSlot(pub usize);

/// For every site, what each slot holds.
///
/// Beside a base in f32 on the CPU a slot shares the adapter's own memory; otherwise it is a copy of its own, which
/// lives until the slot is cleared, while the adapter's f32 factors stay with whoever leases them.
#[derive(Debug)]
pub struct LoraSlots {
    sites: HashMap<Site, Vec<Option<LinearDelta>>>,
    /// What the slots hold where no resident adapter changes anything.
    nothing: Vec<Option<LinearDelta>>,
    /// How the base is stored.
    precision: Precision,
}

impl LoraSlots {
    /// Room for `slots` adapters beside a base that is stored in `precision`.
    pub fn new(slots: usize, precision: Precision) -> Self {
        Self { sites: HashMap::new(), nothing: vec![None; slots], precision }
    }

    /// How many adapters fit.
    pub fn capacity(&self) -> usize {
        self.nothing.len()
    }

    /// Puts an adapter into `slot`; what was there is gone. On an error the slot is empty.
    ///
    /// # Errors
    /// When the copy to the device fails.
    ///
    /// # Panics
    /// When `slot` is not below [`LoraSlots::capacity`].
    pub fn load(
        &mut self,
        slot: AdapterSlot,
        weights: &LoraWeights,
        kernels: &dyn Kernels,
    ) -> Result<()> {
        assert!(slot.0 < self.capacity(), "residency hands out slots below the capacity");
        self.clear(slot);
        let pairs = weights
            .sites()
            .filter_map(|(site, delta)| Some((site, delta.low_rank.as_ref()?)))
            .map(|(site, pair)| Ok((site, kernels.load_low_rank(pair, self.precision)?)))
            .collect::<Result<Vec<_>>>()?;
        for (site, pair) in pairs {
            let held = self.sites.entry(site).or_insert_with(|| self.nothing.clone());
            held[slot.0] = Some(pair.into());
        }
        Ok(())
    }

    /// Empties `slot` and lets its memory go.
    pub fn clear(&mut self, slot: AdapterSlot) {
        self.sites.retain(|_, held| {
            held[slot.0] = None;
            held.iter().any(Option::is_some)
        });
    }

    /// What each slot holds at `site`.
    pub fn at(&self, site: Site) -> &[Option<LinearDelta>] {
        self.sites.get(&site).unwrap_or(&self.nothing)
    }
}
