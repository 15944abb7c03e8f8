//! Answers that must have a form.
use super::{
    forms::{Broken, Failing, Stairs},
    stub::{Answer, answer, config, engine, engine_with, greedy, submission, until},
};
use lorad::engine::{
    EngineConfig, EngineError, Event, FinishReason, SamplingOptions, Submission, TokenConstraint,
};
use std::sync::atomic::Ordering::SeqCst;

fn constrained(form: impl TokenConstraint + 'static, options: SamplingOptions) -> Submission {
    let free = submission(&[1, 2, 3], None, options);
    Submission { constraint: Some(Box::new(form)), ..free }
}

fn ask(eos: &[u32], form: Stairs, options: SamplingOptions) -> Answer {
    let (engine, _) = engine_with(&config(), eos.to_vec());
    answer(engine.submit(constrained(form, options)).expect("room"))
}

fn warm(max_tokens: usize, seed: u64) -> SamplingOptions {
    SamplingOptions { temperature: 1.5, seed: Some(seed), ..greedy(max_tokens) }
}

#[test]
fn every_token_is_one_that_the_form_allows() {
    for seed in 0..20 {
        let stairs = Stairs::new(7, 99, 99);
        let answer = ask(&[], stairs.clone(), warm(30, seed));
        assert_eq!((answer.tokens.len(), answer.reason), (30, Some(FinishReason::Length)));
        assert!(stairs.are_steps(&answer.tokens), "{:?}", answer.tokens);
    }
}

#[test]
fn an_answer_that_is_whole_ends_without_another_step() {
    let (engine, control) = engine();
    let ignore_eos = SamplingOptions { ignore_eos: true, min_tokens: 9, ..greedy(20) };
    let stream = engine.submit(constrained(Stairs::new(7, 4, 4), ignore_eos)).expect("room");
    let answer = answer(stream);
    assert_eq!(answer.tokens.len(), 4, "though more were asked for, and no end would count");
    assert_eq!(answer.reason, Some(FinishReason::EndOfSequence));
    until("the last step's report", || engine.snapshot().running == 0);
    assert_eq!(control.begun.load(SeqCst), 4, "a step a token");
    let nothing = engine.submit(constrained(Stairs::new(7, 0, 0), greedy(20))).expect("room");
    let nothing = self::answer(nothing);
    assert_eq!((nothing.tokens.len(), nothing.reason), (0, Some(FinishReason::EndOfSequence)));
}

#[test]
fn a_whole_answer_is_no_cut_one_though_no_token_was_left() {
    let answer = ask(&[], Stairs::new(7, 4, 4), greedy(4));
    assert_eq!((answer.tokens.len(), answer.reason), (4, Some(FinishReason::EndOfSequence)));
}

#[test]
fn tokens_that_end_the_answer_come_only_where_it_may_end() {
    let (eos, least) = ([5, 6], 6);
    let mut ended = 0;
    for seed in 0..40 {
        let answer = ask(&eos, Stairs::new(7, least, 50), warm(30, seed));
        assert!(!answer.tokens.iter().any(|token| eos.contains(token)), "{:?}", answer.tokens);
        match answer.reason {
            Some(FinishReason::EndOfSequence) => {
                assert!(answer.tokens.len() >= least, "{:?}", answer.tokens);
                ended += 1;
            }
            other => assert_eq!((other, answer.tokens.len()), (Some(FinishReason::Length), 30)),
        }
        let stops = SamplingOptions { stop_token_ids: vec![60], ..warm(30, seed) };
        let stopped = ask(&[], Stairs::new(64, least, 50), stops);
        if stopped.reason == Some(FinishReason::StopToken(60)) {
            assert!(stopped.tokens.len() >= least, "60 is no step: {:?}", stopped.tokens);
            ended += 1;
        }
    }
    assert!(ended > 10, "{ended}");
}

#[test]
fn an_ignored_end_leaves_the_form_and_min_tokens_delays_it() {
    for seed in 0..20 {
        let ignored = SamplingOptions { ignore_eos: true, ..warm(30, seed) };
        let answer = ask(&[5, 6], Stairs::new(7, 2, 12), ignored);
        assert_eq!((answer.tokens.len(), answer.reason), (12, Some(FinishReason::EndOfSequence)));
        let delayed = SamplingOptions { min_tokens: 8, ..warm(30, seed) };
        let answer = ask(&[5, 6], Stairs::new(7, 2, 12), delayed);
        assert!(answer.tokens.len() >= 8, "{:?}", answer.tokens);
    }
}

#[test]
fn a_bias_or_a_penalty_chooses_among_what_is_allowed_and_log_probabilities_stay_the_models() {
    let options = SamplingOptions {
        logit_bias: vec![(0, 100.0), (22, 90.0)],
        repetition_penalty: 1.5,
        logprobs: Some(20),
        ..greedy(3)
    };
    let forced = ask(&[], Stairs::new(7, 99, 99), options);
    assert_eq!(forced.tokens[0], 22, "1 and 22 are of one remainder, 0 is not");
    let free = submission(&[1, 2, 3], None, SamplingOptions { logprobs: Some(20), ..greedy(1) });
    let free = answer(engine().0.submit(free).expect("room"));
    assert_eq!(forced.logprobs[0].top, free.logprobs[0].top);
}

#[test]
fn a_form_that_fails_fails_its_own_answer_alone() {
    let alone = answer(engine().0.submit(submission(&[4], None, greedy(12))).expect("room"));
    let (engine, _) = engine();
    for broken in
        [Broken::Mask, Broken::MaskPanics, Broken::Accept, Broken::AcceptPanics, Broken::Stuck]
    {
        let company = engine.submit(submission(&[4], None, greedy(12))).expect("room");
        let failing = constrained(Failing(broken, 0), greedy(12));
        let mut stream = engine.submit(failing).expect("room");
        let mut tokens = 0;
        let error = loop {
            match stream.blocking_recv().expect("an end") {
                Event::Failed(error) => break error,
                Event::Token { .. } => tokens += 1,
                other => assert!(matches!(other, Event::Started { .. }), "{other:?}"),
            }
        };
        assert_eq!(error, EngineError::Constraint, "{broken:?}");
        assert!(tokens >= 2, "{broken:?}");
        assert_eq!(answer(company), alone, "{broken:?}");
    }
    until("an empty engine", || engine.snapshot().kv_blocks_used == 0);
}

#[test]
fn guesses_leave_constrained_answers_alone() {
    let config = EngineConfig { draft_tokens: 4, ..config() };
    let (engine, _) = engine_with(&config, Vec::new());
    // Two remainders repeat themselves soon.
    let stairs = Stairs::new(2, 99, 99);
    let stream = engine.submit(constrained(stairs.clone(), greedy(40))).expect("room");
    let guessed = answer(stream);
    assert_eq!(guessed.tokens, ask(&[], stairs, greedy(40)).tokens);
}
