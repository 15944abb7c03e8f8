//! Which adapter version sits in which slot. The only place that knows both.
use crate::{
    adapter::{AdapterLease, AdapterName, VersionId},
    lora::AdapterSlot,
};

/// The least recently used version goes first; one in use never goes.
#[derive(Debug)]
pub(super) struct AdapterResidency {
    slots: Vec<Slot>,
    clock: u64,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    resident: Option<(VersionId, AdapterName)>,
    /// Running sequences that read it.
    users: usize,
    used_at: u64,
    /// Nobody can ask for the version any more.
    departed: bool,
}

/// A slot that stays until it is given back with [`AdapterResidency::release`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Claim {
    pub(super) slot: AdapterSlot,
    /// The leased weights have to be copied there first.
    pub(super) load: bool,
}

impl AdapterResidency {
    /// `slots` empty slots.
    pub(super) fn new(slots: usize) -> Self {
        Self { slots: vec![Slot::default(); slots], clock: 0 }
    }

    /// A slot for each of `leases`, which are different versions, in their order. `None`: too many slots are in use
    /// by other versions, and nothing is claimed; try again next step.
    pub(super) fn claim<'a>(
        &mut self,
        leases: impl Iterator<Item = &'a AdapterLease> + Clone,
    ) -> Option<Vec<Claim>> {
        // The slots that hold one of them already are not for the others to take.
        let is_wanted = |slot: &Slot| leases.clone().any(|lease| slot.holds(lease.id));
        let resident = self.slots.iter().filter(|slot| is_wanted(slot)).count();
        let unused = self.slots.iter().filter(|slot| slot.users == 0 && !is_wanted(slot)).count();
        if leases.clone().count() > resident + unused {
            return None;
        }
        let mut claims: Vec<_> =
            leases.clone().map(|lease| self.claim_resident(lease.id)).collect();
        for (claim, lease) in claims.iter_mut().zip(leases) {
            if claim.is_none() {
                *claim = self.claim_other(lease);
            }
        }
        claims.into_iter().collect()
    }

    /// The slot that holds `version` already.
    fn claim_resident(&mut self, version: VersionId) -> Option<Claim> {
        let at = self.slots.iter().position(|slot| slot.holds(version))?;
        let slot = &mut self.slots[at];
        slot.users += 1;
        slot.departed = false;
        Some(Claim { slot: AdapterSlot(at), load: false })
    }

    /// A slot that holds something else, or nothing, and that nobody uses.
    fn claim_other(&mut self, lease: &AdapterLease) -> Option<Claim> {
        let at = self.least_useful()?;
        let slot = &mut self.slots[at];
        slot.users += 1;
        slot.departed = false;
        slot.resident = Some((lease.id, lease.name.clone()));
        Some(Claim { slot: AdapterSlot(at), load: true })
    }

    /// An empty slot, or else the one that was used longest ago.
    fn least_useful(&self) -> Option<usize> {
        let unused = self.slots.iter().enumerate().filter(|(_, slot)| slot.users == 0);
        unused.min_by_key(|(_, slot)| (slot.resident.is_some(), slot.used_at)).map(|(at, _)| at)
    }

    /// Gives one claim back.
    pub(super) fn release(&mut self, slot: AdapterSlot) {
        self.clock += 1;
        let slot = &mut self.slots[slot.0];
        slot.users -= 1;
        slot.used_at = self.clock;
    }

    /// The version was retired: its slot goes when its last sequence does.
    pub(super) fn forget(&mut self, version: VersionId) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.holds(version)) {
            slot.departed = true;
        }
    }

    /// The copy into `slot` failed: what lies there is nobody's.
    pub(super) fn discard(&mut self, slot: AdapterSlot) {
        self.slots[slot.0].resident = None;
    }

    /// Vacates the slots of departed versions and names them, so that their memory can go.
    pub(super) fn sweep(&mut self) -> Vec<AdapterSlot> {
        let mut swept = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if slot.departed && slot.users == 0 {
                *slot = Slot::default();
                swept.push(AdapterSlot(at));
            }
        }
        swept
    }

    /// Names of what is resident.
    pub(super) fn names(&self) -> impl Iterator<Item = &AdapterName> + Clone {
        self.slots.iter().filter_map(|slot| slot.resident.as_ref()).map(|(_, name)| name)
    }

    /// How many slots there are.
    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }
}

impl Slot {
    fn holds(&self, version: VersionId) -> bool {
        self.resident.as_ref().is_some_and(|(id, _)| *id == version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::lease;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    fn claim_all(residency: &mut AdapterResidency, names: &[&str]) -> Option<Vec<(usize, bool)>> {
        let leases: Vec<_> = names.iter().map(|name| lease(name)).collect();
        let claims = residency.claim(leases.iter())?;
        Some(claims.into_iter().map(|claim| (claim.slot.0, claim.load)).collect())
    }

    fn claim(residency: &mut AdapterResidency, name: &str) -> Option<(usize, bool)> {
        Some(claim_all(residency, &[name])?[0])
    }

    #[test]
    fn the_least_recently_used_version_makes_room() {
        let mut residency = AdapterResidency::new(2);
        assert_eq!(claim(&mut residency, "a"), Some((0, true)));
        assert_eq!(claim(&mut residency, "b"), Some((1, true)));
        assert_eq!(claim(&mut residency, "c"), None, "both are in use");
        residency.release(AdapterSlot(1));
        residency.release(AdapterSlot(0));
        assert_eq!(claim(&mut residency, "a"), Some((0, false)));
        assert_eq!(claim(&mut residency, "c"), Some((1, true)));
    }

    #[test]
    fn a_departed_version_leaves_with_its_last_sequence() {
        let mut residency = AdapterResidency::new(1);
        claim(&mut residency, "a");
        residency.forget(lease("a").id);
        assert!(residency.sweep().is_empty(), "still in use");
        residency.release(AdapterSlot(0));
        assert_eq!(residency.sweep(), [AdapterSlot(0)]);
        assert_eq!(residency.names().count(), 0);
        assert_eq!(claim(&mut residency, "a"), Some((0, true)));
    }

    #[test]
    fn a_failed_copy_is_not_taken_for_the_adapter() {
        let mut residency = AdapterResidency::new(1);
        claim(&mut residency, "a");
        residency.discard(AdapterSlot(0));
        residency.release(AdapterSlot(0));
        assert_eq!(claim(&mut residency, "a"), Some((0, true)));
    }

    #[test]
    fn a_mix_gets_all_its_slots_or_none() {
        let mut residency = AdapterResidency::new(2);
        assert_eq!(claim(&mut residency, "a"), Some((0, true)));
        assert_eq!(claim_all(&mut residency, &["b", "c"]), None, "one slot for two");
        assert_eq!(residency.names().count(), 1, "nothing was evicted for it");
        residency.release(AdapterSlot(0));
        // `a` was used longest ago, and still is not evicted for the `b` before it.
        let both = claim_all(&mut residency, &["b", "a"]);
        assert_eq!(both, Some(vec![(1, true), (0, false)]));
        assert_eq!(claim_all(&mut residency, &["a"]), Some(vec![(0, false)]));
        assert_eq!(claim(&mut residency, "c"), None);
        assert_eq!(claim_all(&mut residency, &[]), Some(vec![]), "the base needs none");
    }

    proptest! {
        #[test]
        fn a_claimed_slot_is_never_evicted(
            slots in 1_usize..4,
            steps in prop::collection::vec(
                (0_u8..4, prop::collection::btree_set(0_usize..6, 1..4)),
                1..80,
            ),
        ) {
            let mut residency = AdapterResidency::new(slots);
            let mut claims: Vec<(AdapterSlot, VersionId)> = Vec::new();
            let mut content: HashMap<AdapterSlot, VersionId> = HashMap::new();
            for (action, which) in steps {
                let leases: Vec<_> = which.iter().map(|n| lease(&format!("adapter{n}"))).collect();
                match action {
                    0 | 1 => {
                        let used = |n: &AdapterLease| claims.iter().any(|(_, id)| *id == n.id);
                        let others: HashSet<_> = claims.iter().map(|(slot, _)| slot).collect();
                        let needed = leases.iter().filter(|lease| !used(lease)).count();
                        let claimed = residency.claim(leases.iter());
                        prop_assert_eq!(claimed.is_some(), needed <= slots - others.len());
                        for (claim, lease) in claimed.iter().flatten().zip(&leases) {
                            if claim.load {
                                content.insert(claim.slot, lease.id);
                            }
                            claims.push((claim.slot, lease.id));
                        }
                    }
                    2 if !claims.is_empty() => {
                        let (slot, _) = claims.swap_remove(which.len() % claims.len());
                        residency.release(slot);
                    }
                    _ => {
                        for lease in &leases {
                            residency.forget(lease.id);
                        }
                        for slot in residency.sweep() {
                            content.remove(&slot);
                        }
                    }
                }
                for (slot, version) in &claims {
                    prop_assert_eq!(content.get(slot), Some(version));
                }
            }
            for (slot, _) in claims {
                residency.release(slot);
            }
            let free: Vec<_> = (0..slots).map(|n| lease(&format!("other{n}"))).collect();
            prop_assert!(residency.claim(free.iter()).is_some(), "a slot leaked");
        }
    }
}
