//! Who is next: fair between adapters, first come first served within one, and nobody starves.
use super::{mix::Versions, sequence::Sequence};
use std::collections::{HashMap, HashSet, VecDeque};

/// Running sequences of each mix of versions, whatever their weights; the empty one is the base model.
pub(super) type RunningCounts = HashMap<Versions, usize>;

/// Sequences that wait for a place in the batch, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct WaitingQueue {
    sequences: VecDeque<Sequence>,
    /// How often somebody was taken since the first one became the first.
    overtakes: usize,
}

impl WaitingQueue {
    /// After this many others went before it, the first one holds everybody up until it can start.
    pub(super) const MAX_OVERTAKES: usize = 32;

    /// At the end.
    pub(super) fn push(&mut self, sequence: Sequence) {
        self.sequences.push_back(sequence);
    }

    /// Sequences that ran already, oldest first, to the front.
    pub(super) fn put_back(&mut self, preempted: Vec<Sequence>) {
        for sequence in preempted.into_iter().rev() {
            self.sequences.push_front(sequence);
        }
    }

    /// Index of the next one to start: of the mix that has the fewest sequences running.
    ///
    /// Mixes in `without_slot` cannot start now. `None` when nobody can, or when the first one
    /// cannot and has waited long enough.
    pub(super) fn next(
        &self,
        without_slot: &HashSet<Versions>,
        running: &RunningCounts,
    ) -> Option<usize> {
        let can_start = |s: &Sequence| !without_slot.contains(s.versions());
        let first = self.sequences.front()?;
        if first.was_preempted() || self.overtakes >= Self::MAX_OVERTAKES {
            return can_start(first).then_some(0);
        }
        let candidates = self.sequences.iter().enumerate().filter(|(_, s)| can_start(s));
        let fewest = candidates.min_by_key(|(_, s)| running.get(s.versions()).copied());
        fewest.map(|(index, _)| index)
    }

    /// Removes the one at `index`, which [`WaitingQueue::next`] named and which starts now.
    pub(super) fn take(&mut self, index: usize) -> Sequence {
        self.overtakes = if index == 0 { 0 } else { self.overtakes + 1 };
        self.sequences.remove(index).expect("the queue has not changed since it was named")
    }

    /// The one at `index`, which [`WaitingQueue::next`] named.
    pub(super) fn get(&self, index: usize) -> &Sequence {
        &self.sequences[index]
    }

    /// Lets those go whose callers have gone.
    pub(super) fn drop_over(&mut self) {
        self.sequences.retain(|sequence| !sequence.is_over());
    }

    /// All of them, leaving none.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Sequence> + '_ {
        self.sequences.drain(..)
    }

    /// In order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Sequence> + Clone {
        self.sequences.iter()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.sequences.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        AdapterMix,
        testing::{lease, sequence},
    };

    fn queue(adapters: &[&str]) -> WaitingQueue {
        let mut queue = WaitingQueue::default();
        for (id, name) in (0..).zip(adapters) {
            queue.push(sequence(id, of(name)).0);
        }
        queue
    }

    /// All of one adapter; nothing is the base.
    fn of(name: &str) -> AdapterMix {
        if name.is_empty() { AdapterMix::default() } else { lease(name).into() }
    }

    fn key(name: &str) -> Versions {
        sequence(0, of(name)).0.versions().clone()
    }

    #[test]
    fn the_adapter_with_the_fewest_running_is_next() {
        let queue = queue(&["a", "a", "b", "c"]);
        let counts = || RunningCounts::from([(key("a"), 2), (key("b"), 1)]);
        let none = HashSet::new();
        assert_eq!(queue.next(&none, &RunningCounts::new()), Some(0), "nobody runs: arrival");
        assert_eq!(queue.next(&none, &counts()), Some(3));
        let without = HashSet::from([key("c")]);
        assert_eq!(queue.next(&without, &counts()), Some(2));
    }

    #[test]
    fn a_mix_has_a_turn_of_its_own_whatever_its_weights() {
        let mixed = |weight| {
            let parts = [(lease("a"), weight), (lease("b"), 1.0)];
            AdapterMix::new(parts).expect("valid")
        };
        let mut queue = WaitingQueue::default();
        for (id, adapters) in (0..).zip([mixed(0.5), of("a"), mixed(0.2)]) {
            queue.push(sequence(id, adapters).0);
        }
        let mix = sequence(9, mixed(0.7)).0.versions().clone();
        let next = |counts: &RunningCounts| queue.next(&HashSet::new(), counts);
        assert_eq!(next(&RunningCounts::from([(mix.clone(), 1)])), Some(1));
        assert_eq!(next(&RunningCounts::from([(key("a"), 1)])), Some(0));
        assert_eq!(queue.next(&HashSet::from([mix]), &RunningCounts::new()), Some(1));
    }

    #[test]
    fn the_first_one_is_overtaken_only_so_often() {
        let mut queue = queue(&["a"]);
        let stuck = HashSet::from([key("a")]);
        let running = RunningCounts::new();
        let mut overtakes = 0;
        for id in 1.. {
            queue.push(sequence(id, of("")).0);
            let Some(index) = queue.next(&stuck, &running) else { break };
            assert_eq!(queue.take(index).id, id);
            overtakes += 1;
        }
        assert_eq!(overtakes, WaitingQueue::MAX_OVERTAKES);
        let next = queue.next(&HashSet::new(), &running).expect("a slot is free");
        assert_eq!(queue.take(next).id, 0);
    }
}
