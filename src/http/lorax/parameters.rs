//! `inputs` and `parameters`.
use crate::{
    generation::{GenerateRequest, Priority, Prompt, SamplingOptions, ServedAdapter},
    http::{
        ApiError,
        json::JsonBody,
        mix::{NamedAdapters, Spelling},
        structured,
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// TGI's.
const DEFAULT_NEW_TOKENS: usize = 100;
/// Most stop strings.
const MAX_STOP: usize = 4;
/// LoRAX's name of the base.
const BASE: &str = "__base_model__";

#[derive(Debug, Deserialize)]
struct Body {
    inputs: String,
    parameters: Option<Parameters>,
    stream: Option<bool>,
}

/// As they came; `null` is absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    adapter_id: Option<String>,
    adapter_source: Option<String>,
    best_of: Option<usize>,
    decoder_input_details: Option<bool>,
    typical_p: Option<f32>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    repetition_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    do_sample: Option<bool>,
    seed: Option<u64>,
    max_new_tokens: Option<usize>,
    ignore_eos_token: Option<bool>,
    return_full_text: Option<bool>,
    stop: Option<Vec<String>>,
    truncate: Option<usize>,
    details: Option<bool>,
    apply_chat_template: Option<bool>,
    return_k_alternatives: Option<usize>,
    top_n_tokens: Option<usize>,
}

/// A request and what its answer shows.
#[derive(Debug)]
pub(super) struct LoraxRequest {
    /// Without its adapters.
    pub(super) request: GenerateRequest,
    /// `adapter_id`; `None` is the base.
    pub(super) adapter: Option<String>,
    /// Where the request says its adapter comes from; it was published here, wherever that was.
    pub(super) source: Option<String>,
    /// Characters of `inputs`.
    pub(super) characters: usize,
    /// What names adapters in other fields.
    pub(super) named: NamedAdapters,
    /// Whether the body asks for a stream.
    pub(super) stream: bool,
    /// What the answer shows.
    pub(super) shown: Shown,
}

/// What an answer shows besides generated text.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// Tokens, counts and the reason of the end.
    pub(super) details: bool,
    /// The prompt's tokens among them.
    pub(super) prefill: bool,
    /// The prompt, where it goes before the text.
    pub(super) prompt: Option<String>,
    /// The seed of the draws; greedy answers have none.
    pub(super) seed: Option<u64>,
    /// Alternatives to every token.
    pub(super) alternatives: bool,
    /// What answered; empty until it is known.
    pub(super) served: Vec<ServedAdapter>,
}

/// Whether a route streams.
#[derive(Clone, Copy, Debug)]
pub(super) enum Streams {
    /// Whatever the body says.
    Never,
    /// Whatever the body says.
    Always,
    /// As the body says.
    AsAsked,
}

impl LoraxRequest {
    /// Reads and checks what can be checked without a model; a request may have `most` answers.
    ///
    /// # Errors
    /// The first field that is wrong, or known and not served.
    pub(super) fn read(body: &JsonBody, streams: Streams, most: usize) -> Result<Self, ApiError> {
        let read: Body = body.read()?;
        let given = body.get("parameters").and_then(Value::as_object);
        given.map_or(Ok(()), check_supported)?;
        let named = named_adapters(body, given)?;
        let parameters = read.parameters.unwrap_or_default();
        let stream = match streams {
            Streams::Never => false,
            Streams::Always => true,
            Streams::AsAsked => read.stream.unwrap_or(false),
        };
        let prefill = parameters.decoder_input_details.unwrap_or(false);
        let details = parameters.details.unwrap_or(false) || prefill;
        let best_of = parameters.best_of(most)?;
        check_whole(stream, best_of, prefill)?;
        parameters.check_source()?;
        let source = parameters.adapter_source.clone();
        let prompt = parameters.return_full_text.unwrap_or(false).then(|| read.inputs.clone());
        let adapter = parameters.adapter_id.clone().filter(|id| !id.is_empty() && id != BASE);
        let characters = read.inputs.chars().count();
        let mut request = parameters.request(read.inputs)?;
        request.constraint = given.map_or(Ok(None), structured::of_lorax)?;
        let alternatives = parameters.alternatives();
        // Where tokens are shown, clients require a number at every one.
        let listed = details || stream;
        request.sampling.logprobs = (listed || best_of > 1).then_some(alternatives.unwrap_or(0));
        request.sampling.prompt_logprobs = prefill.then_some(0);
        request.n = best_of;
        let (seed, alternatives) = (request.sampling.seed, alternatives.is_some());
        let shown = Shown { details, prefill, prompt, seed, alternatives, served: Vec::new() };
        Ok(Self { request, adapter, source, characters, named, stream, shown })
    }
}

#[cfg(test)]
pub(in crate::http) fn parameter_fields() -> Vec<&'static str> {
    crate::http::json::known_fields::<Parameters>()
}

/// What is only known at the end cannot be streamed; TGI's words.
fn check_whole(stream: bool, best_of: usize, prefill: bool) -> Result<(), ApiError> {
    if stream && best_of > 1 {
        let message = "`best_of` != 1 is not supported when streaming tokens";
        return Err(ApiError::invalid("parameters.best_of", message));
    }
    if stream && prefill {
        let message = "`decoder_input_details` == true is not supported when streaming tokens";
        return Err(ApiError::invalid("parameters.decoder_input_details", message));
    }
    Ok(())
}

/// The adapters that a body names beside its `adapter_id`.
fn named_adapters(
    body: &JsonBody,
    parameters: Option<&Map<String, Value>>,
) -> Result<NamedAdapters, ApiError> {
    let given = |field: &str| parameters?.get(field).filter(|value| !value.is_null());
    NamedAdapters::read(&[
        ("parameters.merged_adapters", Spelling::Merged, given("merged_adapters")),
        ("parameters.adapters", Spelling::Adapters, given("adapters")),
        ("parameters.lora", Spelling::Lora, given("lora")),
        ("adapters", Spelling::Adapters, body.get("adapters")),
        ("lora", Spelling::Lora, body.get("lora")),
    ])
}

impl Parameters {
    fn alternatives(&self) -> Option<usize> {
        self.return_k_alternatives.or(self.top_n_tokens).filter(|count| *count > 0)
    }

    /// Whether something asks for chance.
    fn samples(&self) -> bool {
        self.do_sample.unwrap_or(false)
            || self.temperature.is_some()
            || self.top_k.is_some()
            || self.top_p.is_some()
            || self.typical_p.is_some()
    }

    fn best_of(&self, most: usize) -> Result<usize, ApiError> {
        let best_of = self.best_of.unwrap_or(1);
        let wrong = |message: String| Err(ApiError::invalid("parameters.best_of", message));
        if !(1..=most).contains(&best_of) {
            return wrong(format!("`best_of` must be > 0 and <= {most}. Given: {best_of}"));
        }
        if best_of > 1 && !self.samples() {
            return wrong("you must use sampling when `best_of` is > 1".into());
        }
        Ok(best_of)
    }

    /// Adapters are published here first, from wherever they come; a source that says more cannot be honoured.
    fn check_source(&self) -> Result<(), ApiError> {
        match self.adapter_source.as_deref() {
            None | Some("" | "local" | "hub") => Ok(()),
            Some(source) => {
                let shown: String = source.chars().take(40).collect();
                let message = format!(
                    "`adapter_source` can be `local` or `hub`, not `{}`: publish the adapter with PUT \
                     /admin/adapters and leave its source out",
                    shown.escape_debug()
                );
                Err(ApiError::unsupported("parameters.adapter_source", message))
            }
        }
    }

    fn request(&self, inputs: String) -> Result<GenerateRequest, ApiError> {
        let stop = self.stop.clone().unwrap_or_default();
        if stop.len() > MAX_STOP {
            let given = stop.len();
            let message =
                format!("`stop` supports up to {MAX_STOP} stop sequences. Given: {given}");
            return Err(ApiError::invalid("stop", message));
        }
        let sampling = self.sampling();
        let prompt = if self.apply_chat_template.unwrap_or(false) {
            conversation(&inputs)
        } else {
            Prompt::Text { text: inputs, add_special_tokens: true }
        };
        Ok(GenerateRequest {
            prompt,
            adapters: Vec::new(),
            sampling,
            bad_words: Vec::new(),
            max_tokens: self.max_new_tokens,
            default_max_tokens: Some(DEFAULT_NEW_TOKENS),
            // An empty stop string could only mean none.
            stop: stop.into_iter().filter(|text| !text.is_empty()).collect(),
            // TGI's answers end with the stop string that ended them.
            include_stop: true,
            skip_special_tokens: true,
            n: 1,
            truncate_prompt_tokens: self.truncate,
            shows_prompt: false,
            cache_salt: None,
            constraint: None,
            priority: Priority::Normal,
        })
    }

    /// Greedy, unless something asks for chance.
    fn sampling(&self) -> SamplingOptions {
        let neutral = SamplingOptions::default();
        let samples = self.samples();
        SamplingOptions {
            temperature: if samples { self.temperature.unwrap_or(1.0) } else { 0.0 },
            top_k: self.top_k.unwrap_or(neutral.top_k),
            top_p: self.top_p.unwrap_or(neutral.top_p),
            typical_p: self.typical_p.unwrap_or(neutral.typical_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(neutral.repetition_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(neutral.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(neutral.presence_penalty),
            // Chosen here, so that the answer can tell it.
            seed: samples.then(|| self.seed.unwrap_or_else(rand::random)),
            ignore_eos: self.ignore_eos_token.unwrap_or(false),
            ..neutral
        }
    }
}

fn conversation(inputs: &str) -> Prompt {
    Prompt::Chat {
        messages: vec![json!({"role": "user", "content": inputs})],
        tools: Vec::new(),
        documents: Vec::new(),
        add_generation_prompt: true,
        continue_final_message: false,
        variables: Map::new(),
    }
}

/// Which values change nothing.
type Neutral = fn(&Value) -> bool;

/// Known to LoRAX or TGI and not served: refused unless neutral, never ignored.
const REFUSED: &[(&str, Neutral)] = &[("watermark", |value| value == false)];

fn check_supported(given: &Map<String, Value>) -> Result<(), ApiError> {
    for (field, is_neutral) in REFUSED {
        let value = given.get(*field).filter(|value| !value.is_null());
        if value.is_some_and(|value| !is_neutral(value)) {
            let path = format!("parameters.{field}");
            let message = format!("`{field}` is not supported; leave it out");
            return Err(ApiError::unsupported(&path, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Value) -> Result<LoraxRequest, ApiError> {
        LoraxRequest::read(&JsonBody::parse(body.to_string().as_bytes())?, Streams::AsAsked, 8)
    }

    /// What lorax-client 0.6.3 sends when little is set.
    fn lorax_client() -> Value {
        json!({"inputs": "x", "parameters": {
            "adapter_id": "ad", "adapter_source": "local", "merged_adapters": null,
            "api_token": null, "do_sample": false, "max_new_tokens": 2, "ignore_eos_token": false,
            "repetition_penalty": null, "return_full_text": false, "stop": [], "seed": null,
            "temperature": null, "top_k": null, "top_p": null, "truncate": null,
            "typical_p": null, "best_of": null, "watermark": false, "details": true,
            "decoder_input_details": false, "return_k_alternatives": null,
            "response_format": null}, "stream": false})
    }

    #[test]
    fn what_the_client_library_sends_is_understood() {
        let read = read(&lorax_client()).expect("valid");
        assert_eq!(read.adapter.as_deref(), Some("ad"));
        assert!(!read.stream && read.shown.details && read.shown.prompt.is_none());
        assert_eq!(read.request.max_tokens, Some(2));
        assert_eq!(read.request.default_max_tokens, Some(100), "counts where nothing is asked for");
        assert!(read.request.sampling.temperature.abs() < f32::EPSILON, "greedy");
    }

    #[test]
    fn a_temperature_alone_is_enough_to_sample() {
        let sampled = read(&json!({"inputs": "x", "parameters": {"temperature": 0.7}}));
        let temperature = sampled.expect("valid").request.sampling.temperature;
        assert!((temperature - 0.7).abs() < f32::EPSILON);
        let base = read(&json!({"inputs": "x", "parameters": {"adapter_id": BASE}}));
        assert_eq!(base.expect("valid").adapter, None);
    }

    #[test]
    fn the_seed_of_a_sampled_answer_is_told_and_a_greedy_one_has_none() {
        let shown = |parameters: Value| {
            let read = read(&json!({"inputs": "x", "parameters": parameters})).expect("valid");
            assert_eq!(read.shown.seed, read.request.sampling.seed);
            read.shown.seed
        };
        assert!(shown(json!({"do_sample": true})).is_some());
        assert_eq!(shown(json!({"temperature": 0.5, "seed": 7})), Some(7));
        assert_eq!(shown(json!({"seed": 7})), None);
    }

    #[test]
    fn log_probabilities_are_only_worked_out_where_tokens_are_shown() {
        let logprobs = |body: Value| read(&body).expect("valid").request.sampling.logprobs;
        assert_eq!(logprobs(json!({"inputs": "x"})), None);
        assert_eq!(logprobs(json!({"inputs": "x", "stream": true})), Some(0));
        let parameters = json!({"details": true, "top_n_tokens": 3});
        assert_eq!(logprobs(json!({"inputs": "x", "parameters": parameters})), Some(3));
    }

    #[test]
    fn best_of_needs_chance_and_has_a_limit_and_no_stream() {
        let read = |parameters: Value, stream: bool| {
            read(&json!({"inputs": "x", "parameters": parameters, "stream": stream}))
        };
        let sampled = json!({"best_of": 3, "do_sample": true});
        let asked = read(sampled.clone(), false).expect("valid");
        assert_eq!((asked.request.n, asked.request.sampling.logprobs), (3, Some(0)));
        assert!(!asked.shown.details);
        let refused = |parameters, stream| {
            read(parameters, stream).expect_err("refused").message().to_owned()
        };
        assert!(refused(json!({"best_of": 3}), false).contains("must use sampling"));
        for wrong in [0, 9] {
            let parameters = json!({"best_of": wrong, "do_sample": true});
            assert!(refused(parameters, false).contains("<= 8"), "{wrong}");
        }
        assert!(refused(sampled, true).contains("when streaming"));
        assert_eq!(read(json!({"best_of": 1}), true).expect("valid").request.n, 1);
    }

    #[test]
    fn the_prompt_s_details_are_details_and_no_stream_has_them() {
        let asked = json!({"inputs": "x", "parameters": {"decoder_input_details": true}});
        let asked = read(&asked).expect("valid");
        assert!(asked.shown.details && asked.shown.prefill);
        assert_eq!(asked.request.sampling.prompt_logprobs, Some(0));
        let parameters = json!({"decoder_input_details": true});
        let streamed = json!({"inputs": "x", "parameters": parameters, "stream": true});
        assert!(read(&streamed).is_err());
    }

    #[test]
    fn a_source_that_says_nothing_more_is_accepted() {
        for source in [Value::Null, json!("local"), json!("hub"), json!("")] {
            read(&json!({"inputs": "x", "parameters": {"adapter_source": source}})).expect("valid");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        for (field, value) in [
            ("adapter_source", json!("pbase")),
            ("adapter_source", json!("s3")),
            ("watermark", json!(true)),
        ] {
            let refused = read(&json!({"inputs": "x", "parameters": {field: value}}));
            let error = refused.expect_err(field).lorax();
            assert!(error["error"].as_str().expect("text").contains(field), "{error}");
            assert_eq!(error["error_type"], "validation");
        }
        let many = read(&json!({"inputs": "x", "parameters": {"stop": ["a", "b", "c", "d", "e"]}}));
        assert!(many.expect_err("too many").message().ends_with("Given: 5"));
    }
}
