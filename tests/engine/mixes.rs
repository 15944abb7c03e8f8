//! Several adapters in one answer, and adapters that begin late.
use super::stub::{
    Answer, answer, config, engine, engine_with, greedy, mixed_submission, until, version,
};
use lorad::engine::{EngineConfig, EngineError, EngineHandle, SamplingOptions};
use std::sync::Arc;

const PROMPT: [u32; 19] = [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 7, 8, 9, 1, 2, 3, 4, 5, 6];

/// Names and weights.
type Parts<'a> = &'a [(&'a str, f32)];

fn ask(engine: &EngineHandle, parts: Parts<'_>) -> Answer {
    let options = SamplingOptions { logprobs: Some(3), ..greedy(8) };
    answer(engine.submit(mixed_submission(&PROMPT, parts, options)).expect("room"))
}

/// With nothing in any cache.
fn fresh(parts: Parts<'_>) -> Answer {
    ask(&engine().0, parts)
}

#[test]
fn a_mix_is_another_answer_whatever_the_order_of_its_list() {
    let mixed = fresh(&[("a", 0.7), ("b", 0.3)]);
    assert_eq!(mixed, fresh(&[("b", 0.3), ("a", 0.7)]));
    assert_eq!(mixed, fresh(&[("a", 0.5), ("b", 0.3), ("a", 0.2), ("c", 0.0)]));
    let different = [&[("a", 0.7)][..], &[("a", 0.3), ("b", 0.7)], &[("a", 1.0)], &[]];
    for parts in different {
        assert_ne!(mixed.logprobs, fresh(parts).logprobs, "{parts:?}");
    }
    assert_eq!(fresh(&[("a", 0.0)]), fresh(&[]));
}

#[test]
fn the_prefix_cache_knows_a_mix_by_its_versions_and_weights() {
    let (engine, _) = engine();
    let asked: [(Parts, usize); 6] = [
        (&[("a", 0.7), ("b", 0.3)], 0),
        (&[("b", 0.3), ("a", 0.7)], 16),
        (&[("a", 0.3), ("b", 0.7)], 0),
        (&[("a", 0.7)], 0),
        (&[("a", 1.0)], 0),
        (&[("a", 0.7), ("b", 0.3), ("c", 0.1)], 0),
    ];
    for (parts, cached_tokens) in asked {
        let expected = Answer { cached_tokens, ..fresh(parts) };
        assert_eq!(ask(&engine, parts), expected, "{parts:?}");
    }
}

#[test]
fn an_adapter_that_begins_late_shares_what_comes_before_with_the_base_both_ways() {
    // `x78` begins at position 10: two whole blocks of four come before.
    let late: Parts = &[("x78", 1.0)];
    let cases: [[(Parts, usize); 2]; 5] = [
        [(&[], 0), (late, 8)],
        [(late, 0), (&[], 8)],
        [(late, 0), (late, 16)],
        [(late, 0), (&[("z89", 1.0)], 8)],
        [(&[("a", 1.0)], 0), (&[("a", 1.0), ("x78", 0.5)], 8)],
    ];
    for case in cases {
        let (engine, _) = engine();
        for (parts, cached_tokens) in case {
            let expected = Answer { cached_tokens, ..fresh(parts) };
            assert_eq!(ask(&engine, parts), expected, "{case:?}");
        }
    }
    assert_ne!(fresh(late).logprobs, fresh(&[]).logprobs);
}

#[test]
fn an_adapter_that_nothing_invokes_answers_as_the_base_without_a_slot() {
    let (engine, _) = engine();
    assert_eq!(ask(&engine, &[("x99", 1.0)]), fresh(&[]));
    until("the books", || engine.snapshot().running == 0);
    assert!(engine.snapshot().resident_adapters.is_empty());
    assert_eq!(fresh(&[("x99", 1.0), ("a", 0.5)]), fresh(&[("a", 0.5)]));
}

#[test]
fn what_an_answer_says_invokes_nothing() {
    let said = fresh(&[]).tokens;
    let digit = said.iter().copied().find(|token| *token < 10 && !PROMPT.contains(token));
    let Some(digit) = digit else { return };
    let name = format!("x{digit}");
    assert_eq!(fresh(&[(&name, 1.0)]).tokens, said);
}

#[test]
fn more_adapters_than_slots_are_refused_at_the_door() {
    let (engine, _) = engine_with(&EngineConfig { adapter_slots: 2, ..config() }, Vec::new());
    let parts = [("a", 0.1), ("b", 0.1), ("c", 0.1)];
    let refused = engine.submit(mixed_submission(&PROMPT, &parts, greedy(1)));
    let expected = EngineError::TooManyAdapters { adapters: 3, most: 2 };
    assert_eq!(refused.expect_err("too many"), expected);
    assert_eq!(ask(&engine, &parts[..2]).tokens.len(), 8);
}

#[test]
fn a_retired_version_leaves_the_mixes_it_was_in() {
    let (engine, _) = engine();
    let parts = [("a", 0.7), ("b", 0.3)];
    let kept = version("a");
    let mut submission = mixed_submission(&PROMPT, &[], greedy(3));
    let named = |name: &str, version| {
        lorad::adapter::AdapterLease::new(name.parse().expect("a name"), version)
    };
    let leases = [(named("a", kept.clone()), 0.7), (named("b", version("b")), 0.3)];
    submission.adapters = lorad::engine::AdapterMix::new(leases).expect("a mix");
    answer(engine.submit(submission).expect("room"));
    until("residence", || engine.snapshot().resident_adapters == ["a", "b"]);
    engine.forget(kept.id);
    until("departure", || engine.snapshot().resident_adapters == ["b"]);
    until("release", || Arc::strong_count(&kept) == 1);
    assert_eq!(ask(&engine, &parts).cached_tokens, 0, "its blocks went with it");
}

#[test]
fn mixes_that_want_each_others_slots_all_end() {
    let (engine, _) = engine_with(&EngineConfig { adapter_slots: 3, ..config() }, Vec::new());
    let mixes = [
        [("a", 0.5), ("b", 0.5)],
        [("b", 0.5), ("c", 0.5)],
        [("c", 0.5), ("d", 0.5)],
        [("d", 0.5), ("a", 0.5)],
        [("e", 0.5), ("e", 0.5)],
    ];
    let streams: Vec<_> = (0..40)
        .map(|i| {
            let submission = mixed_submission(&[i as u32 + 1], &mixes[i % 5], greedy(6));
            engine.submit(submission).expect("room")
        })
        .collect();
    for stream in streams {
        assert_eq!(answer(stream).tokens.len(), 6);
    }
    until("the books", || engine.snapshot().running == 0);
    assert_eq!(ask(&engine, &[("x1", 0.1), ("y2", 0.2), ("z3", 0.3)]).tokens.len(), 8);
}
