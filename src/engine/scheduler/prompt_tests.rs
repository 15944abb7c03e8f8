//! Prompts whose tokens are judged: how many rows of logits a step has of them.
use super::Scheduler;
use super::tests::{LIMITS, add, scheduler};
use crate::engine::{
    AdapterMix, Event, EventStream, TokenLogprobs,
    sampler::Choice,
    schedule::{Limits, Schedule},
    testing::{judged_arrival, said},
};
use std::time::Instant;

fn add_judged(scheduler: &mut Scheduler, prompt: &[u32], n: usize) -> EventStream {
    let (arrival, stream) = judged_arrival(prompt.to_vec(), AdapterMix::default(), n);
    scheduler.add(arrival);
    stream
}

/// One step: of each sequence its number, the tokens it computed and the rows of its prompt's logits.
fn step(scheduler: &mut Scheduler) -> Vec<(u64, usize, usize)> {
    let mut schedule = Schedule::default();
    scheduler.schedule(&mut schedule, Instant::now());
    let worked = || schedule.work.iter().map(|index| &scheduler.running()[*index]);
    let granted = worked().map(|s| (s.id, s.granted, s.prompt_rows().len())).collect();
    let choice = |_| {
        let logprobs = Some(TokenLogprobs { chosen: -1.0, rank: 1, top: Vec::new() });
        Ok(Choice { id: 9, logprobs })
    };
    let rows: usize = worked().map(|sequence| sequence.rows().count()).sum();
    scheduler.commit(&schedule.work, (0..rows).map(choice), []);
    granted
}

/// How many tokens each event judged.
fn judged(events: &[Event]) -> Vec<usize> {
    let of = |event: &Event| match event {
        Event::Prompt { logprobs } => Some(logprobs.len()),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn a_step_has_so_many_rows_of_prompts_and_answers_go_on_meanwhile() {
    let mut scheduler = scheduler(Limits { prompt_rows: 3, ..LIMITS });
    let _answer = add(&mut scheduler, &[1], None, 20);
    step(&mut scheduler);
    let mut first = add_judged(&mut scheduler, &[2; 8], 1);
    let mut second = add_judged(&mut scheduler, &[3; 3], 0);
    let plain = add(&mut scheduler, &[4; 2], None, 1);
    assert_eq!(step(&mut scheduler), [(0, 1, 0), (1, 3, 3), (3, 2, 0)], "who is not judged passes");
    assert_eq!(step(&mut scheduler), [(0, 1, 0), (1, 3, 3)]);
    assert_eq!(step(&mut scheduler), [(0, 1, 0), (1, 2, 1), (2, 3, 2)]);
    assert_eq!(judged(&said(&mut first)), [3, 3, 1]);
    let events = said(&mut second);
    assert_eq!(judged(&events), [2]);
    assert!(matches!(events.last(), Some(Event::Finished { .. })));
    drop(plain);
}

#[test]
fn a_prompt_that_was_put_back_is_judged_from_where_it_was() {
    let mut scheduler = scheduler(Limits { prompt_rows: 4, ..LIMITS });
    let mut stream = add_judged(&mut scheduler, &[5; 9], 1);
    assert_eq!(step(&mut scheduler), [(0, 4, 4)]);
    let mut budget = 0;
    scheduler.preempt(0, &mut budget);
    let sequence = scheduler.running.remove(0);
    scheduler.put_back(vec![sequence]);
    let mut again = step(&mut scheduler);
    again.extend(step(&mut scheduler));
    let rows: usize = again.iter().map(|(_, _, rows)| rows).sum();
    assert_eq!(rows, 4, "{again:?}");
    let events = said(&mut stream);
    assert_eq!(judged(&events).iter().sum::<usize>(), 8);
    assert!(matches!(events.last(), Some(Event::Finished { .. })), "{events:?}");
}
