//! The fields that completions and chat completions share.
use crate::{
    generation::{GenerateRequest, Priority, Prompt, SamplingOptions, WeightedAdapter},
    http::{
        ApiError,
        json::JsonBody,
        mix::{NamedAdapters, Spelling},
    },
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use std::{collections::BTreeMap, fmt};

/// Most stop strings of a request.
const MAX_STOP: usize = 16;
/// Longest stop string, bytes.
const MAX_STOP_BYTES: usize = 256;
/// Where a bias is cut off, as OpenAI and vLLM do.
const MAX_BIAS: f32 = 100.0;
/// Longest `cache_salt`, characters.
const MAX_SALT: usize = 128;
/// Most entries of `logit_bias`.
const MAX_LOGIT_BIAS: usize = 1024;

/// As they came; `null` is absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SharedFields {
    pub(super) model: Option<String>,
    pub(super) n: Option<usize>,
    pub(super) stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    seed: Option<i64>,
    stop: Option<StringOrList>,
    stop_token_ids: Option<Vec<u32>>,
    min_tokens: Option<usize>,
    ignore_eos: Option<bool>,
    logit_bias: Option<BTreeMap<String, f32>>,
    skip_special_tokens: Option<bool>,
    include_stop_str_in_output: Option<bool>,
    truncate_prompt_tokens: Option<i64>,
    pub(super) add_special_tokens: Option<bool>,
    typical_p: Option<f32>,
    allowed_token_ids: Option<Vec<u32>>,
    bad_words: Option<Vec<String>>,
    cache_salt: Option<String>,
    priority: Option<i64>,
    pub(super) prompt_logprobs: Option<usize>,
    pub(super) return_token_ids: Option<bool>,
    pub(super) return_tokens_as_token_ids: Option<bool>,
}

/// What a stream says besides text.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamOptions {
    include_usage: Option<bool>,
    continuous_usage_stats: Option<bool>,
}

impl SharedFields {
    /// Reads and checks what can be checked without a model.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub(super) fn read(body: &JsonBody, max_answers: usize) -> Result<Self, ApiError> {
        let fields: Self = body.read()?;
        if !(1..=max_answers).contains(&fields.answers()) {
            return Err(ApiError::invalid("n", format!("`n` must be between 1 and {max_answers}")));
        }
        if fields.stream_options.is_some() && !fields.streams() {
            let message = "`stream_options` needs `stream` to be true";
            return Err(ApiError::invalid("stream_options", message));
        }
        if fields.prompt_logprobs.is_some() && fields.streams() {
            let message = "`prompt_logprobs` are not available when `stream` is true";
            return Err(ApiError::invalid("prompt_logprobs", message));
        }
        Ok(fields)
    }

    /// Answers to each prompt.
    pub(super) fn answers(&self) -> usize {
        self.n.unwrap_or(1)
    }

    /// Whether to stream.
    pub(super) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Whether the stream ends with the usage.
    pub(super) fn include_usage(&self) -> bool {
        self.stream_options.and_then(|options| options.include_usage).unwrap_or(false)
    }

    /// Whether its chunks count along.
    pub(super) fn continuous_usage(&self) -> bool {
        let asked = self.stream_options.and_then(|options| options.continuous_usage_stats);
        self.include_usage() && asked.unwrap_or(false)
    }

    /// The request for one prompt. `context` is what the model takes, `defaults` what counts for
    /// sampling fields that are left out.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub(super) fn request(
        &self,
        prompt: Prompt,
        adapters: Vec<WeightedAdapter>,
        context: usize,
        defaults: &SamplingOptions,
    ) -> Result<GenerateRequest, ApiError> {
        Ok(GenerateRequest {
            prompt,
            adapters,
            sampling: self.sampling(defaults)?,
            bad_words: self.bad_words.clone().unwrap_or_default(),
            max_tokens: self.max_tokens,
            default_max_tokens: None,
            stop: self.stop()?,
            include_stop: self.include_stop_str_in_output.unwrap_or(false),
            skip_special_tokens: self.skip_special_tokens.unwrap_or(true),
            n: self.answers(),
            truncate_prompt_tokens: self.truncate(context)?,
            shows_prompt: self.return_token_ids.unwrap_or(false) && !self.streams(),
            cache_salt: self.cache_salt()?,
            constraint: None,
            priority: priority(self.priority)?,
        })
    }

    fn sampling(&self, defaults: &SamplingOptions) -> Result<SamplingOptions, ApiError> {
        Ok(SamplingOptions {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            top_k: self.top_k(defaults.top_k)?,
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(defaults.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(defaults.frequency_penalty),
            logit_bias: self.logit_bias()?,
            // Every 64-bit integer is a seed; negative ones keep their bits.
            seed: self.seed.map(|seed| seed as u64),
            min_tokens: self.min_tokens.unwrap_or(defaults.min_tokens),
            ignore_eos: self.ignore_eos.unwrap_or(defaults.ignore_eos),
            stop_token_ids: self.stop_token_ids.clone().unwrap_or_default(),
            typical_p: self.typical_p.unwrap_or(defaults.typical_p),
            allowed_token_ids: self.allowed_token_ids()?,
            prompt_logprobs: self.prompt_logprobs,
            ..defaults.clone()
        })
    }

    /// -1 is an older way to say 0: all tokens.
    fn top_k(&self, default: usize) -> Result<usize, ApiError> {
        match self.top_k {
            None => Ok(default),
            Some(-1) => Ok(0),
            Some(k) => usize::try_from(k).map_err(|_| {
                ApiError::invalid("top_k", format!("`top_k` must be -1, 0 or more, not {k}"))
            }),
        }
    }

    fn logit_bias(&self) -> Result<Vec<(u32, f32)>, ApiError> {
        let Some(biases) = &self.logit_bias else { return Ok(Vec::new()) };
        if biases.len() > MAX_LOGIT_BIAS {
            let message = format!("`logit_bias` may have {MAX_LOGIT_BIAS} entries");
            return Err(ApiError::invalid("logit_bias", message));
        }
        let wrong = || {
            ApiError::invalid(
                "logit_bias",
                "the keys of `logit_bias` must be token ids as decimals",
            )
        };
        biases
            .iter()
            .map(|(token, bias)| {
                Ok((token.parse().map_err(|_| wrong())?, bias.clamp(-MAX_BIAS, MAX_BIAS)))
            })
            .collect()
    }

    fn stop(&self) -> Result<Vec<String>, ApiError> {
        let stop = self.stop.as_ref().map(|stop| stop.0.clone()).unwrap_or_default();
        if stop.len() > MAX_STOP {
            return Err(ApiError::invalid("stop", format!("`stop` may have {MAX_STOP} strings")));
        }
        if stop.iter().any(|text| text.is_empty() || text.len() > MAX_STOP_BYTES) {
            let message = format!("a `stop` string must have 1 to {MAX_STOP_BYTES} bytes");
            return Err(ApiError::invalid("stop", message));
        }
        Ok(stop)
    }

    fn allowed_token_ids(&self) -> Result<Vec<u32>, ApiError> {
        let allowed = self.allowed_token_ids.clone().unwrap_or_default();
        if self.allowed_token_ids.is_some() && allowed.is_empty() {
            let message = "`allowed_token_ids` must name at least one token, or be left out";
            return Err(ApiError::invalid("allowed_token_ids", message));
        }
        Ok(allowed)
    }

    /// vLLM's rules: what may stand in a path or end a string may not stand in a salt.
    fn cache_salt(&self) -> Result<Option<String>, ApiError> {
        let Some(salt) = &self.cache_salt else { return Ok(None) };
        let length = salt.chars().count();
        if !(1..=MAX_SALT).contains(&length) || salt.contains(['@', '/', '\\', '\0']) {
            let message = format!(
                "`cache_salt` must have 1 to {MAX_SALT} characters, none of them `@`, `/`, `\\` or NUL"
            );
            return Err(ApiError::invalid("cache_salt", message));
        }
        Ok(Some(salt.clone()))
    }

    fn truncate(&self, context: usize) -> Result<Option<usize>, ApiError> {
        match self.truncate_prompt_tokens {
            None => Ok(None),
            Some(-1) => Ok(Some(context)),
            Some(tokens) if tokens >= 1 => Ok(Some(tokens as usize)),
            Some(tokens) => {
                let field = "truncate_prompt_tokens";
                let message = format!("`{field}` must be -1 or at least 1, not {tokens}");
                Err(ApiError::invalid(field, message))
            }
        }
    }
}

/// A request may say that it can wait, and not that others should.
///
/// # Errors
/// 501 where it does.
pub(in crate::http) fn priority(given: Option<i64>) -> Result<Priority, ApiError> {
    match given.unwrap_or(0) {
        0 => Ok(Priority::Normal),
        1.. => Ok(Priority::Low),
        _ => {
            let message = "`priority` can be 0, or more for a request that can wait; requests cannot \
                           go before others";
            Err(ApiError::unsupported("priority", message))
        }
    }
}

/// The adapters that a body names beside its `model`.
///
/// # Errors
/// The path of what is wrong.
pub(in crate::http) fn named_adapters(body: &JsonBody) -> Result<NamedAdapters, ApiError> {
    NamedAdapters::read(&[
        ("adapters", Spelling::Adapters, body.get("adapters")),
        ("lora", Spelling::Lora, body.get("lora")),
    ])
}

/// A string, or a list of them.
#[derive(Debug, Eq, PartialEq)]
struct StringOrList(Vec<String>);

impl<'de> Deserialize<'de> for StringOrList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StringOrListVisitor)
    }
}

struct StringOrListVisitor;

impl<'de> Visitor<'de> for StringOrListVisitor {
    type Value = StringOrList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<StringOrList, E> {
        Ok(StringOrList(vec![text.into()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<StringOrList, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(StringOrList(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(body: &Value) -> Result<SharedFields, ApiError> {
        SharedFields::read(&JsonBody::parse(body.to_string().as_bytes())?, 8)
    }

    fn request(body: &Value) -> Result<GenerateRequest, ApiError> {
        read(body)?.request(Prompt::Tokens(vec![1]), Vec::new(), 64, &SamplingOptions::default())
    }

    #[test]
    fn every_sampling_field_arrives() {
        let request = request(&json!({
            "n": 2, "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": -1, "min_p": 0.1,
            "repetition_penalty": 1.1, "presence_penalty": 0.2, "frequency_penalty": 0.3,
            "seed": -1, "stop": "END", "stop_token_ids": [4], "min_tokens": 2, "ignore_eos": true,
            "logit_bias": {"5": -100}, "skip_special_tokens": false, "user": "somebody",
            "include_stop_str_in_output": true, "truncate_prompt_tokens": -1, "unheard_of": {},
        }))
        .expect("valid");
        let expected = SamplingOptions {
            temperature: 0.5,
            top_p: 0.9,
            top_k: 0,
            min_p: 0.1,
            repetition_penalty: 1.1,
            presence_penalty: 0.2,
            frequency_penalty: 0.3,
            logit_bias: vec![(5, -100.0)],
            seed: Some(u64::MAX),
            min_tokens: 2,
            ignore_eos: true,
            stop_token_ids: vec![4],
            ..SamplingOptions::default()
        };
        assert_eq!(request.sampling, expected);
        assert_eq!((request.n, request.max_tokens), (2, Some(7)));
        assert_eq!(request.stop, ["END"]);
        assert!(request.include_stop && !request.skip_special_tokens);
        assert_eq!(request.truncate_prompt_tokens, Some(64));
    }

    #[test]
    fn vllm_s_fields_arrive() {
        let request = request(&json!({
            "typical_p": 0.5, "allowed_token_ids": [3, 4], "bad_words": ["no"], "priority": 3,
            "cache_salt": "é", "prompt_logprobs": 2, "return_token_ids": true,
        }))
        .expect("valid");
        assert_eq!(request.sampling.typical_p, 0.5);
        assert_eq!(request.sampling.allowed_token_ids, [3, 4]);
        assert_eq!(request.sampling.prompt_logprobs, Some(2));
        assert_eq!((request.bad_words, request.priority), (vec!["no".to_owned()], Priority::Low));
        assert_eq!((request.cache_salt.as_deref(), request.shows_prompt), (Some("é"), true));
    }

    #[test]
    fn a_request_cannot_go_before_others() {
        let refused = request(&json!({"priority": -1})).expect_err("refused").openai();
        assert_eq!(
            (&refused["error"]["code"], &refused["error"]["param"]),
            (&json!(501), &json!("priority"))
        );
        assert_eq!(request(&json!({"priority": 0})).expect("valid").priority, Priority::Normal);
    }

    #[test]
    fn null_everywhere_is_the_default() {
        let nulls = json!({
            "model": null, "n": null, "stream": null, "stream_options": null, "max_tokens": null,
            "temperature": null, "stop": null, "logit_bias": null, "seed": null, "top_k": null,
        });
        let request = request(&nulls).expect("valid");
        assert_eq!(request.sampling, SamplingOptions::default());
        assert_eq!((request.n, request.stop.len()), (1, 0));
    }

    #[test]
    fn what_a_request_leaves_out_is_as_the_model_s_makers_say() {
        let neutral = SamplingOptions::default();
        let makers = SamplingOptions { temperature: 0.6, top_k: 20, top_p: 0.9, ..neutral.clone() };
        let asked = |body: Value| {
            let request = read(&body)?.request(Prompt::Tokens(vec![1]), Vec::new(), 64, &makers);
            Ok::<_, ApiError>(request?.sampling)
        };
        assert_eq!(asked(json!({})).expect("valid"), makers);
        let own = json!({"temperature": 1, "top_k": 0, "top_p": 1});
        assert_eq!(asked(own).expect("valid"), neutral);
    }

    #[test]
    fn a_bias_is_cut_off_at_a_hundred() {
        let request = request(&json!({"logit_bias": {"5": 1000, "6": -1e30, "7": 3}}));
        let biases = request.expect("valid").sampling.logit_bias;
        assert_eq!(biases, [(5, 100.0), (6, -100.0), (7, 3.0)]);
    }

    #[test]
    fn a_wrong_field_is_named() {
        for (body, field) in [
            (json!({"n": 0}), "n"),
            (json!({"n": 9}), "n"),
            (json!({"n": -1}), "n"),
            (json!({"top_k": -2}), "top_k"),
            (json!({"stop": [""]}), "stop"),
            (json!({"stop": vec!["x"; 17]}), "stop"),
            (json!({"stop": [1]}), "stop[0]"),
            (json!({"stop": {"a": 1}}), "stop"),
            (json!({"logit_bias": {"five": 1}}), "logit_bias"),
            (json!({"logit_bias": {"5": "one"}}), "logit_bias.5"),
            (json!({"truncate_prompt_tokens": 0}), "truncate_prompt_tokens"),
            (json!({"stream_options": {"include_usage": true}}), "stream_options"),
            (json!({"stream": true, "prompt_logprobs": 0}), "prompt_logprobs"),
            (json!({"prompt_logprobs": -1}), "prompt_logprobs"),
            (json!({"allowed_token_ids": []}), "allowed_token_ids"),
            (json!({"bad_words": ["a", 1]}), "bad_words[1]"),
            (json!({"cache_salt": ""}), "cache_salt"),
            (json!({"cache_salt": "a/b"}), "cache_salt"),
            (json!({"cache_salt": "a\\b"}), "cache_salt"),
            (json!({"cache_salt": "a\u{0}"}), "cache_salt"),
            (json!({"cache_salt": "x".repeat(129)}), "cache_salt"),
            (json!({"temperature": "hot"}), "temperature"),
            (json!({"stream": 1}), "stream"),
        ] {
            let error = request(&body).expect_err("refused").openai();
            assert_eq!(error["error"]["param"], field, "{body}");
            assert_eq!(error["error"]["code"], 400, "{body}");
        }
    }
}
