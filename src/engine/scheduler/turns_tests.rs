//! Whose turn it is: fairness between adapters, priorities, and sequences that are told to end.
use super::Scheduler;
use super::tests::{LIMITS, add, add_mix, expected, scheduler, snapshot, step, tokens};
use crate::{
    adapter::{AdapterLease, AdapterName, AdapterTerms},
    engine::{
        AdapterMix, EngineError, Event, EventStream, Priority,
        sampler::{Choice, NoChoice},
        schedule::{Limits, Schedule},
        testing::{arrival, lease, said},
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

fn add_low(scheduler: &mut Scheduler, prompt: &[u32], n: usize) -> EventStream {
    let (mut arrival, stream) = arrival(prompt.to_vec(), AdapterMix::default(), n);
    arrival.submission.priority = Priority::Low;
    scheduler.add(arrival);
    stream
}

fn shared(name: &str, share: f32) -> AdapterLease {
    let terms = AdapterTerms { share, ..AdapterTerms::default() };
    let lease = lease(name);
    AdapterLease::on_terms(lease.name.clone(), lease.version().clone(), Arc::new(terms))
}

/// Who started, in order.
fn starts(scheduler: &mut Scheduler, steps: usize) -> Vec<u64> {
    let mut known = Vec::new();
    for _ in 0..steps {
        for (id, _) in step(scheduler) {
            if !known.contains(&id) {
                known.push(id);
            }
        }
    }
    known
}

#[test]
fn a_flood_delays_anothers_single_request_by_one_turn_at_most() {
    let mut scheduler = scheduler(Limits { kv_blocks: 64, ..LIMITS });
    let _flood: Vec<_> = (0..1000).map(|_| add(&mut scheduler, &[1, 2], Some("a"), 4)).collect();
    starts(&mut scheduler, 6);
    let _single = add(&mut scheduler, &[3], Some("b"), 4);
    let began = starts(&mut scheduler, 5);
    let before = began.iter().take_while(|id| **id != 1000).count();
    assert!(before <= LIMITS.max_sequences, "only those that ran already: {began:?}");
}

#[test]
fn everybody_gets_the_same_of_the_machine_or_what_their_shares_say() {
    for (share, least, most) in [(1.0, 0.95, 1.15), (3.0, 2.85, 3.5)] {
        let mut scheduler = scheduler(Limits { max_sequences: 2, kv_blocks: 64, ..LIMITS });
        let mut streams = [Vec::new(), Vec::new()];
        for _ in 0..400 {
            for (lease, streams) in [shared("a", share), lease("b")].into_iter().zip(&mut streams) {
                // The answers of one are twice as long.
                let n = if lease.name.as_str() == "a" { 8 } else { 4 };
                streams.push(add_mix(&mut scheduler, &[1], lease.into(), n));
            }
        }
        (0..800).for_each(|_| drop(step(&mut scheduler)));
        let [a, b] = streams.map(|streams| {
            let tokens = |mut stream| tokens(&said(&mut stream)).len();
            streams.into_iter().map(tokens).sum::<usize>() as f64
        });
        assert!((least..most).contains(&(a / b)), "{a} of `a`, {b} of `b` at {share}");
    }
}

#[test]
fn low_ones_make_way_for_a_normal_one_and_say_the_same_afterwards() {
    for limits in [
        Limits { max_sequences: 2, ..LIMITS },
        Limits { kv_blocks: 7, prefix_cache: false, ..LIMITS },
    ] {
        let mut scheduler = scheduler(limits);
        let mut low = [(); 2].map(|()| add_low(&mut scheduler, &[1, 2, 3], 5));
        step(&mut scheduler);
        let mut normal = add(&mut scheduler, &[4; 7], None, 2);
        assert_eq!(step(&mut scheduler), [(0, 1), (2, 7)], "the youngest low one makes way");
        assert_eq!(tokens(&said(&mut normal)).len(), 1);
        while !scheduler.is_idle() {
            step(&mut scheduler);
        }
        for stream in &mut low {
            assert_eq!(tokens(&said(stream)), expected(&[1, 2, 3], 5));
        }
        assert!(snapshot(&scheduler).preemptions > 0);
    }
}

#[test]
fn blocks_that_run_out_are_taken_from_low_ones_first() {
    let mut scheduler = scheduler(Limits { kv_blocks: 6, prefix_cache: false, ..LIMITS });
    let mut low = add_low(&mut scheduler, &[1, 2, 3], 6);
    step(&mut scheduler);
    let mut normal = add(&mut scheduler, &[4; 3], None, 8);
    for _ in 0..8 {
        assert!(step(&mut scheduler).iter().any(|(id, _)| *id == 1), "though it came later");
    }
    assert_eq!(tokens(&said(&mut normal)), expected(&[4; 3], 8));
    assert!(snapshot(&scheduler).preemptions > 0);
    while !scheduler.is_idle() {
        step(&mut scheduler);
    }
    assert_eq!(tokens(&said(&mut low)), expected(&[1, 2, 3], 6));
}

fn replaced(stream: &mut EventStream) -> bool {
    let name = "a".to_owned();
    let error = EngineError::AdapterReplaced { name };
    matches!(said(stream).last(), Some(Event::Failed(last)) if *last == error)
}

#[test]
fn a_version_can_be_told_to_end_at_once_running_and_waiting() {
    let mut scheduler = scheduler(Limits { max_sequences: 2, ..LIMITS });
    let mut other = add(&mut scheduler, &[1], Some("b"), 3);
    let mut ended = [(); 3].map(|()| add(&mut scheduler, &[1], Some("a"), 9));
    step(&mut scheduler);
    let a = lease("a");
    let other_name: AdapterName = "z".parse().expect("a name");
    scheduler.end(other_name, a.id, None);
    scheduler.end(a.name.clone(), a.id, None);
    while !scheduler.is_idle() {
        step(&mut scheduler);
    }
    assert!(ended.iter_mut().all(replaced));
    assert_eq!(tokens(&said(&mut other)), expected(&[1], 3));
    assert_eq!(scheduler.blocks.available(), LIMITS.kv_blocks);
    let mut later = add(&mut scheduler, &[1], Some("a"), 1);
    step(&mut scheduler);
    assert_eq!(tokens(&said(&mut later)), expected(&[1], 1), "who comes later is not meant");
}

#[test]
fn a_version_ends_at_its_deadline_for_those_that_came_before() {
    let mut scheduler = scheduler(LIMITS);
    let mut early = add(&mut scheduler, &[1], Some("a"), 50);
    let mut done = add(&mut scheduler, &[1], Some("a"), 1);
    let deadline = Instant::now() + Duration::from_hours(1);
    let a = lease("a");
    scheduler.end(a.name.clone(), a.id, Some(deadline));
    step(&mut scheduler);
    assert!(matches!(said(&mut done).last(), Some(Event::Finished { .. })));
    let (mut late, mut stream) = arrival(vec![1], lease("a").into(), 2);
    late.at = deadline + Duration::from_secs(1);
    scheduler.add(late);
    let mut schedule = Schedule::default();
    scheduler.schedule(&mut schedule, deadline);
    assert!(replaced(&mut early));
    while !scheduler.is_idle() {
        step(&mut scheduler);
    }
    assert_eq!(tokens(&said(&mut stream)).len(), 2);
}

#[test]
fn output_that_is_no_number_fails_its_own_sequence_alone() {
    let mut scheduler = scheduler(LIMITS);
    let mut broken = add(&mut scheduler, &[1], Some("a"), 5);
    step(&mut scheduler);
    let mut fine = add(&mut scheduler, &[1], None, 2);
    let mut schedule = Schedule::default();
    scheduler.schedule(&mut schedule, Instant::now());
    let fine_choice = Choice { id: expected(&[1], 1)[0], logprobs: None };
    let chosen = schedule.work.iter().map(|&index| match scheduler.running()[index].id {
        0 => Err(NoChoice::NotNumbers),
        _ => Ok(fine_choice.clone()),
    });
    let chosen: Vec<_> = chosen.collect();
    scheduler.commit(&schedule.work, chosen, []);
    while !scheduler.is_idle() {
        step(&mut scheduler);
    }
    let Some(Event::Failed(error)) = said(&mut broken).pop() else { panic!("it fails") };
    assert_eq!(error, EngineError::NonFinite { adapters: vec!["a".into()] });
    assert!(error.to_string().contains("adapter `a` is not a number"), "{error}");
    assert_eq!(tokens(&said(&mut fine)), expected(&[1], 2));
    assert_eq!(snapshot(&scheduler).non_finite_outputs, 1);
}
