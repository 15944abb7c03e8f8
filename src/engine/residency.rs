//! Which adapter version sits in which slot. The only place that knows both.
use super::mix::ActivePart;
use crate::{
    adapter::{AdapterLease, AdapterName, VersionId},
    lora::AdapterSlot,
};
use std::collections::HashMap;

/// Versions in slots, bounded in number and in bytes: the least recently used goes first; one in use never goes, and
/// one on its way neither.
#[derive(Debug)]
pub(super) struct AdapterResidency {
    slots: Vec<Slot>,
    /// Where each version lies or is going to lie.
    places: HashMap<VersionId, usize>,
    /// Most bytes of all of them together.
    budget: usize,
    loading: usize,
    clock: u64,
    evictions: u64,
    /// Slots whose content has gone, for [`AdapterResidency::take_vacated`].
    vacated: Vec<AdapterSlot>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    held: Option<Held>,
    /// Running sequences that read it.
    users: usize,
    used_at: u64,
}

#[derive(Clone, Debug)]
struct Held {
    version: VersionId,
    name: AdapterName,
    /// Planned while it is on its way, exact from then on.
    bytes: usize,
    loading: bool,
    pinned: bool,
    /// Nobody can ask for the version any more.
    departed: bool,
}

/// Whether the adapters of a sequence are there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Readiness {
    /// All of them.
    Ready,
    /// Some are on their way, and none is missing.
    Coming,
    /// Some are neither here nor on their way.
    Missing,
}

/// An adapter on its way into a slot.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) slot: AdapterSlot,
    pub(super) lease: AdapterLease,
}

impl AdapterResidency {
    /// `slots` empty slots, which together hold at most `budget` bytes.
    pub(super) fn new(slots: usize, budget: usize) -> Self {
        Self {
            slots: vec![Slot::default(); slots],
            places: HashMap::new(),
            budget,
            loading: 0,
            clock: 0,
            evictions: 0,
            vacated: Vec::new(),
        }
    }

    /// Whether these adapters are in their slots.
    pub(super) fn readiness(&self, parts: &[ActivePart]) -> Readiness {
        let mut readiness = Readiness::Ready;
        for part in parts {
            match self.held(part.lease.id) {
                None => return Readiness::Missing,
                Some(held) if held.loading => readiness = Readiness::Coming,
                Some(_) => {}
            }
        }
        readiness
    }

    fn held(&self, version: VersionId) -> Option<&Held> {
        self.slots[*self.places.get(&version)?].held.as_ref()
    }

    /// The slots of adapters that are all there, in their order; they stay until given back with
    /// [`AdapterResidency::release`]. Whether they are there.
    #[must_use]
    pub(super) fn claim(&mut self, parts: &[ActivePart], slots: &mut Vec<AdapterSlot>) -> bool {
        if self.readiness(parts) != Readiness::Ready {
            return false;
        }
        for part in parts {
            let at = self.places[&part.lease.id];
            let slot = &mut self.slots[at];
            slot.users += 1;
            if let Some(held) = &mut slot.held {
                held.departed = false;
                held.pinned = part.lease.terms.pin;
            }
            slots.push(AdapterSlot(at));
        }
        true
    }

    /// Gives one claim back.
    pub(super) fn release(&mut self, slot: AdapterSlot) {
        self.clock += 1;
        let slot = &mut self.slots[slot.0];
        slot.users -= 1;
        slot.used_at = self.clock;
    }

    /// Makes room for those of `parts` that are missing, and puts them on their way: all of them or none. Nothing in
    /// use is evicted for it, nor what `keep` says. `None`: there is no room.
    pub(super) fn bring(
        &mut self,
        parts: &[ActivePart],
        keep: impl Fn(VersionId) -> bool,
    ) -> Option<Vec<Load>> {
        let may_go = |slot: &Slot| {
            let held = slot.held.as_ref();
            slot.users == 0 && held.is_none_or(|held| !held.loading && !keep(held.version))
        };
        let room = self.room(parts, may_go)?;
        Some(self.begin(parts, &room))
    }

    /// As [`AdapterResidency::bring`], for one who has waited long enough: where there is no room, these versions have
    /// to go first, those with the fewest users.
    pub(super) fn bring_or_hold(
        &mut self,
        parts: &[ActivePart],
    ) -> Result<Vec<Load>, Vec<VersionId>> {
        if let Some(loads) = self.bring(parts, |_| false) {
            return Ok(loads);
        }
        let room = self.room(parts, |_| true).unwrap_or_default();
        Err(room.into_iter().filter_map(|at| Some(self.slots[at].held.as_ref()?.version)).collect())
    }

    /// The slots to vacate, or that are empty, so that what is missing of `parts` fits.
    fn room(&self, parts: &[ActivePart], may_go: impl Fn(&Slot) -> bool) -> Option<Vec<usize>> {
        let missing = parts.iter().filter(|part| !self.places.contains_key(&part.lease.id));
        let (count, wanted) = missing.fold((0, 0_usize), |(count, bytes), part| {
            (count + 1, bytes.saturating_add(part.bytes))
        });
        let is_own = |slot: &Slot| {
            let held = slot.held.as_ref();
            held.is_some_and(|held| parts.iter().any(|part| part.lease.id == held.version))
        };
        let others = self.slots.iter().enumerate().filter(|(_, slot)| !is_own(slot));
        let mut others: Vec<_> = others.filter(|(_, slot)| may_go(slot)).collect();
        others.sort_by_key(|(_, slot)| slot.usefulness());
        let (mut room, mut bytes) = (Vec::new(), self.bytes());
        for (at, slot) in others {
            let fits = wanted.saturating_add(bytes) <= self.budget;
            if room.len() >= count && (fits || slot.held.is_none()) {
                // One more empty slot frees nothing; behind it are those that do.
                if fits {
                    break;
                }
                continue;
            }
            bytes -= slot.bytes();
            room.push(at);
        }
        // What is larger than all there may be still runs, with nothing beside it.
        let own: usize = self.slots.iter().filter(|slot| is_own(slot)).map(Slot::bytes).sum();
        let fits = wanted.saturating_add(bytes) <= self.budget || bytes == own;
        (room.len() >= count && fits).then_some(room)
    }

    /// Vacates `room` and puts the missing ones of `parts` there.
    fn begin(&mut self, parts: &[ActivePart], room: &[usize]) -> Vec<Load> {
        for at in room {
            self.evict(*at);
        }
        let mut loads = Vec::new();
        let mut room = room.iter();
        for part in parts {
            if self.places.contains_key(&part.lease.id) {
                continue;
            }
            let Some(&at) = room.next() else { break };
            self.slots[at].held = Some(Held {
                version: part.lease.id,
                name: part.lease.name.clone(),
                bytes: part.bytes,
                loading: true,
                pinned: part.lease.terms.pin,
                departed: false,
            });
            self.places.insert(part.lease.id, at);
            self.loading += 1;
            loads.push(Load { slot: AdapterSlot(at), lease: part.lease.clone() });
        }
        loads
    }

    fn evict(&mut self, at: usize) {
        if self.slots[at].held.is_some() {
            self.evictions += 1;
            self.vacate(at);
        }
    }

    fn vacate(&mut self, at: usize) {
        if let Some(held) = self.slots[at].held.take() {
            self.places.remove(&held.version);
            self.vacated.push(AdapterSlot(at));
        }
    }

    /// What was on its way to `slot` is there, and holds so many bytes. If that is more than was planned,
    /// others go that nobody uses and `keep` does not name.
    pub(super) fn loaded(
        &mut self,
        slot: AdapterSlot,
        bytes: usize,
        keep: impl Fn(VersionId) -> bool,
    ) {
        self.loading -= 1;
        self.clock += 1;
        let arrived = &mut self.slots[slot.0];
        arrived.used_at = self.clock;
        if let Some(held) = &mut arrived.held {
            (held.loading, held.bytes) = (false, bytes);
        }
        while self.bytes() > self.budget {
            let goes = |held: &Held| !held.loading && !keep(held.version);
            let unused = self.slots.iter().enumerate().filter(|(at, other)| {
                *at != slot.0 && other.users == 0 && other.held.as_ref().is_some_and(goes)
            });
            let Some((at, _)) = unused.min_by_key(|(_, slot)| slot.usefulness()) else { break };
            self.evict(at);
        }
    }

    /// What was on its way to `slot` does not come; which version that was.
    pub(super) fn failed(&mut self, slot: AdapterSlot) -> Option<VersionId> {
        self.loading -= 1;
        let version = self.version(slot);
        self.vacate(slot.0);
        version
    }

    /// The version was retired: its slot goes when its last sequence does.
    pub(super) fn forget(&mut self, version: VersionId) {
        let at = self.places.get(&version).copied();
        if let Some(held) = at.and_then(|at| self.slots[at].held.as_mut()) {
            held.departed = true;
        }
    }

    /// Vacates the slots of departed versions.
    pub(super) fn sweep(&mut self) {
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            let goes = |held: &Held| held.departed && !held.loading;
            if slot.users == 0 && slot.held.as_ref().is_some_and(goes) {
                self.vacate(at);
            }
        }
    }

    /// Names the slots vacated since the last time, so that their memory can go: before anything new comes there.
    pub(super) fn take_vacated(&mut self, vacated: &mut Vec<AdapterSlot>) {
        vacated.append(&mut self.vacated);
    }

    /// What lies in `slot` or is on its way there.
    pub(super) fn version(&self, slot: AdapterSlot) -> Option<VersionId> {
        self.slots[slot.0].held.as_ref().map(|held| held.version)
    }

    /// Names of what is in the slots.
    pub(super) fn names(&self) -> impl Iterator<Item = &AdapterName> + Clone {
        self.resident().map(|held| &held.name)
    }

    /// Versions of what is in the slots.
    pub(super) fn versions(&self) -> impl Iterator<Item = VersionId> + Clone {
        self.resident().map(|held| held.version)
    }

    fn resident(&self) -> impl Iterator<Item = &Held> + Clone {
        self.slots.iter().filter_map(|slot| slot.held.as_ref()).filter(|held| !held.loading)
    }

    /// Bytes of everything in the slots and on its way there.
    pub(super) fn bytes(&self) -> usize {
        self.slots.iter().map(Slot::bytes).sum()
    }

    /// How many are on their way.
    pub(super) fn loading(&self) -> usize {
        self.loading
    }

    /// Slots that hold something, or are going to.
    pub(super) fn used(&self) -> usize {
        self.places.len()
    }

    /// Whether some slot is empty, or holds what nobody uses.
    pub(super) fn has_unused(&self) -> bool {
        let unused =
            |slot: &Slot| slot.users == 0 && !slot.held.as_ref().is_some_and(|held| held.loading);
        self.slots.iter().any(unused)
    }

    /// Versions that made room for others.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// How many slots there are.
    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }
}

impl Slot {
    fn bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.bytes)
    }

    /// The least is the first to go: an empty one, one with few users, one that is not pinned, one used long ago.
    fn usefulness(&self) -> (bool, usize, bool, bool, u64) {
        let held = self.held.as_ref();
        let is = |what: fn(&Held) -> bool| held.is_some_and(what);
        (held.is_some(), self.users, is(|h| h.loading), is(|h| h.pinned), self.used_at)
    }
}
