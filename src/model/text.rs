//! The text side of a model: tokenizer, chat template, special tokens, and how its makers sample it.
use super::{ModelError, checkpoint::Files};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tokenizers::Tokenizer;

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";

/// Everything that turns text into tokens and back.
#[derive(Clone, Debug)]
pub struct TextAssets {
    /// Without truncation and padding, whatever the file says.
    pub tokenizer: Tokenizer,
    /// Jinja source; `None` for a model that takes plain text only.
    pub chat_template: Option<String>,
    /// `bos_token`, `eos_token`, … as templates name them → the token.
    pub special_tokens: BTreeMap<String, String>,
    /// Tokens that end an answer, ascending.
    pub eos_ids: Vec<u32>,
    /// Whether a prompt begins with `bos_token`; `None` leaves it to the tokenizer's own rule.
    pub add_bos: Option<bool>,
    /// What a request gets that does not say otherwise.
    pub sampling: SamplingDefaults,
}

/// The model makers' own settings, from `generation_config.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingDefaults {
    /// Divisor of the logits.
    pub temperature: Option<f64>,
    /// Probability mass kept.
    pub top_p: Option<f64>,
    /// Tokens kept; 0 is all.
    pub top_k: Option<u64>,
    /// Factor against tokens that were there before.
    pub repetition_penalty: Option<f64>,
}

impl TextAssets {
    /// From the files beside `config.json`.
    pub(super) fn read(files: &Files, config: &Value) -> Result<Self, ModelError> {
        let tokenizer = tokenizer(files)?;
        let settings = files.json(TOKENIZER_CONFIG)?.unwrap_or_default();
        let generation = files.json(GENERATION_CONFIG)?.unwrap_or_default();
        let special_tokens = special_tokens(files, &settings)?;
        let mut eos_ids = match eos_ids(&generation, files, GENERATION_CONFIG)? {
            ids if ids.is_empty() => eos_ids(config, files, "config.json")?,
            ids => ids,
        };
        eos_ids.extend(special_tokens.get("eos_token").and_then(|eos| tokenizer.token_to_id(eos)));
        eos_ids.sort_unstable();
        eos_ids.dedup();
        Ok(Self {
            chat_template: chat_template(files, &settings)?,
            add_bos: settings.get("add_bos_token").and_then(Value::as_bool),
            sampling: sampling(&generation, files),
            tokenizer,
            special_tokens,
            eos_ids,
        })
    }
}

fn tokenizer(files: &Files) -> Result<Tokenizer, ModelError> {
    let bad = |detail: String| ModelError::file(files.place(TOKENIZER), detail);
    let bytes = files.read(TOKENIZER)?.ok_or_else(|| {
        bad("does not exist; load the tokenizer with transformers and save_pretrained it here"
            .into())
    })?;
    let mut tokenizer = Tokenizer::from_bytes(&bytes)
        .map_err(|error| bad(format!("is not a tokenizer this build reads: {error}")))?;
    // A file saved after training may cut prompts short or fill them up without a word.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| bad(error.to_string()))?;
    Ok(tokenizer)
}

/// `tokenizer_config.json` over `special_tokens_map.json`: `"eos_token": "</s>"` or `{"content": "</s>"}`.
fn special_tokens(files: &Files, settings: &Value) -> Result<BTreeMap<String, String>, ModelError> {
    let map = files.json("special_tokens_map.json")?.unwrap_or_default();
    let entries = |value: &Value| value.as_object().cloned().unwrap_or_else(Map::new);
    let tokens = entries(&map).into_iter().chain(entries(settings)).filter_map(|(key, value)| {
        let token = value.as_str().or_else(|| value.get("content")?.as_str())?;
        key.ends_with("_token").then(|| (key, token.to_owned()))
    });
    Ok(tokens.collect())
}

/// A file of its own counts before the tokenizer's settings.
fn chat_template(files: &Files, settings: &Value) -> Result<Option<String>, ModelError> {
    const KEY: &str = "chat_template";
    if let Some(template) = files.text("chat_template.jinja")? {
        return Ok(Some(template));
    }
    let in_json = files.json("chat_template.json")?;
    match in_json.as_ref().and_then(|json| json.get(KEY)).or_else(|| settings.get(KEY)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(template)) => Ok(Some(template.clone())),
        Some(Value::Array(named)) => named_template(named).map(Some).ok_or_else(|| {
            let detail = "has several `chat_template`s and none is named `default`";
            ModelError::file(files.place(TOKENIZER_CONFIG), detail)
        }),
        Some(_) => {
            let detail = "has a `chat_template` that is neither a string nor a list";
            Err(ModelError::file(files.place(TOKENIZER_CONFIG), detail))
        }
    }
}

/// From `[{"name": …, "template": …}]`, the default one, or the only one.
fn named_template(named: &[Value]) -> Option<String> {
    let text = |entry: &Value, key: &str| entry.get(key)?.as_str().map(str::to_owned);
    let default = named.iter().find(|entry| text(entry, "name").is_some_and(|n| n == "default"));
    let only = named.first().filter(|_| named.len() == 1);
    text(default.or(only)?, "template")
}

/// `eos_token_id`: one id or several.
fn eos_ids(config: &Value, files: &Files, file: &str) -> Result<Vec<u32>, ModelError> {
    let listed = match config.get("eos_token_id") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(ids)) => ids.as_slice(),
        Some(id) => std::slice::from_ref(id),
    };
    let ids: Option<Vec<u32>> =
        listed.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect();
    ids.ok_or_else(|| {
        let detail = "has an `eos_token_id` that is neither a token id nor a list of them";
        ModelError::file(files.place(file), detail)
    })
}

/// What a request could not ask for is no default either: it is left out, and the model served without.
fn sampling(generation: &Value, files: &Files) -> SamplingDefaults {
    let number = |key: &str, is_served: fn(f64) -> bool| {
        let value = generation.get(key).filter(|value| !value.is_null())?;
        let number = value.as_f64().filter(|number| is_served(*number));
        if number.is_none() {
            let file = files.place(GENERATION_CONFIG);
            tracing::warn!(file, key, %value, "a sampling default is out of range and ignored");
        }
        number
    };
    SamplingDefaults {
        temperature: number("temperature", |value| (0.0..=100.0).contains(&value)),
        top_p: number("top_p", |value| value > 0.0 && value <= 1.0),
        top_k: number("top_k", |value| value >= 0.0).map(|top_k| top_k as u64),
        repetition_penalty: number("repetition_penalty", |value| value > 0.0 && value <= 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NONE: Files = Files::Embedded(&[]);

    #[test]
    fn eos_is_one_id_or_several() {
        let ids = |value| eos_ids(&json!({"eos_token_id": value}), &NONE, "config.json");
        assert_eq!(ids(json!(2)).unwrap(), [2]);
        assert_eq!(ids(json!([5, 3])).unwrap(), [5, 3]);
        assert!(ids(json!(null)).unwrap().is_empty());
        assert!(ids(json!("</s>")).is_err() && ids(json!(-1)).is_err());
    }

    #[test]
    fn a_template_of_its_own_counts_before_the_settings() {
        let settings = json!({"chat_template": "settings"});
        let own = Files::Embedded(&[("chat_template.jinja", b"own")]);
        assert_eq!(chat_template(&own, &settings).unwrap().unwrap(), "own");
        let json_file = Files::Embedded(&[("chat_template.json", br#"{"chat_template": "json"}"#)]);
        assert_eq!(chat_template(&json_file, &settings).unwrap().unwrap(), "json");
        assert_eq!(chat_template(&NONE, &settings).unwrap().unwrap(), "settings");
        assert_eq!(chat_template(&NONE, &json!({})).unwrap(), None);
    }

    #[test]
    fn of_named_templates_the_default_is_taken() {
        let named = |names: &[&str]| -> Vec<Value> {
            names
                .iter()
                .map(|name| json!({"name": name, "template": format!("<{name}>")}))
                .collect()
        };
        let settings = |names| json!({"chat_template": named(names)});
        let template = |names| chat_template(&NONE, &settings(names));
        assert_eq!(template(&["tool_use", "default"]).unwrap().unwrap(), "<default>");
        assert_eq!(template(&["chat"]).unwrap().unwrap(), "<chat>");
        assert!(template(&["a", "b"]).is_err());
    }

    #[test]
    fn special_tokens_are_strings_or_objects() {
        let settings = json!({"eos_token": {"content": "</s>", "lstrip": false}, "bos_token": "<s>",
            "pad_token": null, "model_max_length": 8});
        let tokens = special_tokens(&NONE, &settings).unwrap();
        assert_eq!(tokens["eos_token"], "</s>");
        assert_eq!(tokens["bos_token"], "<s>");
        assert_eq!(tokens.len(), 2);
    }

    #[test]
    fn sampling_comes_from_the_generation_config() {
        let config = json!({"temperature": 0.6, "top_k": 20, "top_p": null});
        let defaults = sampling(&config, &NONE);
        assert_eq!(
            (defaults.temperature, defaults.top_k, defaults.top_p),
            (Some(0.6), Some(20), None)
        );
    }

    #[test]
    fn a_sampling_default_that_is_no_use_is_left_out_and_the_others_stay() {
        let config = json!({"top_p": "much", "temperature": -1, "top_k": -1,
            "repetition_penalty": 1.1});
        let repetition_penalty = Some(1.1);
        let expected = SamplingDefaults { repetition_penalty, ..SamplingDefaults::default() };
        assert_eq!(sampling(&config, &NONE), expected);
    }
}
