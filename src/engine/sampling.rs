//! How to choose tokens and when to stop, checked.
use crate::error::{Classified, ErrorKind};

/// What a request asks for, unchecked; the defaults are neutral.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// 0 is greedy; up to 2 and beyond flattens.
    pub temperature: f32,
    /// Keep the smallest set of tokens with this much probability, `(0, 1]`.
    pub top_p: f32,
    /// Keep this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Drop tokens less likely than this share of the most likely one, `[0, 1]`.
    pub min_p: f32,
    /// Divides (or multiplies, below zero) logits of tokens in prompt and answer; 1 is neutral.
    pub repetition_penalty: f32,
    /// Subtracted once from logits of tokens in the answer, `[-2, 2]`.
    pub presence_penalty: f32,
    /// Subtracted for every occurrence in the answer, `[-2, 2]`.
    pub frequency_penalty: f32,
    /// Added to a token's logit, `[-100, 100]`.
    pub logit_bias: Vec<(u32, f32)>,
    /// Same seed, same prompt, same adapter version: same tokens, whoever shares the batch.
    pub seed: Option<u64>,
    /// Keep the most typical tokens with this much probability, `(0, 1]`; after `top_k` and `top_p`.
    pub typical_p: f32,
    /// Only these may be chosen; empty allows all.
    pub allowed_token_ids: Vec<u32>,
    /// Runs of tokens that the answer must not contain, each not empty.
    pub bad_words: Vec<Vec<u32>>,
    /// At most this many new tokens; 0 reads the prompt and ends.
    pub max_tokens: usize,
    /// No stop token and no end of sequence before this many new tokens.
    pub min_tokens: usize,
    /// Run on past the model's end-of-sequence tokens.
    pub ignore_eos: bool,
    /// Tokens that end the answer.
    pub stop_token_ids: Vec<u32>,
    /// Log-probabilities of the chosen token and this many alternatives, at most 20; `None` for none.
    pub logprobs: Option<usize>,
    /// The same for every token of the prompt but the first.
    pub prompt_logprobs: Option<usize>,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            typical_p: 1.0,
            allowed_token_ids: Vec::new(),
            bad_words: Vec::new(),
            seed: None,
            max_tokens: 16,
            min_tokens: 0,
            ignore_eos: false,
            stop_token_ids: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
        }
    }
}

/// A field out of its range.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{field}` {rule}, not {value}")]
pub struct InvalidSampling {
    /// The field, as OpenAI and vLLM name it.
    pub field: &'static str,
    /// What it must be.
    pub rule: String,
    /// What it was.
    pub value: String,
}

impl Classified for InvalidSampling {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidRequest
    }

    fn code(&self) -> &'static str {
        "invalid_value"
    }

    fn param(&self) -> Option<&str> {
        Some(self.field)
    }
}

/// [`SamplingOptions`] in range, with a seed. The only way in is [`SamplingParams::new`].
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    options: SamplingOptions,
    seed: u64,
}

impl SamplingParams {
    /// Most alternatives a request may ask for.
    pub const MAX_LOGPROBS: usize = 20;

    /// Most stop tokens a request may name: every step looks at each, and some token must be left to choose.
    pub const MAX_STOP_TOKENS: usize = 300;

    /// Most runs of tokens a request may forbid: every step looks at each.
    pub const MAX_BAD_WORDS: usize = 1024;

    /// Checks every field; `seed` is used where the options have none.
    ///
    /// # Errors
    /// [`InvalidSampling`] for the first field out of its range.
    pub fn new(options: SamplingOptions, vocab: usize, seed: u64) -> Result<Self, InvalidSampling> {
        check(&options, vocab)?;
        let seed = options.seed.unwrap_or(seed);
        Ok(Self { options, seed })
    }

    /// The checked options.
    pub fn options(&self) -> &SamplingOptions {
        &self.options
    }

    /// The seed of this sequence's draws.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

fn check(options: &SamplingOptions, vocab: usize) -> Result<(), InvalidSampling> {
    let o = options;
    range("temperature", o.temperature, 0.0, 100.0)?;
    range("top_p", o.top_p, 0.0, 1.0)?;
    require(o.top_p > 0.0, "top_p", "must be above 0", &o.top_p)?;
    range("min_p", o.min_p, 0.0, 1.0)?;
    range("repetition_penalty", o.repetition_penalty, 0.0, 100.0)?;
    require(
        o.repetition_penalty > 0.0,
        "repetition_penalty",
        "must be above 0",
        &o.repetition_penalty,
    )?;
    range("presence_penalty", o.presence_penalty, -2.0, 2.0)?;
    range("frequency_penalty", o.frequency_penalty, -2.0, 2.0)?;
    range("typical_p", o.typical_p, 0.0, 1.0)?;
    require(o.typical_p > 0.0, "typical_p", "must be above 0", &o.typical_p)?;
    let enough = o.min_tokens <= o.max_tokens;
    require(
        enough,
        "min_tokens",
        &format!("must be at most max_tokens ({})", o.max_tokens),
        &o.min_tokens,
    )?;
    let most = SamplingParams::MAX_LOGPROBS;
    for (field, wanted) in [("logprobs", o.logprobs), ("prompt_logprobs", o.prompt_logprobs)] {
        let wanted = wanted.unwrap_or(0);
        require(wanted <= most, field, &format!("must be at most {most}"), &wanted)?;
    }
    let below = format!("must name tokens below the vocabulary's {vocab}");
    for (token, bias) in &o.logit_bias {
        require((*token as usize) < vocab, "logit_bias", &below, token)?;
        range("logit_bias", *bias, -100.0, 100.0)?;
    }
    let (named, most) = (o.stop_token_ids.len(), SamplingParams::MAX_STOP_TOKENS);
    require(named <= most, "stop_token_ids", &format!("may name at most {most} tokens"), &named)?;
    let (named, most) = (o.bad_words.len(), SamplingParams::MAX_BAD_WORDS);
    require(
        named <= most,
        "bad_words",
        &format!("may make at most {most} runs of tokens"),
        &named,
    )?;
    let empty = o.bad_words.iter().any(Vec::is_empty);
    require(!empty, "bad_words", "must have no word without tokens", &"one")?;
    for (field, tokens) in
        [("stop_token_ids", &o.stop_token_ids), ("allowed_token_ids", &o.allowed_token_ids)]
    {
        let beyond = tokens.iter().find(|token| **token as usize >= vocab);
        beyond.map_or(Ok(()), |token| require(false, field, &below, token))?;
    }
    Ok(())
}

fn range(field: &'static str, value: f32, low: f32, high: f32) -> Result<(), InvalidSampling> {
    let inside = (low..=high).contains(&value);
    require(inside, field, &format!("must be between {low} and {high}"), &value)
}

fn require(
    holds: bool,
    field: &'static str,
    rule: &str,
    value: &impl ToString,
) -> Result<(), InvalidSampling> {
    if holds {
        return Ok(());
    }
    Err(InvalidSampling { field, rule: rule.into(), value: value.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_out_of_range_is_named() {
        let wrong = [
            SamplingOptions { temperature: f32::NAN, ..Default::default() },
            SamplingOptions { top_p: 0.0, ..Default::default() },
            SamplingOptions { min_tokens: 17, ..Default::default() },
            SamplingOptions { logit_bias: vec![(100, 0.0)], ..Default::default() },
            SamplingOptions { stop_token_ids: vec![100], ..Default::default() },
            SamplingOptions { stop_token_ids: vec![5; 301], ..Default::default() },
            SamplingOptions { logprobs: Some(21), ..Default::default() },
            SamplingOptions { prompt_logprobs: Some(21), ..Default::default() },
            SamplingOptions { typical_p: 0.0, ..Default::default() },
            SamplingOptions { allowed_token_ids: vec![1, 100], ..Default::default() },
            SamplingOptions { bad_words: vec![vec![]], ..Default::default() },
            SamplingOptions { bad_words: vec![vec![1]; 1025], ..Default::default() },
        ];
        let fields = [
            "temperature",
            "top_p",
            "min_tokens",
            "logit_bias",
            "stop_token_ids",
            "stop_token_ids",
            "logprobs",
            "prompt_logprobs",
            "typical_p",
            "allowed_token_ids",
            "bad_words",
            "bad_words",
        ];
        for (options, field) in wrong.into_iter().zip(fields) {
            assert_eq!(SamplingParams::new(options, 100, 0).expect_err("refused").field, field);
        }
        let neutral = SamplingParams::new(SamplingOptions::default(), 100, 7).expect("neutral");
        assert_eq!(neutral.seed(), 7);
    }
}
