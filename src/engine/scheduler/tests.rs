//! The scheduler's promises, over a model that looks at everything before.
use super::Scheduler;
use crate::engine::{
    AdapterMix, EngineError, EngineSnapshot, Event, EventStream, FinishReason,
    sampler::Choice,
    schedule::{Limits, Schedule},
    testing::{arrival, invoked, lease, part, said},
};
use crate::{
    kernel::Precision,
    lora::{LoraLayout, ResidentForm},
};
use proptest::prelude::*;
use std::time::{Duration, Instant};

pub(super) const LIMITS: Limits = Limits {
    max_sequences: 4,
    max_batched_tokens: 8,
    adapter_slots: 2,
    adapter_bytes: usize::MAX,
    block_size: 2,
    kv_blocks: 16,
    max_positions: 100,
    draft_tokens: 0,
    prompt_rows: 1000,
    prefix_cache: true,
    whole: false,
};

pub(super) fn scheduler(limits: Limits) -> Scheduler {
    let form = ResidentForm::new(Precision::F32, &LoraLayout::default());
    Scheduler::new(limits, vec![0], form)
}

pub(super) fn add(
    scheduler: &mut Scheduler,
    prompt: &[u32],
    adapter: Option<&str>,
    n: usize,
) -> EventStream {
    add_mix(scheduler, prompt, adapter.map(lease).map(AdapterMix::from).unwrap_or_default(), n)
}

pub(super) fn add_mix(
    scheduler: &mut Scheduler,
    prompt: &[u32],
    mix: AdapterMix,
    n: usize,
) -> EventStream {
    let (arrival, stream) = arrival(prompt.to_vec(), mix, n);
    scheduler.add(arrival);
    stream
}

/// The next token of a model that looks at everything before.
pub(super) fn next_token(tokens: &[u32]) -> u32 {
    tokens.iter().fold(7, |sum: u32, token| sum.wrapping_mul(31).wrapping_add(*token)) % 50 + 1
}

/// One step of that model: how many tokens each sequence computed, by arrival.
pub(super) fn step(scheduler: &mut Scheduler) -> Vec<(u64, usize)> {
    step_of(scheduler, next_token)
}

/// One step of any model.
fn step_of(scheduler: &mut Scheduler, next_token: fn(&[u32]) -> u32) -> Vec<(u64, usize)> {
    let mut schedule = Schedule::default();
    scheduler.schedule(&mut schedule, Instant::now());
    if schedule.work.is_empty() {
        // The engine waits for what is on its way.
        arrive(scheduler, &mut schedule);
        scheduler.schedule(&mut schedule, Instant::now());
    }
    let granted = compute(scheduler, &schedule, next_token);
    arrive(scheduler, &mut schedule);
    granted
}

/// Computes what was planned: how many tokens each sequence computed, by arrival.
pub(super) fn compute(
    scheduler: &mut Scheduler,
    schedule: &Schedule,
    next_token: fn(&[u32]) -> u32,
) -> Vec<(u64, usize)> {
    let worked = |&index: &usize| &scheduler.running()[index];
    let granted = schedule.work.iter().map(worked).map(|s| (s.id, s.granted)).collect();
    let choices = schedule.work.iter().map(worked).flat_map(|sequence| {
        assert!(
            sequence.block_table.len() * LIMITS.block_size >= sequence.computed + sequence.granted
        );
        let mut known = sequence.tokens.clone();
        let choices = (0..sequence.choices()).map(|ahead| {
            let id = next_token(&known);
            known.extend(sequence.draft.tokens().get(ahead));
            Ok(Choice { id, logprobs: None })
        });
        choices.collect::<Vec<_>>()
    });
    let choices: Vec<_> = choices.collect();
    scheduler.commit(&schedule.work, choices, []);
    granted
}

/// Every adapter on its way is there.
pub(super) fn arrive(scheduler: &mut Scheduler, schedule: &mut Schedule) {
    for load in schedule.loads.drain(..) {
        scheduler.loaded(load.slot, 0, Duration::ZERO);
    }
}

pub(super) fn snapshot(scheduler: &Scheduler) -> EngineSnapshot {
    let mut snapshot = EngineSnapshot::default();
    scheduler.report(&mut snapshot);
    snapshot
}

pub(super) fn tokens(events: &[Event]) -> Vec<u32> {
    let token = |event: &Event| match event {
        Event::Token { id, .. } => Some(*id),
        _ => None,
    };
    events.iter().filter_map(token).collect()
}

pub(super) fn expected(prompt: &[u32], n: usize) -> Vec<u32> {
    let mut all = prompt.to_vec();
    (0..n).for_each(|_| all.push(next_token(&all)));
    all.split_off(prompt.len())
}

#[test]
fn answers_go_on_while_a_long_prompt_comes_in_pieces() {
    let mut scheduler = scheduler(LIMITS);
    let _short = add(&mut scheduler, &[1], None, 9);
    step(&mut scheduler);
    let mut long = add(&mut scheduler, &[2; 17], None, 1);
    assert_eq!(step(&mut scheduler), [(0, 1), (1, 7)]);
    assert_eq!(step(&mut scheduler), [(0, 1), (1, 7)]);
    assert!(tokens(&said(&mut long)).is_empty());
    assert_eq!(step(&mut scheduler), [(0, 1), (1, 3)]);
    assert_eq!(tokens(&said(&mut long)), expected(&[2; 17], 1));
}

#[test]
fn a_known_beginning_is_not_computed_again() {
    let mut scheduler = scheduler(LIMITS);
    let prompt = [1, 2, 3, 4, 5];
    for (adapter, computed) in [(None, 5), (None, 1), (Some("a"), 5), (Some("a"), 1)] {
        let mut stream = add(&mut scheduler, &prompt, adapter, 1);
        let granted = step(&mut scheduler);
        assert_eq!(granted[0].1, computed);
        let events = said(&mut stream);
        assert_eq!(tokens(&events), expected(&prompt, 1));
        let [Event::Started { cached_tokens, .. }, .., Event::Finished { reason }] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!((*cached_tokens, *reason), (5 - computed, FinishReason::Length));
    }
    let snapshot = snapshot(&scheduler);
    assert_eq!((snapshot.prefix_queries, snapshot.prefix_hits), (20, 8));
    assert_eq!((snapshot.prompt_tokens, snapshot.generated_tokens), (12, 4));
    assert_eq!(snapshot.kv_blocks_used, 0);
}

#[test]
fn the_youngest_gives_way_and_says_the_same_afterwards() {
    let mut scheduler = scheduler(Limits { kv_blocks: 6, prefix_cache: false, ..LIMITS });
    let mut streams: Vec<_> = (1..4).map(|t| add(&mut scheduler, &[t; 3], None, 8)).collect();
    while !scheduler.is_idle() {
        step(&mut scheduler);
    }
    assert!(snapshot(&scheduler).preemptions > 0);
    for (stream, t) in streams.iter_mut().zip(1..) {
        let events = said(stream);
        assert_eq!(tokens(&events), expected(&[t; 3], 8));
        let starts = events.iter().filter(|event| matches!(event, Event::Started { .. }));
        assert_eq!(starts.count(), 1, "however often it began again");
    }
}

#[test]
fn guesses_change_how_fast_an_answer_comes_and_nothing_else() {
    // Counts to six over and over, and stumbles now and then.
    let next: fn(&[u32]) -> u32 = |tokens| (tokens.len() as u32 + tokens.len() as u32 / 23) % 6 + 1;
    let mut runs = Vec::new();
    for draft_tokens in [0, 1, 4] {
        let mut scheduler = scheduler(Limits { draft_tokens, kv_blocks: 99, ..LIMITS });
        let mut stream = add(&mut scheduler, &[1, 2, 3], None, 80);
        let mut steps = 0;
        while !scheduler.is_idle() {
            step_of(&mut scheduler, next);
            steps += 1;
        }
        let totals = snapshot(&scheduler);
        assert_eq!(totals.generated_tokens, 80);
        assert_eq!(steps + totals.accepted_draft_tokens, 80, "one for each that was guessed");
        assert!(totals.accepted_draft_tokens <= totals.draft_tokens);
        runs.push((steps, tokens(&said(&mut stream))));
    }
    assert!(runs.iter().all(|run| run.1 == runs[0].1), "{runs:?}");
    assert!(runs[0].0 > runs[1].0 + 20 && runs[1].0 > runs[2].0 + 10, "{runs:?}");
}

#[test]
fn one_without_a_slot_lets_others_pass() {
    let mut scheduler = scheduler(Limits { adapter_slots: 1, ..LIMITS });
    let _first = add(&mut scheduler, &[1], Some("a"), 5);
    step(&mut scheduler);
    let _second = add(&mut scheduler, &[1], Some("b"), 5);
    let _third = add(&mut scheduler, &[1], None, 5);
    assert_eq!(step(&mut scheduler), [(0, 1), (2, 1)]);
}

/// Whether all slots can be had at once.
fn all_slots_are_free(scheduler: &mut Scheduler) -> bool {
    let all: Vec<_> = ["y", "z"].map(|name| part(lease(name), 0)).into();
    scheduler.residency.bring(&all, |_| false).is_some()
}

pub(super) fn mixed(names: &[&str]) -> AdapterMix {
    AdapterMix::new(names.iter().map(|name| (lease(name), 0.5))).expect("valid")
}

#[test]
fn a_mix_waits_for_all_its_slots_and_holds_none_meanwhile() {
    let mut scheduler = scheduler(LIMITS);
    let _first = add(&mut scheduler, &[1], Some("a"), 3);
    step(&mut scheduler);
    let _mix = add_mix(&mut scheduler, &[1], mixed(&["b", "c"]), 2);
    let _other = add(&mut scheduler, &[1], Some("d"), 1);
    assert_eq!(step(&mut scheduler), [(0, 1)], "`d` is on its way to the slot that is free");
    assert_eq!(step(&mut scheduler), [(0, 1), (2, 1)], "one slot is not enough");
    assert_eq!(step(&mut scheduler), [(1, 1)], "both are free");
    assert_eq!(snapshot(&scheduler).resident_adapters, ["b", "c"]);
    while !scheduler.is_idle() {
        step(&mut scheduler);
    }
    assert!(all_slots_are_free(&mut scheduler));
}

#[test]
fn what_lies_before_an_adapter_begins_is_shared_with_the_base_and_with_others() {
    let mut scheduler = scheduler(Limits { max_batched_tokens: 32, ..LIMITS });
    let prompt = [1, 2, 3, 4, 5, 9, 7, 8];
    let late = |name| AdapterMix::from(invoked(name, &[9]));
    let plain = || AdapterMix::from(lease("p"));
    // Two blocks lie before the invocation, a third holds it.
    for (mix, computed) in [
        (AdapterMix::default(), 8),
        (late("x"), 4),
        (late("x"), 2),
        (late("y"), 4),
        (plain(), 8),
        (AdapterMix::new([(invoked("x", &[9]), 0.5)]).expect("valid"), 4),
    ] {
        let _stream = add_mix(&mut scheduler, &prompt, mix, 1);
        assert_eq!(step(&mut scheduler)[0].1, computed);
    }
}

#[test]
fn an_adapter_that_is_not_invoked_needs_no_slot_and_is_the_base() {
    let mut scheduler = scheduler(Limits { adapter_slots: 1, ..LIMITS });
    let _holder = add(&mut scheduler, &[1, 2, 3], Some("a"), 9);
    let _base = add(&mut scheduler, &[1, 2, 3], None, 9);
    step(&mut scheduler);
    let _late = add_mix(&mut scheduler, &[1, 2, 3], invoked("x", &[9]).into(), 9);
    assert_eq!(step(&mut scheduler).last(), Some(&(2, 1)), "it has found the base's block");
    assert_eq!(snapshot(&scheduler).resident_adapters, ["a"]);
}

#[test]
fn a_failed_load_fails_those_who_wait_for_it_alone() {
    let mut scheduler = scheduler(LIMITS);
    let mut fine = add(&mut scheduler, &[1], Some("b"), 5);
    step(&mut scheduler);
    let mut mix = add_mix(&mut scheduler, &[1], mixed(&["a", "b"]), 5);
    let mut alone = add(&mut scheduler, &[1], Some("a"), 5);
    let mut base = add(&mut scheduler, &[1], None, 5);
    let mut schedule = Schedule::default();
    scheduler.schedule(&mut schedule, Instant::now());
    assert_eq!(schedule.loads.len(), 1, "one load for both");
    scheduler.load_failed(schedule.loads[0].slot);
    while !scheduler.is_idle() {
        step(&mut scheduler);
    }
    let error = EngineError::AdapterLoad { name: "a".into() };
    for failed in [&mut mix, &mut alone] {
        let events = said(failed);
        assert!(matches!(&events[..], [Event::Failed(last)] if *last == error), "{events:?}");
    }
    for stream in [&mut fine, &mut base] {
        assert_eq!(tokens(&said(stream)).len(), 5);
    }
    assert_eq!(snapshot(&scheduler).failed_adapter_loads, 1);
    assert!(all_slots_are_free(&mut scheduler));
}

proptest! {
    #[test]
    fn every_sequence_ends_right_and_all_blocks_return(
        arrivals in prop::collection::vec(
            (0_usize..4, prop::collection::vec(1_u32..3, 1..14), 0_usize..8, 1_usize..10),
            1..30,
        ),
        (kv_blocks, max_batched_tokens, draft_tokens) in (12_usize..20, 1_usize..9, 0_usize..4),
        cancel_every in 2_usize..6,
    ) {
        let mut scheduler = scheduler(Limits { max_batched_tokens, kv_blocks, draft_tokens, ..LIMITS });
        let mut streams = Vec::new();
        for (at, (steps, prompt, adapter, n)) in arrivals.into_iter().enumerate() {
            let mix = match adapter {
                0..4 => mixed(&["a", "b", "c", "d"][adapter..=adapter]),
                4 => mixed(&["a", "b"]),
                5 => mixed(&["c", "b"]),
                6 => AdapterMix::new([(invoked("x", &[1, 2]), 1.0), (lease("a"), 1.0)]).expect("valid"),
                _ => AdapterMix::default(),
            };
            let stream = add_mix(&mut scheduler, &prompt, mix, n);
            (0..steps).for_each(|_| drop(step(&mut scheduler)));
            let stays = at % cancel_every != 0;
            streams.extend(stays.then_some((stream, prompt, n)));
        }
        let mut steps = 0;
        while !scheduler.is_idle() {
            let granted: usize = step(&mut scheduler).iter().map(|(_, n)| n).sum();
            prop_assert!(granted <= max_batched_tokens);
            steps += 1;
            prop_assert!(steps < 10_000, "nothing moves");
        }
        for (mut stream, prompt, n) in streams {
            let events = said(&mut stream);
            let finished = matches!(events.last(), Some(Event::Finished { .. }));
            prop_assert!(finished, "{:?}", events);
            prop_assert_eq!(tokens(&events), expected(&prompt, n));
        }
        prop_assert_eq!(scheduler.blocks.available(), kv_blocks);
        prop_assert!(all_slots_are_free(&mut scheduler), "a slot is still in use");
    }
}
