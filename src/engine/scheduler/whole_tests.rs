//! Sequences that are computed whole: what a step holds, and that nobody waits for ever.
use super::Scheduler;
use super::tests::{LIMITS, add, scheduler, step};
use crate::engine::{EventStream, schedule::Limits};
use proptest::prelude::*;

/// Steps of up to 10 tokens, texts of up to 10.
const WHOLE: Limits = Limits {
    max_sequences: 8,
    max_batched_tokens: 10,
    kv_blocks: 5 + 8,
    max_positions: 10,
    prefix_cache: false,
    whole: true,
    ..LIMITS
};

fn read(scheduler: &mut Scheduler, tokens: usize, adapter: Option<&str>) -> EventStream {
    add(scheduler, &vec![1; tokens], adapter, 0)
}

#[test]
fn who_does_not_fit_is_first_in_the_next_step_and_shorter_ones_fill_this_one() {
    let mut scheduler = scheduler(WHOLE);
    let texts = [6, 9, 3, 2, 1];
    let _streams = texts.map(|tokens| read(&mut scheduler, tokens, None));
    assert_eq!(step(&mut scheduler), [(0, 6), (2, 3), (4, 1)]);
    assert_eq!(step(&mut scheduler), [(1, 9)], "2 tokens do not fit beside 9");
    assert_eq!(step(&mut scheduler), [(3, 2)]);
    assert!(scheduler.is_idle());
}

#[test]
fn a_held_text_goes_first_though_others_have_had_less() {
    let mut scheduler = scheduler(WHOLE);
    let mut streams = vec![read(&mut scheduler, 4, Some("a")), read(&mut scheduler, 10, Some("a"))];
    step(&mut scheduler);
    streams.push(read(&mut scheduler, 6, Some("a")));
    streams.extend((0..5).map(|_| read(&mut scheduler, 5, Some("b"))));
    // The adapter of 4 and 10 was on its way during the step before.
    let mut steps = Vec::new();
    while !scheduler.is_idle() {
        steps.push(step(&mut scheduler));
        assert!(steps.len() < 20, "{steps:?}");
    }
    let at = |id| steps.iter().position(|step| step.iter().any(|(own, _)| *own == id));
    assert!(at(1) <= Some(1), "{steps:?}");
}

#[test]
fn a_stream_of_short_texts_does_not_keep_a_long_one_waiting() {
    let mut scheduler = scheduler(WHOLE);
    let mut streams = vec![read(&mut scheduler, 3, None), read(&mut scheduler, 10, None)];
    for at in 0..4 {
        streams.extend((0..4).map(|_| read(&mut scheduler, 3, Some(["a", "b"][at % 2]))));
        if step(&mut scheduler).iter().any(|(id, _)| *id == 1) {
            return;
        }
    }
    panic!("the long one waits still");
}

proptest! {
    #[test]
    fn every_text_is_computed_once_and_whole_and_its_blocks_come_back(
        texts in prop::collection::vec((1_usize..11, prop::option::of(0_usize..3)), 1..40),
        max_sequences in 1_usize..9,
    ) {
        let mut scheduler = scheduler(Limits { max_sequences, kv_blocks: 5 + max_sequences, ..WHOLE });
        let name = |at: usize| ["a", "b", "c"][at];
        let _streams: Vec<_> = texts
            .iter()
            .map(|(tokens, adapter)| read(&mut scheduler, *tokens, adapter.map(name)))
            .collect();
        let mut seen = vec![0; texts.len()];
        for _ in 0..3 * texts.len() {
            let work = step(&mut scheduler);
            prop_assert!(work.iter().map(|(_, granted)| granted).sum::<usize>() <= 10);
            for (id, granted) in work {
                prop_assert_eq!(granted, texts[id as usize].0);
                seen[id as usize] += 1;
            }
            prop_assert_eq!(scheduler.blocks.used(), 0);
        }
        prop_assert!(seen.iter().all(|times| *times == 1), "{seen:?}");
        prop_assert!(scheduler.is_idle());
    }
}
