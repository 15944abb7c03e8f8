//! Texts that are read for an output, beside answers and among themselves.
use super::stub::{
    Answer, BASE_LABELS, CONTEXT, FAILS, NOT_A_NUMBER, TOKEN_BYTES, answer, config, encoder,
    engine, engine_with, greedy, mixed_submission, reading, submission, until,
};
use lorad::engine::{
    ByteSize, EngineConfig, EngineError, EngineHandle, Event, FinishReason, Output, Pooling,
    SamplingOptions, Submission,
};
use proptest::prelude::*;
use std::sync::atomic::Ordering::SeqCst;

const OUTPUTS: [Output; 5] = [
    Output::Embedding(Pooling::First),
    Output::Embedding(Pooling::Mean),
    Output::Embedding(Pooling::Last),
    Output::Hidden,
    Output::Scores,
];

fn read(engine: &EngineHandle, submission: Submission) -> Answer {
    answer(engine.submit(submission).expect("room"))
}

fn output(answer: Answer) -> Vec<f32> {
    answer.output.expect("an output")
}

/// What each of `submissions` brings, all at once or one after the other.
fn run(engine: &EngineHandle, submissions: Vec<Submission>, together: bool) -> Vec<Answer> {
    let without_cache = |answer| Answer { cached_tokens: 0, ..answer };
    if !together {
        let one = |submission| without_cache(read(engine, submission));
        return submissions.into_iter().map(one).collect();
    }
    let submit = |submission| engine.submit(submission).expect("room");
    let streams: Vec<_> = submissions.into_iter().map(submit).collect();
    streams.into_iter().map(answer).map(without_cache).collect()
}

#[test]
fn a_text_brings_a_start_its_output_and_an_end() {
    let (engine, _) = encoder(&config());
    let stream = engine.submit(reading(&[1, 2, 3], None, Output::Scores)).expect("room");
    let events: Vec<_> = { std::iter::successors(Some(stream), |_| None) }
        .flat_map(|mut stream| std::iter::from_fn(move || stream.blocking_recv()))
        .collect();
    let [Event::Started { cached_tokens: 0, .. }, Event::Output { values }, end] =
        events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!(values.len(), BASE_LABELS.len());
    assert!(matches!(end, Event::Finished { reason: FinishReason::Length }), "{end:?}");
    until("the books", || engine.snapshot().running == 0);
    let after = engine.snapshot();
    assert_eq!((after.kv_blocks_used, after.prompt_tokens, after.generated_tokens), (0, 3, 0));
}

#[test]
fn each_output_is_as_long_as_it_says_and_an_adapter_brings_its_own_labels() {
    let (engine, _) = encoder(&config());
    let len = |adapter, wanted| output(read(&engine, reading(&[1, 2, 3], adapter, wanted))).len();
    for adapter in [None, Some("a"), Some("S")] {
        assert_eq!(OUTPUTS[..4].iter().map(|o| len(adapter, *o)).collect::<Vec<_>>(), [2, 2, 2, 6]);
    }
    let labels = [None, Some("a"), Some("S")].map(|adapter| len(adapter, Output::Scores));
    assert_eq!(labels, [3, 3, 2]);
    assert_eq!(len(Some("T"), Output::TokenScores), 12);
    let of = |adapter| output(read(&engine, reading(&[1, 2], adapter, Output::Hidden)));
    assert_ne!(of(None), of(Some("a")), "an adapter changes the output");
}

#[test]
fn a_second_text_is_told_from_the_first() {
    let (engine, _) = encoder(&config());
    let of = |second_text| {
        let text = reading(&[1, 2, 3, 4], None, Output::Hidden);
        output(read(&engine, Submission { second_text, ..text }))
    };
    let (one, two) = (of(None), of(Some(2)));
    let added: Vec<_> = one.iter().zip(&two).map(|(a, b)| (b - a).round()).collect();
    assert_eq!(added, [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0]);
}

#[test]
fn a_text_longer_than_a_step_is_computed_in_one() {
    let (engine, control) = encoder(&config());
    assert!(CONTEXT > config().max_batched_tokens);
    let read = read(&engine, reading(&[1; CONTEXT], None, Output::Hidden));
    assert_eq!(output(read).len(), 2 * CONTEXT);
    assert_eq!(control.most_tokens.load(SeqCst), CONTEXT);
    assert_eq!(engine.max_sequence_tokens(), CONTEXT, "whatever the KV cache is given");
}

#[test]
fn a_small_kv_cache_does_not_shorten_what_is_read_whole() {
    let tiny = EngineConfig { kv_cache_bytes: ByteSize(1), max_sequences: 3, ..config() };
    let (engine, _) = encoder(&tiny);
    assert_eq!(engine.max_sequence_tokens(), CONTEXT);
    assert_eq!(engine.snapshot().kv_blocks, CONTEXT.div_ceil(4) + 3);
    let texts = (0..12).map(|i| reading(&vec![1; 1 + 5 * i], None, Output::Scores)).collect();
    assert!(run(&engine, texts, true).iter().all(|answer| answer.output.is_some()));
}

#[test]
fn what_runs_is_seen_while_it_runs() {
    let (engine, control) = encoder(&config());
    let held = control.gate.lock().expect("free");
    let texts = [1, 2, 3].map(|token| reading(&[token; 9], None, Output::Scores));
    let streams = texts.map(|text| engine.submit(text).expect("room"));
    until("its step", || engine.snapshot().running > 0);
    assert!(engine.snapshot().kv_blocks_used >= 3);
    drop(held);
    for stream in streams {
        assert!(answer(stream).output.is_some());
    }
    until("the books", || engine.snapshot().kv_blocks_used == 0);
}

#[test]
fn a_gone_caller_costs_no_step() {
    let (engine, control) = encoder(&config());
    let held = control.gate.lock().expect("free");
    let text = |token| engine.submit(reading(&[token; 60], None, Output::Scores)).expect("room");
    let first = text(1);
    until("its step", || control.begun.load(SeqCst) == 1);
    drop(text(2));
    let last = text(3);
    drop(held);
    answer(first);
    answer(last);
    assert_eq!(control.begun.load(SeqCst), 2);
}

#[test]
fn an_output_that_is_no_number_fails_its_own_text_and_a_failed_step_all_of_its() {
    for (engine, _) in [encoder(&config()), engine()] {
        let texts = [&[1, NOT_A_NUMBER][..], &[1, 2]].map(|text| {
            let text = reading(text, Some("a"), Output::Scores);
            engine.submit(text).expect("room")
        });
        let [mut bad, good] = texts;
        let last = std::iter::from_fn(|| bad.blocking_recv()).last();
        let Some(Event::Failed(error)) = last else { panic!("{last:?}") };
        assert_eq!(error, EngineError::NonFinite { adapters: vec!["a".to_owned()] });
        assert!(answer(good).output.is_some());
        let mut failed = engine.submit(reading(&[FAILS], None, Output::Scores)).expect("room");
        let last = std::iter::from_fn(|| failed.blocking_recv()).last();
        assert!(matches!(last, Some(Event::Failed(EngineError::Step))), "{last:?}");
        assert!(read(&engine, reading(&[1], None, Output::Scores)).output.is_some());
    }
}

#[test]
fn what_the_model_does_not_have_is_refused_at_the_door() {
    let (decoder, encoder) = (engine().0, encoder(&config()).0);
    let refusal = |engine: &EngineHandle, submission: Submission| {
        let Err(EngineError::NotOffered(why)) = engine.submit(submission) else {
            panic!("it was taken");
        };
        why
    };
    let text = |adapter, output| reading(&[1, 2], adapter, output);
    for wanted in [Output::Embedding(Pooling::Mean), Output::Hidden, Output::TokenScores] {
        assert!(refusal(&decoder, text(Some("T"), wanted)).contains("left to right"));
    }
    assert!(refusal(&encoder, submission(&[1], None, greedy(4))).contains("continue texts"));
    let judged = SamplingOptions { prompt_logprobs: Some(1), ..greedy(0) };
    assert!(refusal(&encoder, submission(&[1, 2], None, judged)).contains("continue texts"));
    let both = Submission { output: Some(Output::Scores), ..submission(&[1], None, greedy(4)) };
    assert!(refusal(&decoder, both).contains("one of them"));
    for (adapter, wanted) in
        [(None, Output::TokenScores), (Some("S"), Output::TokenScores), (Some("T"), Output::Scores)]
    {
        assert!(refusal(&encoder, text(adapter, wanted)).contains("whole texts or of tokens"));
    }
    let mix = mixed_submission(&[1], &[("S", 0.5), ("a", 0.5)], greedy(0));
    let mix = Submission { output: Some(Output::Scores), ..mix };
    assert!(refusal(&encoder, mix).contains("cannot be mixed"));
    let long = encoder.submit(reading(&[1; CONTEXT + 1], None, Output::Scores));
    assert!(matches!(long, Err(EngineError::InvalidPrompt(_))), "{long:?}");
}

/// A text or a prompt, its adapters, how long an answer, or which output.
type Request = (Vec<u32>, Vec<(&'static str, f32)>, usize, Option<Output>);

fn request() -> impl Strategy<Value = Request> {
    let one = prop::sample::select(vec!["a", "b", "S", "T", "x12"]);
    let parts = prop_oneof![
        Just(Vec::new()),
        one.prop_map(|name| vec![(name, 1.0)]),
        Just(vec![("a", 0.5), ("b", -0.7)]),
    ];
    let output = prop::sample::select(OUTPUTS.to_vec());
    (prop::collection::vec(1_u32..3, 1..40), parts, 1_usize..9, prop::option::of(output))
}

/// The request as the engine takes it, if its model can give it.
fn made((text, parts, max_tokens, output): Request, causal: bool) -> Submission {
    let output = match output {
        None if causal => None,
        None => Some(Output::Hidden),
        Some(_) if parts.first().is_some_and(|(name, _)| *name == "T") && causal => None,
        Some(Output::Scores) if parts.first().is_some_and(|(name, _)| *name == "T") => {
            Some(Output::TokenScores)
        }
        Some(Output::Embedding(_) | Output::Hidden) if causal => {
            Some(Output::Embedding(Pooling::Last))
        }
        other => other,
    };
    let max_tokens = if output.is_some() { 0 } else { max_tokens };
    Submission { output, ..mixed_submission(&text, &parts, greedy(max_tokens)) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn company_changes_no_bit_of_an_output_nor_of_the_answers_beside_it(
        requests in prop::collection::vec(request(), 1..20),
        causal in any::<bool>(),
        (max_sequences, max_batched_tokens) in (1_usize..10, 1_usize..20),
        (adapter_slots, no_prefix_cache) in (3_usize..6, any::<bool>()),
    ) {
        let start = |config: &EngineConfig| {
            if causal { engine_with(config, vec![5]).0 } else { encoder(config).0 }
        };
        let plain = EngineConfig { max_batched_tokens: 64, no_prefix_cache: true, ..config() };
        let all = || requests.iter().map(|request| made(request.clone(), causal)).collect();
        let alone = run(&start(&plain), all(), false);
        let crowded = EngineConfig {
            max_sequences,
            max_batched_tokens,
            adapter_slots,
            kv_cache_bytes: ByteSize(20 * 4 * TOKEN_BYTES),
            no_prefix_cache,
            ..config()
        };
        prop_assert_eq!(run(&start(&crowded), all(), true), alone);
    }
}

#[test]
fn a_text_on_a_generating_base_uses_what_the_cache_knows_of_it() {
    let (engine, _) = engine();
    let text: Vec<u32> = (1..22).collect();
    for adapter in [None, Some("S")] {
        let ask = || read(&engine, reading(&text, adapter, Output::Scores));
        let (cold, warm) = (ask(), ask());
        assert_eq!((cold.cached_tokens, warm.cached_tokens), (0, 20));
        assert_eq!(cold.output, warm.output);
    }
    let (whole, _) = engine_with(&config(), Vec::new());
    let aligned = &text[..20];
    let ask = || read(&whole, reading(aligned, None, Output::Scores));
    let (cold, warm) = (ask(), ask());
    assert_eq!(warm.cached_tokens, 16, "the last token is always computed");
    assert_eq!(cold.output, warm.output);
}
