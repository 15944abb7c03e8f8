//! The same answer, to the bit, however the engine arranged the work.
use super::forms::Stairs;
use super::stub::{
    Answer, TOKEN_BYTES, answer, config, engine_with, greedy, mixed_submission, submission,
};
use lorad::engine::{ByteSize, EngineConfig, SamplingOptions, Submission};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Request {
    prompt: Vec<u32>,
    parts: Vec<(&'static str, f32)>,
    options: SamplingOptions,
    form: Option<Stairs>,
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    // Prompts are of 1 and 2, so that `x12` begins somewhere in most of them, and `y2` nearly at the end.
    let part = prop_oneof![
        prop::sample::select(vec!["a", "b", "c", "x12", "y2"]).prop_map(|name| (name, 1.0)),
        (prop::sample::select(vec!["a", "b", "c", "x12"]), -1.0_f32..1.0),
    ];
    let parts = prop::collection::vec(part, 0..4);
    let switches = (any::<bool>(), any::<bool>(), any::<bool>());
    let options = (switches, any::<u64>(), 0_usize..12).prop_map(
        |((warm, penalised, judged), seed, max_tokens)| SamplingOptions {
            temperature: if warm { 0.9 } else { 0.0 },
            frequency_penalty: if penalised { 0.7 } else { 0.0 },
            seed: Some(seed),
            logprobs: Some(2),
            prompt_logprobs: judged.then_some(1),
            ..greedy(max_tokens)
        },
    );
    let form = prop::option::of((1_u32..9, 0_usize..9, 1_usize..14))
        .prop_map(|form| form.map(|(modulus, least, most)| Stairs::new(modulus, least, most)));
    let request = (prop::collection::vec(1_u32..3, 1..24), parts, options, form)
        .prop_map(|(prompt, parts, options, form)| Request { prompt, parts, options, form });
    prop::collection::vec(request, 1..24)
}

fn run(config: &EngineConfig, requests: &[Request], together: bool) -> Vec<Answer> {
    let (engine, _) = engine_with(config, vec![5]);
    let submit = |request: &Request| {
        let Request { prompt, parts, options, form } = request.clone();
        let constraint = form.map(|form| Box::new(form) as _);
        let submission = mixed_submission(&prompt, &parts, options);
        engine.submit(Submission { constraint, ..submission }).expect("room")
    };
    let mut answers: Vec<Answer> = if together {
        let streams: Vec<_> = requests.iter().map(submit).collect();
        streams.into_iter().map(answer).collect()
    } else {
        requests.iter().map(|request| answer(submit(request))).collect()
    };
    for answer in &mut answers {
        answer.cached_tokens = 0;
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn company_chunks_preemption_caching_guesses_and_forms_change_no_bit(
        requests in requests(),
        (max_sequences, max_batched_tokens) in (1_usize..10, 1_usize..20),
        (blocks, adapter_slots, no_prefix_cache) in (9_usize..24, 3_usize..6, any::<bool>()),
        draft_tokens in 0_usize..5,
    ) {
        let plain = EngineConfig { max_batched_tokens: 64, no_prefix_cache: true, ..config() };
        let alone = run(&plain, &requests, false);
        let crowded = EngineConfig {
            max_sequences,
            max_batched_tokens,
            adapter_slots,
            kv_cache_bytes: ByteSize(blocks * 4 * TOKEN_BYTES),
            no_prefix_cache,
            draft_tokens,
            ..config()
        };
        prop_assert_eq!(run(&crowded, &requests, true), alone);
    }
}

#[test]
fn the_prefix_cache_answers_with_the_same_bits() {
    let prompt: Vec<u32> = (1..20).collect();
    let (engine, _) = engine_with(&config(), Vec::new());
    let ask = |adapter| {
        let options = SamplingOptions { logprobs: Some(3), ..greedy(8) };
        answer(engine.submit(submission(&prompt, adapter, options)).expect("room"))
    };
    for adapter in [None, Some("a"), Some("b")] {
        let (cold, warm) = (ask(adapter), ask(adapter));
        assert_eq!((cold.cached_tokens, warm.cached_tokens), (0, 16));
        assert_eq!((cold.tokens, cold.logprobs), (warm.tokens, warm.logprobs));
    }
    assert_ne!(ask(None).tokens, ask(Some("a")).tokens, "an adapter changes the answer");
}
