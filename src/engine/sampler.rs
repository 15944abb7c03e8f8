//! From logits to a token.
use super::{
    SamplingOptions, SamplingParams, TokenLogprobs, TokenMask, Unenforceable,
    constraint::{Constrained, Next},
    counts::TokenCounts,
    ranking::{Keep, Ranking},
    softmax,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Chooses tokens. Keeps buffers as long as the vocabulary between draws.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    adjusted: Vec<f32>,
    weights: Vec<f32>,
    ranking: Ranking,
    mask: TokenMask,
}

/// One sequence's next token, not chosen yet.
#[derive(Clone, Copy)]
pub(super) struct Draw<'a> {
    /// The model's, `[vocab]`.
    pub(super) logits: &'a [f32],
    /// The most likely of them; `None` where they are not numbers or there is none.
    pub(super) best: Option<u32>,
    /// The token that stands there already: nothing is chosen, it is only judged.
    pub(super) given: Option<u32>,
    pub(super) params: &'a SamplingParams,
    pub(super) counts: &'a TokenCounts,
    /// Knows the answer so far; `None` for a free one.
    pub(super) constraint: Option<&'a Constrained>,
    /// End-of-sequence tokens that count.
    pub(super) eos: &'a [u32],
    /// The answer so far.
    pub(super) answer: &'a [u32],
    /// Its tokens, guessed ones included.
    pub(super) answered: usize,
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Choice {
    pub(super) id: u32,
    pub(super) logprobs: Option<TokenLogprobs>,
}

/// Why no token was chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NoChoice {
    /// The logits are not numbers, or none is above minus infinity.
    NotNumbers,
    /// The request's own options leave nothing.
    NothingLeft,
    /// What the answer must be, it is, and nothing may follow.
    Complete,
    /// What may follow cannot be told.
    Unenforceable,
}

impl Sampler {
    /// The token.
    pub(super) fn sample(&mut self, draw: &Draw<'_>) -> Result<Choice, NoChoice> {
        let (mut best, mut logits) = (draw.best.ok_or(NoChoice::NotNumbers)?, draw.logits);
        let options = draw.params.options();
        if let Some(id) = draw.given {
            let logprobs = options.prompt_logprobs.map(|top| logprobs(logits, id, top));
            return Ok(Choice { id, logprobs });
        }
        if !draw.is_neutral() {
            self.adjusted.clear();
            self.adjusted.extend_from_slice(logits);
            if let Some(constraint) = draw.constraint {
                self.mask.reset(logits.len());
                let stops = &options.stop_token_ids;
                match constraint.next(&mut self.mask, draw.eos, stops) {
                    Ok(Next::Tokens) => self.mask.apply(&mut self.adjusted),
                    Ok(Next::End) => return Err(NoChoice::Complete),
                    Err(Unenforceable) => return Err(NoChoice::Unenforceable),
                }
            }
            adjust(&mut self.adjusted, draw);
            logits = &self.adjusted;
            best = best_of(logits).ok_or(NoChoice::NothingLeft)?;
        }
        let id = if options.temperature == 0.0 {
            best
        } else {
            let highest = logits[best as usize];
            softmax::weigh(
                &mut self.weights,
                logits,
                highest,
                (options.temperature, options.min_p),
            );
            let at = uniform(draw.params.seed(), draw.answered);
            let keep =
                Keep { top_k: options.top_k, top_p: options.top_p, typical_p: options.typical_p };
            self.ranking.pick(&self.weights, keep, at).unwrap_or(best)
        };
        let logprobs = options.logprobs.map(|top| logprobs(draw.logits, id, top));
        Ok(Choice { id, logprobs })
    }
}

impl Draw<'_> {
    fn is_neutral(&self) -> bool {
        let options = self.params.options();
        self.constraint.is_none()
            && self.counts.is_empty()
            && options.logit_bias.is_empty()
            && options.allowed_token_ids.is_empty()
            && options.bad_words.is_empty()
            && !self.must_go_on()
    }

    /// Whether `min_tokens` forbids the tokens that end the answer.
    fn must_go_on(&self) -> bool {
        self.answered < self.params.options().min_tokens
    }
}

/// Masks, biases and penalises, in vLLM's order (`vllm/v1/sample/sampler.py`).
fn adjust(logits: &mut [f32], draw: &Draw<'_>) {
    let options = draw.params.options();
    allow_only(logits, &options.allowed_token_ids);
    for run in &options.bad_words {
        let Some((last, before)) = run.split_last() else { continue };
        if draw.answer.ends_with(before) {
            forbid(logits, *last);
        }
    }
    for (token, bias) in &options.logit_bias {
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit += bias;
        }
    }
    for (token, answered) in draw.counts.iter() {
        if let Some(logit) = logits.get_mut(token as usize) {
            penalise(logit, options, answered);
        }
    }
    if draw.must_go_on() {
        for token in draw.eos.iter().chain(&options.stop_token_ids) {
            forbid(logits, *token);
        }
    }
}

fn forbid(logits: &mut [f32], token: u32) {
    if let Some(logit) = logits.get_mut(token as usize) {
        *logit = f32::NEG_INFINITY;
    }
}

/// An empty list allows everything.
fn allow_only(logits: &mut [f32], allowed: &[u32]) {
    if allowed.is_empty() {
        return;
    }
    let kept: Vec<_> =
        allowed.iter().filter_map(|token| Some((*token, *logits.get(*token as usize)?))).collect();
    logits.fill(f32::NEG_INFINITY);
    for (token, logit) in kept {
        logits[token as usize] = logit;
    }
}

/// Of a token that occurred, `answered` times of them in the answer.
fn penalise(logit: &mut f32, options: &SamplingOptions, answered: u32) {
    if *logit > 0.0 {
        *logit /= options.repetition_penalty;
    } else {
        *logit *= options.repetition_penalty;
    }
    if answered > 0 {
        *logit -= options.frequency_penalty * answered as f32 + options.presence_penalty;
    }
}

/// The most likely token, the lowest id of equals.
fn best_of(logits: &[f32]) -> Option<u32> {
    let highest = softmax::highest(logits);
    if highest == f32::NEG_INFINITY {
        return None;
    }
    logits.iter().position(|logit| *logit >= highest).map(|id| id as u32)
}

/// In `[0, 1)`; depends on the seed and the token's place in the answer, on nothing that ran before.
fn uniform(seed: u64, answered: usize) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(answered as u64);
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Under the model's own distribution.
fn logprobs(logits: &[f32], id: u32, top: usize) -> TokenLogprobs {
    let log_sum = softmax::log_sum_exp(logits);
    let mut top = top_of(logits, top);
    for (_, logit) in &mut top {
        *logit -= log_sum;
    }
    let own = logits[id as usize];
    let rank = logits.iter().filter(|logit| **logit >= own).count();
    TokenLogprobs { chosen: own - log_sum, rank, top }
}

/// The `n` highest logits, best first, the lower id of equals before.
fn top_of(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    let mut top: Vec<(u32, f32)> = Vec::with_capacity(n + 1);
    for (&logit, id) in logits.iter().zip(0..) {
        if top.len() == n && top.last().is_none_or(|(_, lowest)| logit <= *lowest) {
            continue;
        }
        let at = top.partition_point(|(_, higher)| *higher >= logit);
        top.insert(at, (id, logit));
        top.truncate(n);
    }
    top
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Kernels, Reference};
    use proptest::prelude::*;

    struct Case {
        params: SamplingParams,
        counts: TokenCounts,
        answer: Vec<u32>,
        answered: usize,
        constraint: Option<Constrained>,
    }

    impl Case {
        fn new(options: SamplingOptions) -> Self {
            Self::after(&[], &[], options)
        }

        fn after(prompt: &[u32], answer: &[u32], options: SamplingOptions) -> Self {
            let mut counts = TokenCounts::new(prompt, &options);
            for token in answer {
                counts.push(*token);
            }
            let params = SamplingParams::new(options, 1 << 20, 1).expect("in range");
            let (answer, answered) = (answer.to_vec(), answer.len());
            Self { params, counts, answer, answered, constraint: None }
        }

        fn sample(&self, logits: &[f32]) -> Result<Choice, NoChoice> {
            let (params, counts) = (&self.params, &self.counts);
            let (eos, best, answered) = (&[0], best(logits), self.answered);
            let (constraint, answer, given) = (self.constraint.as_ref(), &self.answer[..], None);
            let draw =
                Draw { logits, best, given, params, counts, constraint, eos, answer, answered };
            Sampler::default().sample(&draw)
        }

        fn id(&self, logits: &[f32]) -> u32 {
            self.sample(logits).expect("something to choose").id
        }
    }

    fn best(logits: &[f32]) -> Option<u32> {
        let mut best = Vec::new();
        Reference.highest(logits, logits.len(), &mut best).expect("one row");
        best[0]
    }

    fn greedy() -> SamplingOptions {
        SamplingOptions { temperature: 0.0, ..Default::default() }
    }

    #[test]
    fn greedy_takes_the_best_and_of_equals_the_lowest() {
        assert_eq!(Case::new(greedy()).id(&[0.0, 3.0, 3.0, -1.0]), 1);
        assert_eq!(Case::new(greedy()).id(&[f32::NEG_INFINITY, -7.0]), 1);
    }

    #[test]
    fn logits_that_are_no_numbers_choose_nothing() {
        for temperature in [0.0, 1.0] {
            let case = Case::new(SamplingOptions { temperature, ..Default::default() });
            for logits in [[f32::NAN, 1.0], [1.0, f32::INFINITY], [f32::NEG_INFINITY; 2]] {
                assert_eq!(case.sample(&logits), Err(NoChoice::NotNumbers), "{logits:?}");
            }
        }
    }

    #[test]
    fn a_tiny_temperature_is_greedy_and_not_nan() {
        let case = Case::new(SamplingOptions { temperature: 1e-38, ..Default::default() });
        assert_eq!(case.id(&[1.0, 1.5, -1e30, 1.4]), 1);
    }

    #[test]
    fn penalties_follow_occurrences_in_prompt_and_answer() {
        let repetition = SamplingOptions { repetition_penalty: 2.0, ..greedy() };
        assert_eq!(Case::after(&[1], &[], repetition.clone()).id(&[1.1, 2.0, 0.0]), 0);
        assert_eq!(Case::after(&[1], &[], repetition).id(&[-1.9, -1.0, -3.0]), 0, "below zero too");

        let presence = SamplingOptions { presence_penalty: 1.0, ..greedy() };
        assert_eq!(Case::after(&[1], &[], presence.clone()).id(&[1.5, 2.0]), 1, "not the prompt");
        assert_eq!(Case::after(&[], &[1, 1], presence).id(&[0.5, 2.0]), 1, "once");

        let frequency = SamplingOptions { frequency_penalty: 1.0, ..greedy() };
        assert_eq!(Case::after(&[], &[1, 1], frequency).id(&[0.5, 2.0]), 0, "each time");
    }

    #[test]
    fn bias_can_force_a_token_and_min_tokens_forbids_the_end() {
        let bias = SamplingOptions { logit_bias: vec![(2, 100.0)], ..greedy() };
        assert_eq!(Case::new(bias).id(&[5.0, 4.0, 3.0]), 2);
        let options = SamplingOptions { min_tokens: 2, stop_token_ids: vec![1], ..greedy() };
        assert_eq!(Case::after(&[], &[7], options.clone()).id(&[5.0, 4.0, 3.0]), 2);
        assert_eq!(Case::after(&[], &[7, 7], options).id(&[5.0, 4.0, 3.0]), 0);
    }

    #[test]
    fn logprobs_are_the_models_own() {
        let options =
            SamplingOptions { logprobs: Some(2), logit_bias: vec![(3, 100.0)], ..greedy() };
        let logits = [1.0, 2.0, 2.0, 0.0];
        let sum: f32 = logits.iter().map(|logit: &f32| logit.exp()).sum();
        let choice = Case::new(options).sample(&logits).expect("a token");
        let logprobs = choice.logprobs.expect("asked for");
        assert_eq!((choice.id, logprobs.rank), (3, 4));
        assert!((logprobs.chosen + sum.ln()).abs() < 1e-6);
        assert_eq!(logprobs.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2]);
        assert!((logprobs.top[0].1 - (2.0 - sum.ln())).abs() < 1e-6);
        let none = SamplingOptions { logprobs: Some(0), ..greedy() };
        let choice = Case::new(none).sample(&logits).expect("a token");
        assert!(choice.logprobs.expect("asked for").top.is_empty());
    }

    #[test]
    fn a_token_that_stands_there_is_judged_and_not_chosen() {
        let options = SamplingOptions {
            prompt_logprobs: Some(1),
            allowed_token_ids: vec![0],
            ..SamplingOptions::default()
        };
        let case = Case::new(options);
        let logits = [1.0, 2.0, 2.0, 0.0];
        let (params, counts) = (&case.params, &case.counts);
        let (best, given, eos, answer) = (best(&logits), Some(2), &[][..], &[][..]);
        let draw = Draw {
            logits: &logits,
            best,
            given,
            params,
            counts,
            constraint: None,
            eos,
            answer,
            answered: 0,
        };
        let choice = Sampler::default().sample(&draw).expect("judged");
        let sum: f32 = logits.iter().map(|logit: &f32| logit.exp()).sum();
        let logprobs = choice.logprobs.expect("asked for");
        assert_eq!((choice.id, logprobs.rank, logprobs.top[0].0), (2, 2, 1));
        assert!((logprobs.chosen - (2.0 - sum.ln())).abs() < 1e-6, "the model's own");
        let broken = Draw { logits: &[f32::NAN; 4], best: None, ..draw };
        assert_eq!(Sampler::default().sample(&broken), Err(NoChoice::NotNumbers));
    }

    #[test]
    fn only_allowed_tokens_are_chosen_and_no_forbidden_run_is_completed() {
        let options = SamplingOptions { allowed_token_ids: vec![2, 0], ..greedy() };
        assert_eq!(Case::new(options).id(&[3.0, 9.0, 4.0]), 2);
        let options = SamplingOptions { allowed_token_ids: vec![2], ..Default::default() };
        assert_eq!(Case::new(options).id(&[3.0, 9.0, -40.0]), 2, "though it is unlikely");
        let options = SamplingOptions { bad_words: vec![vec![1], vec![5, 2]], ..greedy() };
        let after =
            |answer: &[u32]| Case::after(&[5], answer, options.clone()).id(&[3.0, 9.0, 4.0]);
        assert_eq!(after(&[]), 2, "the prompt completes no run");
        assert_eq!((after(&[5]), after(&[5, 4])), (0, 2));
        let nothing =
            SamplingOptions { allowed_token_ids: vec![1], bad_words: vec![vec![1]], ..greedy() };
        assert_eq!(Case::new(nothing).sample(&[1.0, 2.0]), Err(NoChoice::NothingLeft));
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.2_f32.ln()];
        let params = SamplingParams::new(SamplingOptions::default(), 3, 9).expect("in range");
        let counts = TokenCounts::default();
        let mut seen = [0_usize; 3];
        for answered in 0..4000 {
            let (logits, params, counts, eos) = (&logits[..], &params, &counts, &[]);
            let (best, given, constraint, answer) = (best(logits), None, None, &[][..]);
            let draw =
                Draw { logits, best, given, params, counts, constraint, eos, answer, answered };
            seen[Sampler::default().sample(&draw).expect("a token").id as usize] += 1;
        }
        for (seen, expected) in seen.into_iter().zip([2000_usize, 1200, 800]) {
            assert!(seen.abs_diff(expected) < 120, "{seen} of {expected}");
        }
    }

    /// The tokens that may be drawn, by sorting everything.
    fn allowed(logits: &[f32], options: &SamplingOptions) -> Vec<u32> {
        let mut ranked: Vec<(f64, u32)> = logits
            .iter()
            .zip(0..)
            .map(|(logit, id)| (f64::from(logit / options.temperature).exp(), id))
            .collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let floor = ranked[0].0 * f64::from(options.min_p) * (1.0 - 1e-5);
        ranked.retain(|(weight, _)| *weight >= floor);
        if options.top_k > 0 {
            ranked.truncate(options.top_k);
        }
        let total: f64 = ranked.iter().map(|(weight, _)| weight).sum();
        let mut sum = 0.0;
        let enough = ranked.iter().position(|(weight, _)| {
            sum += weight;
            sum >= total * f64::from(options.top_p) * (1.0 + 1e-5)
        });
        ranked.truncate(enough.map_or(ranked.len(), |at| at + 1));
        ranked.into_iter().map(|(_, id)| id).collect()
    }

    proptest! {
        #[test]
        fn only_allowed_tokens_are_drawn_and_always_the_same_one(
            logits in prop::collection::vec(-5.0_f32..5.0, 1..40),
            (temperature, top_p) in (0.1_f32..3.0, 0.05_f32..1.0),
            (top_k, min_p) in (0_usize..10, 0.0_f32..0.5),
            (seed, answered) in (any::<u64>(), 0_usize..50),
        ) {
            let options = SamplingOptions {
                temperature, top_p, top_k, min_p, seed: Some(seed), ..Default::default()
            };
            let mut case = Case::new(options.clone());
            case.answered = answered;
            let id = case.id(&logits);
            prop_assert!(allowed(&logits, &options).contains(&id));

            let mut used = Sampler::default();
            let (params, counts) = (&case.params, &case.counts);
            let (logits_of_two, constraint) = (&[1.0, 2.0][..], None);
            let (best_of_two, given, eos, answer) = (Some(1), None, &[0][..], &[][..]);
            let draw = Draw {
                logits: logits_of_two,
                best: best_of_two,
                given,
                params,
                counts,
                constraint,
                eos,
                answer,
                answered,
            };
            used.sample(&draw).expect("a token");
            let draw = Draw { logits: &logits, best: best(&logits), ..draw };
            let again = used.sample(&draw).expect("a token");
            prop_assert_eq!(again.id, id);
        }
    }
}
