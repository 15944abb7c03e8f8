//! The border between the async world and the engine thread, over a model small enough to see through.
mod constrained;
mod forms;
mod invariance;
mod mixes;
mod prompts;
mod reading;
mod slow;
mod stub;

use lorad::engine::{
    ByteSize, EngineConfig, EngineError, Event, EventStream, FinishReason, SamplingOptions,
};
use std::sync::{Arc, atomic::Ordering::SeqCst};
use stub::{
    CONTEXT, FAILS, NOT_A_NUMBER, PANICS, TOKEN_BYTES, VOCAB, answer, config, engine, engine_with,
    greedy, submission, until, version,
};

/// Every event up to the end.
fn events(mut stream: EventStream) -> Vec<Event> {
    std::iter::from_fn(|| stream.blocking_recv()).collect()
}

#[test]
fn a_start_comes_first_then_tokens_and_then_why_it_ended() {
    let (engine, _) = engine();
    let events = events(engine.submit(submission(&[1, 2, 3], None, greedy(3))).expect("room"));
    assert_eq!(events.len(), 5);
    assert!(matches!(events[0], Event::Started { cached_tokens: 0, .. }));
    assert!(events[1..4].iter().all(|event| matches!(event, Event::Token { .. })));
    assert!(matches!(events[4], Event::Finished { reason: FinishReason::Length }));
}

#[test]
fn dropping_the_stream_frees_its_blocks() {
    let (engine, control) = engine();
    let held = control.gate.lock().expect("free");
    let stream = engine.submit(submission(&[1; 20], Some("a"), greedy(30))).expect("room");
    until("its first step", || control.begun.load(SeqCst) == 1);
    drop(stream);
    drop(held);
    until("its end", || {
        let now = engine.snapshot();
        (now.running, now.kv_blocks_used, now.steps) == (0, 0, 1)
    });
    let snapshot = engine.snapshot();
    assert_eq!((snapshot.kv_blocks, snapshot.block_size), (64, 4));
    assert_eq!(snapshot.kv_bytes, 256 * TOKEN_BYTES);
}

#[test]
fn a_full_queue_is_an_answer() {
    let (engine, control) =
        engine_with(&EngineConfig { max_sequences: 1, max_waiting: 2, ..config() }, Vec::new());
    let held = control.gate.lock().expect("free");
    let submit = || engine.submit(submission(&[1], None, greedy(2)));
    let running = submit().expect("runs");
    until("its first step", || control.begun.load(SeqCst) == 1);
    let (second, third) = (submit().expect("waits"), submit().expect("waits"));
    assert_eq!(submit().expect_err("full"), EngineError::Overloaded { waiting: 2 });
    drop(held);
    for stream in [running, second, third] {
        assert_eq!(answer(stream).tokens.len(), 2);
    }
    assert!(submit().is_ok(), "there is room again");
}

#[test]
fn the_last_handle_gone_the_work_is_finished_first() {
    let (engine, _) = engine();
    let stream = engine.submit(submission(&[1, 2, 3], None, greedy(5))).expect("room");
    drop(engine);
    assert_eq!(answer(stream).tokens.len(), 5);
}

#[tokio::test]
async fn draining_finishes_what_was_accepted_and_refuses_the_rest() {
    let (engine, _) = engine();
    let accepted: Vec<_> = (1..20)
        .map(|token| engine.submit(submission(&[token], None, greedy(5))).expect("room"))
        .collect();
    engine.drain();
    let late = engine.submit(submission(&[1], None, greedy(5)));
    assert_eq!(late.expect_err("draining"), EngineError::Stopped);
    engine.ended().await;
    assert!(!engine.is_alive());
    for mut stream in accepted {
        let mut last = None;
        while let Some(event) = stream.recv().await {
            last = Some(event);
        }
        assert!(matches!(last, Some(Event::Finished { .. })));
    }
}

#[test]
fn a_panic_ends_every_stream_and_every_later_submit() {
    let (engine, control) = engine();
    let held = control.gate.lock().expect("free");
    let submit = |token| engine.submit(submission(&[token], None, greedy(50)));
    let first = submit(1).expect("room");
    until("its first step", || control.begun.load(SeqCst) == 1);
    let second = submit(PANICS).expect("room");
    drop(held);
    for stream in [first, second] {
        let last = events(stream).pop();
        assert!(matches!(last, Some(Event::Failed(EngineError::Stopped))), "{last:?}");
    }
    until("its death", || !engine.is_alive());
    assert_eq!(submit(1).expect_err("dead"), EngineError::Stopped);
    until("the books", || engine.snapshot().running == 0);
}

#[test]
fn a_failed_step_fails_its_sequences_and_no_later_ones() {
    let (engine, _) = engine();
    let failed = events(engine.submit(submission(&[FAILS], Some("a"), greedy(5))).expect("room"));
    assert!(matches!(failed[..], [Event::Started { .. }, Event::Failed(EngineError::Step)]));
    let fine = engine.submit(submission(&[1], Some("a"), greedy(5))).expect("room");
    assert_eq!(answer(fine).tokens.len(), 5);
    until("the books", || engine.snapshot().kv_blocks_used == 0);
    assert_eq!(engine.snapshot().failed_steps, 1);
}

#[test]
fn output_that_is_no_number_fails_its_own_sequence_and_no_other() {
    let (engine, control) = engine();
    let held = control.gate.lock().expect("free");
    let first = engine.submit(submission(&[1], None, greedy(6))).expect("room");
    until("its first step", || control.begun.load(SeqCst) == 1);
    let broken = engine.submit(submission(&[1, NOT_A_NUMBER], Some("a"), greedy(6))).expect("room");
    let fine = engine.submit(submission(&[1, 2], Some("a"), greedy(6))).expect("room");
    drop(held);
    let error = EngineError::NonFinite { adapters: vec!["a".into()] };
    let events = events(broken);
    assert!(matches!(&events[..], [Event::Started { .. }, Event::Failed(last)] if *last == error));
    for stream in [first, fine] {
        assert_eq!(answer(stream).tokens.len(), 6);
    }
    until("the books", || engine.snapshot().running == 0);
    assert_eq!((engine.snapshot().non_finite_outputs, engine.snapshot().failed_steps), (1, 0));
}

#[test]
fn requests_on_a_replaced_version_can_be_ended() {
    let (engine, control) = engine();
    let held = control.gate.lock().expect("free");
    let first = engine.submit(submission(&[1], Some("b"), greedy(6))).expect("room");
    until("its first step", || control.begun.load(SeqCst) == 1);
    let old = engine.submit(submission(&[1, 2], Some("a"), greedy(50))).expect("room");
    engine.end("a".parse().expect("a name"), version("a").id, None);
    drop(held);
    let error = EngineError::AdapterReplaced { name: "a".into() };
    assert!(matches!(events(old).pop(), Some(Event::Failed(last)) if last == error));
    assert_eq!(answer(first).tokens.len(), 6);
}

#[test]
fn what_can_never_run_is_refused_at_the_door() {
    let small = EngineConfig { kv_cache_bytes: ByteSize(32 * TOKEN_BYTES), ..config() };
    let (engine, _) = engine_with(&small, Vec::new());
    let refusal = |prompt: &[u32], max_tokens| {
        engine.submit(submission(prompt, None, greedy(max_tokens))).expect_err("never runs")
    };
    for prompt in [&[][..], &[VOCAB as u32], &[1; CONTEXT + 1]] {
        assert!(matches!(refusal(prompt, 1), EngineError::InvalidPrompt(_)), "{prompt:?}");
    }
    assert_eq!(refusal(&[1; 30], 4), EngineError::TooLong { needed: 33, available: 32 });
    assert_eq!(refusal(&[1; 30], usize::MAX), EngineError::TooLong { needed: 60, available: 32 });
    let fits = engine.submit(submission(&[1; 30], None, greedy(3))).expect("the last is not kept");
    assert_eq!(answer(fits).tokens.len(), 3);
}

#[test]
fn the_context_ends_an_answer() {
    let (engine, _) = engine();
    let stream = engine.submit(submission(&[1; CONTEXT - 3], None, greedy(1000))).expect("room");
    let answer = answer(stream);
    assert_eq!((answer.tokens.len(), answer.reason), (3, Some(FinishReason::Length)));
}

#[test]
fn stop_tokens_end_an_answer_and_are_not_in_it() {
    let (engine, _) = engine();
    let run = |options| answer(engine.submit(submission(&[5, 6], None, options)).expect("room"));
    let free = run(greedy(10)).tokens;
    let at = free.iter().position(|token| *token == free[4]).expect("it is there");

    let stopped = run(SamplingOptions { stop_token_ids: vec![free[4]], ..greedy(10) });
    assert_eq!(
        (stopped.tokens, stopped.reason),
        (free[..at].to_vec(), Some(FinishReason::StopToken(free[4])))
    );

    let (ending, _) = engine_with(&config(), vec![free[4]]);
    let run = |options| answer(ending.submit(submission(&[5, 6], None, options)).expect("room"));
    let ended = run(greedy(10));
    assert_eq!(
        (ended.tokens, ended.reason),
        (free[..at].to_vec(), Some(FinishReason::EndOfSequence))
    );
    let ignored = run(SamplingOptions { ignore_eos: true, ..greedy(10) });
    assert_eq!(ignored.tokens, free);
    let longer = run(SamplingOptions { min_tokens: 7, ..greedy(10) });
    assert_eq!(longer.tokens[..at], free[..at]);
    assert!(longer.tokens.len() >= 7 && !longer.tokens[..7].contains(&free[4]));
}

#[test]
fn a_retired_version_leaves_its_slot_and_its_memory() {
    let (engine, _) = engine();
    let version = version("a");
    let submission = lorad::engine::Submission {
        output: None,
        second_text: None,
        adapters: lorad::adapter::AdapterLease::new("a".parse().expect("a name"), version.clone())
            .into(),
        ..submission(&[1, 2], None, greedy(3))
    };
    assert_eq!(answer(engine.submit(submission).expect("room")).tokens.len(), 3);
    until("residence", || engine.snapshot().resident_adapters == ["a"]);
    engine.forget(version.id);
    until("departure", || engine.snapshot().resident_adapters.is_empty());
    until("release", || Arc::strong_count(&version) == 1);
}

#[test]
fn many_adapters_share_few_slots_and_none_starves() {
    let few = EngineConfig { adapter_slots: 2, ..config() };
    let (engine, control) = engine_with(&few, Vec::new());
    let streams: Vec<_> = (0..40)
        .map(|i| {
            let name = ["a", "b", "c", "d", "e", "f", "g"][i % 7];
            engine.submit(submission(&[i as u32 + 1], Some(name), greedy(6))).expect("room")
        })
        .collect();
    for stream in streams {
        assert_eq!(answer(stream).tokens.len(), 6);
    }
    assert!(control.most_tokens.load(SeqCst) > 2, "they ran together");
    until("the books", || engine.snapshot().running == 0);
    assert_eq!(engine.snapshot().resident_adapters.len(), 2);
}
