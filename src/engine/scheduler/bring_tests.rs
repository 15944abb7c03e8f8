//! Adapters of waiting sequences: one load for all who wait, in time, and not over and over.
use super::{
    Scheduler,
    tests::{
        LIMITS, add, arrive, compute, expected, mixed, next_token, scheduler, snapshot, step,
        tokens,
    },
};
use crate::engine::{
    AdapterMix, EngineError, Event, EventStream, Priority,
    residency::Load,
    schedule::{Limits, Schedule},
    testing::{arrival, lease, part, pinned, said},
    waiting::Lane,
};
use proptest::prelude::*;
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

/// Plans a step that nothing comes of, and says which adapters it puts on their way.
fn loads(scheduler: &mut Scheduler) -> (Schedule, Vec<String>) {
    let mut schedule = Schedule::default();
    scheduler.schedule(&mut schedule, Instant::now());
    let names = schedule.loads.iter().map(|load| load.lease.name.to_string()).collect();
    (schedule, names)
}

fn resident(scheduler: &Scheduler) -> Vec<String> {
    snapshot(scheduler).resident_adapters
}

fn is_done(stream: &mut EventStream) -> bool {
    matches!(said(stream).last(), Some(Event::Finished { .. }))
}

#[test]
fn all_who_wait_for_a_version_wait_for_one_load_and_hold_up_nobody() {
    let mut scheduler = scheduler(LIMITS);
    let mut waiters = [(); 3].map(|()| add(&mut scheduler, &[1], Some("a"), 2));
    let mut base = add(&mut scheduler, &[1], None, 5);
    let (mut first, names) = loads(&mut scheduler);
    assert_eq!(names, ["a"]);
    assert_eq!(first.work.len(), 1, "the base goes on");
    for _ in 0..4 {
        assert_eq!(step(&mut scheduler), [(3, 1)]);
    }
    assert!(waiters.iter_mut().all(|stream| said(stream).is_empty()));
    arrive(&mut scheduler, &mut first);
    assert_eq!(step(&mut scheduler).len(), 4);
    assert_eq!(tokens(&said(&mut base)), expected(&[1], 5));
    step(&mut scheduler);
    assert!(waiters.iter_mut().all(is_done));
    let snapshot = snapshot(&scheduler);
    assert_eq!((snapshot.adapter_loads, snapshot.adapter_evictions), (1, 0));
}

#[test]
fn adapters_come_before_the_batch_has_room() {
    let mut scheduler = scheduler(Limits { max_sequences: 1, ..LIMITS });
    let _running = add(&mut scheduler, &[1], None, 9);
    step(&mut scheduler);
    let mut waiting = add(&mut scheduler, &[1], Some("a"), 1);
    step(&mut scheduler);
    assert_eq!(
        (resident(&scheduler), snapshot(&scheduler).adapter_prefetches),
        (vec!["a".into()], 1)
    );
    for _ in 0..7 {
        step(&mut scheduler);
    }
    assert_eq!(step(&mut scheduler), [(1, 1)], "no step is lost between the two");
    assert!(is_done(&mut waiting));
}

#[test]
fn what_an_earlier_one_needs_is_not_evicted_for_a_later_one() {
    let mut scheduler = scheduler(Limits { max_sequences: 1, ..LIMITS });
    for name in ["a", "b"] {
        let _done = add(&mut scheduler, &[1], Some(name), 1);
        step(&mut scheduler);
    }
    let _running = add(&mut scheduler, &[1], None, 50);
    step(&mut scheduler);
    let _waiting: Vec<_> =
        ["c", "b", "d"].map(|name| add(&mut scheduler, &[1], Some(name), 1)).into();
    (0..5).for_each(|_| drop(step(&mut scheduler)));
    assert_eq!(resident(&scheduler), ["b", "c"], "`b` can start, `c` came before `d`");
    assert_eq!(snapshot(&scheduler).adapter_evictions, 1);
}

#[test]
fn whose_caller_has_gone_leaves_its_adapter_to_the_next_who_wants_a_slot() {
    let mut scheduler = scheduler(Limits { adapter_slots: 1, ..LIMITS });
    let gone = add(&mut scheduler, &[1], Some("a"), 1);
    let (mut schedule, names) = loads(&mut scheduler);
    assert_eq!(names, ["a"]);
    drop(gone);
    let mut next = add(&mut scheduler, &[1], Some("b"), 1);
    assert!(loads(&mut scheduler).1.is_empty(), "it is still on its way");
    arrive(&mut scheduler, &mut schedule);
    assert_eq!(snapshot(&scheduler).waiting, 1);
    assert_eq!(resident(&scheduler), ["a"]);
    step(&mut scheduler);
    assert!(is_done(&mut next));
    assert_eq!(resident(&scheduler), ["b"]);
}

#[test]
fn a_slot_is_emptied_before_anything_new_comes_there() {
    let mut scheduler = scheduler(Limits { adapter_slots: 1, ..LIMITS });
    let _done = add(&mut scheduler, &[1], Some("a"), 1);
    step(&mut scheduler);
    let _next = add(&mut scheduler, &[1], Some("b"), 1);
    let (mut schedule, names) = loads(&mut scheduler);
    assert_eq!(names, ["b"]);
    assert_eq!(schedule.clears, [schedule.loads[0].slot], "in the same plan");
    arrive(&mut scheduler, &mut schedule);
    schedule.clears.clear();
    scheduler.schedule(&mut schedule, Instant::now());
    assert!(schedule.clears.is_empty(), "and not when it is there");
}

/// Keeps `waiting` requests of each of `busy` in the queue for some steps; how often somebody started.
fn keep_busy(
    scheduler: &mut Scheduler,
    streams: &mut Vec<(&'static str, EventStream)>,
    (busy, waiting): (&[&'static str], usize),
    mut until: impl FnMut(&Scheduler, usize) -> bool,
) -> usize {
    let (mut starts, mut known) = (0, Vec::new());
    while !until(scheduler, starts) {
        for name in busy {
            let queued = scheduler.waiting.iter();
            let queued = queued.filter(|s| s.versions().contains(&lease(name).id)).count();
            let more = (queued..waiting).map(|_| (*name, add(scheduler, &[1], Some(name), 4)));
            streams.extend(more);
        }
        for (id, _) in step(scheduler) {
            if !known.contains(&id) {
                known.push(id);
                starts += 1;
            }
        }
    }
    starts
}

#[test]
fn one_adapter_more_than_slots_starves_behind_busy_ones_only_so_long() {
    let mut scheduler = scheduler(LIMITS);
    let mut streams = Vec::new();
    keep_busy(&mut scheduler, &mut streams, (&["a", "b"], 3), |_, starts| starts > 20);
    let mut single = add(&mut scheduler, &[1], Some("c"), 1);
    // Those before it have the same right: each may be overtaken so often.
    let before = scheduler.waiting.len() - 1;
    let mut done = false;
    let starts = keep_busy(&mut scheduler, &mut streams, (&["a", "b"], 3), |_, starts| {
        done = done || is_done(&mut single);
        done || starts > 10_000
    });
    assert!(done, "it never came");
    let bound = (before + 1) * (Lane::MAX_OVERTAKES + 1) + 2 * LIMITS.max_sequences;
    assert!(starts <= bound, "{starts} others, {bound} allowed");
}

#[test]
fn with_twice_as_many_adapters_as_slots_a_load_serves_many() {
    let limits = Limits {
        adapter_slots: 4,
        max_sequences: 8,
        kv_blocks: 64,
        max_batched_tokens: 16,
        ..LIMITS
    };
    let mut scheduler = scheduler(limits);
    let mut streams = Vec::new();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let starts = keep_busy(&mut scheduler, &mut streams, (&names, 3), |_, starts| starts > 2000);
    let loads = snapshot(&scheduler).adapter_loads as usize;
    assert!(8 * loads < starts, "{loads} loads for {starts} sequences");
    let mut served = HashMap::new();
    for (name, stream) in &mut streams {
        *served.entry(*name).or_insert(0) += tokens(&said(stream)).len();
    }
    let (least, most) = (served.values().min(), served.values().max());
    let [least, most] = [least, most].map(|tokens| *tokens.expect("all were served"));
    assert!(2 * least > most, "{served:?}");
}

/// A loader that takes its time, fails now and then, and finds more bytes than were planned.
struct Loader {
    flight: VecDeque<(Load, usize)>,
    delays: Vec<usize>,
    loads: usize,
    fails: bool,
}

impl Loader {
    /// One step goes by; without other work, until something has arrived.
    fn turn(&mut self, scheduler: &mut Scheduler, schedule: &mut Schedule) {
        for load in schedule.loads.drain(..) {
            self.flight.push_back((load, self.delays[self.loads % self.delays.len()]));
            self.loads += 1;
        }
        let Some((_, left)) = self.flight.front_mut() else { return };
        if *left > 0 && !schedule.work.is_empty() {
            *left -= 1;
            return;
        }
        let Some((load, _)) = self.flight.pop_front() else { return };
        if self.fails && self.loads.is_multiple_of(7) {
            scheduler.load_failed(load.slot);
        } else {
            scheduler.loaded(load.slot, 10, Duration::ZERO);
        }
    }
}

proptest! {
    #[test]
    fn everybody_ends_whatever_loads_do(
        arrivals in prop::collection::vec(
            (0_usize..3, prop::collection::vec(1_u32..3, 1..10), 0_usize..9, 1_usize..8, any::<bool>()),
            1..40,
        ),
        (adapter_slots, adapter_bytes) in (2_usize..4, prop_oneof![Just(usize::MAX), 5_usize..35]),
        (max_sequences, kv_blocks) in (1_usize..5, 10_usize..20),
        (delays, fails) in (prop::collection::vec(0_usize..6, 1..8), any::<bool>()),
        cancel_every in 2_usize..9,
    ) {
        let limits = Limits { max_sequences, adapter_slots, adapter_bytes, kv_blocks, ..LIMITS };
        let mut scheduler = scheduler(limits);
        let mut loader = Loader { flight: VecDeque::new(), delays, loads: 0, fails };
        let mut streams = Vec::new();
        let mut step = |scheduler: &mut Scheduler| {
            let mut schedule = Schedule::default();
            scheduler.schedule(&mut schedule, Instant::now());
            compute(scheduler, &schedule, next_token);
            loader.turn(scheduler, &mut schedule);
        };
        for (at, (steps, prompt, adapter, n, low)) in arrivals.into_iter().enumerate() {
            let mix = match adapter {
                0..5 => mixed(&["a", "b", "c", "d", "e"][adapter..=adapter]),
                5 => mixed(&["a", "b"]),
                6 => mixed(&["c", "b"]),
                7 => pinned("p").into(),
                _ => AdapterMix::default(),
            };
            let (mut arrival, stream) = arrival(prompt.clone(), mix, n);
            arrival.submission.priority = if low { Priority::Low } else { Priority::Normal };
            scheduler.add(arrival);
            (0..steps).for_each(|_| step(&mut scheduler));
            if at % cancel_every != 0 {
                streams.push((stream, prompt, n));
            }
        }
        let mut steps = 0;
        while !scheduler.is_idle() || scheduler.awaits_adapters() {
            step(&mut scheduler);
            steps += 1;
            prop_assert!(steps < 10_000, "nothing moves");
        }
        for (mut stream, prompt, n) in streams {
            let events = said(&mut stream);
            match events.last() {
                Some(Event::Finished { .. }) => {
                    prop_assert_eq!(tokens(&events), expected(&prompt, n));
                }
                Some(Event::Failed(EngineError::AdapterLoad { .. })) => prop_assert!(fails),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(scheduler.blocks.available(), kv_blocks);
        let all: Vec<_> = ["y", "z"].map(|name| part(lease(name), 0)).into();
        prop_assert!(scheduler.residency.bring(&all, |_| false).is_some(), "a slot is still in use");
    }
}
