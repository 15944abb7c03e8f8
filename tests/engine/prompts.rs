//! What the model thinks of the prompt's own tokens.
use super::stub::{
    Answer, NOT_A_NUMBER, TOKEN_BYTES, answer, config, engine, engine_with, greedy, submission,
    until,
};
use lorad::engine::{
    ByteSize, EngineConfig, EngineError, EngineHandle, Event, FinishReason, SamplingOptions,
    Submission, TokenLogprobs,
};

/// Longer than a step, and than a few blocks.
fn prompt() -> Vec<u32> {
    (0..41).map(|i| (i * 7) % 50 + 1).collect()
}

fn judged(max_tokens: usize) -> SamplingOptions {
    SamplingOptions { prompt_logprobs: Some(3), ..greedy(max_tokens) }
}

fn ask(engine: &EngineHandle, adapter: Option<&str>, options: SamplingOptions) -> Answer {
    answer(engine.submit(submission(&prompt(), adapter, options)).expect("room"))
}

/// Generates each token of the prompt from those before it.
fn token_by_token(adapter: Option<&str>) -> Vec<TokenLogprobs> {
    let (engine, _) = engine();
    let prompt = prompt();
    let forced = |at: usize| {
        let options = SamplingOptions {
            logit_bias: vec![(prompt[at], 100.0)],
            logprobs: Some(3),
            ..greedy(1)
        };
        let said =
            answer(engine.submit(submission(&prompt[..at], adapter, options)).expect("room"));
        assert_eq!(said.tokens, [prompt[at]]);
        said.logprobs
    };
    (1..prompt.len()).flat_map(forced).collect()
}

#[test]
fn a_prompt_is_judged_as_if_it_had_been_generated_token_by_token() {
    for adapter in [None, Some("a"), Some("x3")] {
        let (engine, _) = engine();
        let judged = ask(&engine, adapter, judged(4));
        assert_eq!(judged.prompt, token_by_token(adapter), "{adapter:?}");
        assert_eq!(judged.tokens, ask(&engine, adapter, greedy(4)).tokens);
    }
}

#[test]
fn a_prompt_is_judged_once_though_it_is_put_back_in_between() {
    let alone = ask(&engine().0, None, judged(19));
    let few = EngineConfig { kv_cache_bytes: ByteSize(18 * 4 * TOKEN_BYTES), ..config() };
    let (engine, control) = engine_with(&few, Vec::new());
    let held = control.gate.lock().expect("free");
    let submit = |options| engine.submit(submission(&prompt(), None, options)).expect("room");
    let first = engine.submit(submission(&[1], None, greedy(58))).expect("room");
    until("its first step", || control.begun.load(std::sync::atomic::Ordering::SeqCst) == 1);
    let streams = [submit(judged(19)), submit(judged(19))];
    drop(held);
    assert_eq!(answer(first).tokens.len(), 58);
    for stream in streams {
        let said = answer(stream);
        assert_eq!((said.prompt, said.tokens), (alone.prompt.clone(), alone.tokens.clone()));
    }
    assert!(engine.snapshot().preemptions > 0, "blocks were short");
}

#[test]
fn a_prompt_can_be_read_without_an_answer() {
    let (engine, _) = engine();
    let read = ask(&engine, None, judged(0));
    assert_eq!(read.prompt, ask(&engine, None, judged(1)).prompt);
    assert_eq!((read.tokens.len(), read.reason), (0, Some(FinishReason::Length)));
    let unread = ask(&engine, None, greedy(0));
    assert_eq!((unread.prompt.len(), unread.reason), (0, Some(FinishReason::Length)));
    let one = engine.submit(submission(&[5], None, judged(0))).expect("room");
    assert_eq!(answer(one).reason, Some(FinishReason::Length), "nothing judges the first token");
    until("the books", || engine.snapshot().kv_blocks_used == 0);
}

#[test]
fn a_judged_prompt_is_computed_whole_and_serves_others_from_the_cache() {
    let (engine, _) = engine();
    ask(&engine, None, greedy(1));
    assert_eq!(ask(&engine, None, judged(1)).cached_tokens, 0);
    assert_eq!(ask(&engine, None, greedy(1)).cached_tokens, 40);
}

#[test]
fn a_cached_beginning_is_for_those_who_know_its_salt() {
    let (engine, _) = engine();
    let cached = |salt: Option<&str>| {
        let submission = Submission {
            output: None,
            second_text: None,
            cache_salt: salt.map(Into::into),
            ..submission(&prompt(), None, greedy(2))
        };
        let said = answer(engine.submit(submission).expect("room"));
        (said.cached_tokens, said.tokens)
    };
    let asked = [Some("one"), Some("two"), None, Some("one"), None].map(cached);
    assert_eq!(asked.each_ref().map(|(cached, _)| *cached), [0, 0, 0, 40, 40]);
    assert!(asked.iter().all(|(_, tokens)| *tokens == asked[0].1), "the answers are the same");
}

#[test]
fn a_prompt_whose_logits_are_no_numbers_fails_alone() {
    let (engine, _) = engine();
    let broken = [1, NOT_A_NUMBER, 2, 3];
    let mut stream = engine.submit(submission(&broken, None, judged(3))).expect("room");
    let events: Vec<_> = std::iter::from_fn(|| stream.blocking_recv()).collect();
    let error = EngineError::NonFinite { adapters: Vec::new() };
    assert!(matches!(events.last(), Some(Event::Failed(last)) if *last == error), "{events:?}");
    let fine = engine.submit(submission(&broken, None, greedy(3))).expect("room");
    assert_eq!(answer(fine).tokens.len(), 3, "nobody looks at that row");
}
