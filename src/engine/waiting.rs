//! Who is next: whoever has had least, first come first served within one adapter, and nobody starves.
use super::{Priority, accounts::Accounts, sequence::Sequence};
use std::collections::VecDeque;

/// Sequences that wait for a place in the batch.
#[derive(Debug, Default)]
pub(super) struct WaitingQueue {
    /// By [`Priority`].
    lanes: [Lane; 3],
}

/// Those of one priority, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Lane {
    sequences: VecDeque<Sequence>,
    /// How often somebody was taken since the first one became the first.
    overtakes: usize,
    /// Whose turn had come when a step had no room for it.
    held: Option<u64>,
}

impl WaitingQueue {
    /// At the end.
    pub(super) fn push(&mut self, sequence: Sequence) {
        self.lane_mut(sequence.priority).sequences.push_back(sequence);
    }

    /// Sequences that ran already, oldest first, to the front.
    pub(super) fn put_back(&mut self, preempted: Vec<Sequence>) {
        for sequence in preempted.into_iter().rev() {
            self.lane_mut(sequence.priority).sequences.push_front(sequence);
        }
    }

    fn lane_mut(&mut self, priority: Priority) -> &mut Lane {
        &mut self.lanes[priority as usize]
    }

    /// Whose turn it is: low ones only while no normal one waits.
    fn turn_at(&self) -> usize {
        self.lanes.iter().position(|lane| !lane.sequences.is_empty()).unwrap_or(0)
    }

    /// Those whose turn it is.
    pub(super) fn turn(&self) -> &Lane {
        &self.lanes[self.turn_at()]
    }

    /// The one at `index` of [`WaitingQueue::turn`] is the next of its lane to start, as soon as it can.
    pub(super) fn hold(&mut self, index: usize) {
        let turn = self.turn_at();
        let lane = &mut self.lanes[turn];
        lane.held = Some(lane.sequences[index].id);
    }

    /// Removes the one at `index` of [`WaitingQueue::turn`], which starts now.
    pub(super) fn take(&mut self, index: usize) -> Sequence {
        let turn = self.turn_at();
        self.lanes[turn].take(index)
    }

    /// Takes those out who have ended or whose callers have gone.
    pub(super) fn drop_over(&mut self, mut dropped: impl FnMut(&Sequence)) {
        for lane in &mut self.lanes {
            lane.sequences.retain(|sequence| {
                // Asked once: its caller may go at any moment.
                let over = sequence.is_over();
                if over {
                    dropped(sequence);
                }
                !over
            });
        }
    }

    /// All of them, leaving none.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Sequence> + '_ {
        self.lanes.iter_mut().flat_map(|lane| lane.sequences.drain(..))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Sequence> + Clone {
        self.lanes.iter().flat_map(|lane| &lane.sequences)
    }

    /// All of them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Sequence> {
        self.lanes.iter_mut().flat_map(|lane| &mut lane.sequences)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.sequences.len()).sum()
    }
}

impl Lane {
    /// After this many others went before it, the first one is next, and the slots it lacks are kept for it.
    pub(super) const MAX_OVERTAKES: usize = 32;

    /// The first one, if nobody may go before it any more: it ran already, or was overtaken often enough.
    pub(super) fn overdue(&self) -> Option<&Sequence> {
        let late =
            |first: &&Sequence| first.was_preempted() || self.overtakes >= Self::MAX_OVERTAKES;
        self.sequences.front().filter(late)
    }

    /// Index of the next one to start, of those that can: one that was held or is overdue, or else whoever's adapters
    /// have had least.
    pub(super) fn next(
        &self,
        accounts: &Accounts,
        can_start: impl Fn(&Sequence) -> bool,
    ) -> Option<usize> {
        if let Some(id) = self.held {
            let held = self.sequences.iter().position(|s| s.id == id && can_start(s));
            if held.is_some() {
                return held;
            }
        }
        if self.overdue().is_some_and(&can_start) {
            return Some(0);
        }
        let candidates = self.sequences.iter().enumerate().filter(|(_, s)| can_start(s));
        let turns = candidates.map(|(index, s)| (index, accounts.turn(s.account)));
        turns.min_by(|(_, a), (_, b)| a.cmp(b)).map(|(index, _)| index)
    }

    fn take(&mut self, index: usize) -> Sequence {
        self.overtakes = if index == 0 { 0 } else { self.overtakes + 1 };
        let taken = self.sequences.remove(index);
        let taken = taken.expect("the queue has not changed since it was named");
        self.held = self.held.filter(|held| *held != taken.id);
        taken
    }

    /// In order of arrival.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Sequence> {
        self.sequences.iter()
    }

    /// The one at `index`.
    pub(super) fn get(&self, index: usize) -> &Sequence {
        &self.sequences[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        AdapterMix,
        testing::{lease, sequence},
    };
    use std::collections::HashSet;

    /// Adapters that wait, in order of arrival; nothing is the base.
    struct Queue {
        waiting: WaitingQueue,
        accounts: Accounts,
        arrivals: u64,
    }

    impl Queue {
        fn new(adapters: &[&str]) -> Self {
            let (waiting, accounts) = Default::default();
            let mut queue = Self { waiting, accounts, arrivals: 0 };
            for name in adapters {
                queue.push(name, Priority::Normal);
            }
            queue
        }

        fn push(&mut self, name: &str, priority: Priority) {
            let mix = if name.is_empty() { AdapterMix::default() } else { lease(name).into() };
            let mut sequence = sequence(self.arrivals, mix.clone()).0;
            sequence.account = self.accounts.arrive(mix.parts().iter().map(|part| &part.lease));
            sequence.priority = priority;
            self.arrivals += 1;
            self.waiting.push(sequence);
        }

        /// Who starts next while those adapters cannot, with a cost of `tokens`.
        fn start(&mut self, stuck: &[&str], tokens: f64) -> Option<u64> {
            let stuck: HashSet<_> = stuck.iter().map(|name| lease(name).id).collect();
            let can_start = |s: &Sequence| !s.versions().iter().any(|v| stuck.contains(v));
            let index = self.waiting.turn().next(&self.accounts, can_start)?;
            let sequence = self.waiting.take(index);
            self.accounts.start(sequence.account);
            self.accounts.charge(sequence.account, tokens, 1.0);
            Some(sequence.id)
        }
    }

    #[test]
    fn whoever_has_had_least_is_next() {
        let mut queue = Queue::new(&["a", "a", "a", "b", "", "b"]);
        let order: Vec<_> = (0..6).map_while(|_| queue.start(&[], 1.0)).collect();
        assert_eq!(order, [0, 3, 4, 1, 5, 2]);
        let mut queue = Queue::new(&["a", "a", "a", "b", "b", "b"]);
        queue.start(&[], 10.0);
        let order: Vec<_> = (0..5).map_while(|_| queue.start(&[], 3.0)).collect();
        assert_eq!(order, [3, 4, 5, 1, 2], "three of `b` are not yet one of `a`");
    }

    #[test]
    fn who_cannot_start_lets_others_pass() {
        let mut queue = Queue::new(&["a", "b", "a"]);
        assert_eq!(queue.start(&["a"], 1.0), Some(1));
        assert_eq!(queue.start(&["a"], 1.0), None);
        assert_eq!(queue.start(&[], 1.0), Some(0));
    }

    #[test]
    fn low_ones_start_only_while_no_normal_one_waits() {
        let mut queue = Queue::new(&[]);
        queue.push("a", Priority::Shadow);
        queue.push("a", Priority::Low);
        queue.push("b", Priority::Normal);
        assert_eq!(queue.start(&["b"], 1.0), None);
        assert_eq!(queue.start(&[], 1.0), Some(2));
        assert_eq!(queue.start(&[], 1.0), Some(1));
        assert_eq!(queue.start(&[], 1.0), Some(0));
    }

    #[test]
    fn the_first_one_is_overtaken_only_so_often() {
        let mut queue = Queue::new(&["a", "a"]);
        queue.start(&[], 1000.0);
        let mut overtakes = 0;
        while queue.waiting.turn().overdue().is_none() {
            queue.push("", Priority::Normal);
            let id = queue.start(&["a"], 1.0).expect("the base can always start");
            assert_ne!(id, 1);
            overtakes += 1;
        }
        assert_eq!(overtakes, Lane::MAX_OVERTAKES);
        queue.push("", Priority::Normal);
        assert_eq!(queue.start(&[], 1.0), Some(1), "though it has had more than others");
        assert!(queue.waiting.turn().overdue().is_none());
    }
}
