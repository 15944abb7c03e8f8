//! What a config asks for beside pairs of factors.
use super::config::{read_bool, wrong};
use crate::adapter::AdapterError;
use serde_json::{Map, Value};

/// Fields that switch parts of the family on. The default is plain LoRA.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// `use_dora`
    pub(super) dora: bool,
    /// `lora_bias`
    pub(super) lora_bias: bool,
    /// `bias`
    pub(super) bias: Biases,
    /// `modules_to_save`: ends of paths.
    pub(super) saved: Vec<String>,
    /// `ensure_weight_tying`
    pub(super) ensure_tying: bool,
    /// `trainable_token_indices`: ends of paths, and token ids in the order of the rows.
    pub(super) tokens: Vec<(String, Vec<u32>)>,
    /// `alora_invocation_tokens`
    pub(super) invocation: Vec<u32>,
}

/// Which biases were trained.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Biases {
    #[default]
    None,
    /// Those of the layers with pairs.
    Targeted,
    All,
}

impl Extras {
    /// # Errors
    /// When a field has the wrong type, or two exclude each other.
    pub(super) fn read(map: &Map<String, Value>) -> Result<Self, AdapterError> {
        let extras = Self {
            dora: read_bool(map, "use_dora")?,
            lora_bias: read_bool(map, "lora_bias")?,
            bias: read_biases(map.get("bias"))?,
            saved: read_names(map, "modules_to_save")?,
            ensure_tying: read_bool(map, "ensure_weight_tying")?,
            tokens: read_tokens(map.get("trainable_token_indices"))?,
            invocation: match map.get("alora_invocation_tokens") {
                None | Some(Value::Null) => Vec::new(),
                Some(value) => read_ids("alora_invocation_tokens", value)?,
            },
        };
        extras.check()?;
        Ok(extras)
    }

    /// PEFT has no such combinations; a config with one was not written by it.
    fn check(&self) -> Result<(), AdapterError> {
        let pair = match self {
            Self { dora: true, lora_bias: true, .. } => "`use_dora` and `lora_bias`",
            Self { dora: true, invocation, .. } if !invocation.is_empty() => {
                "`use_dora` and `alora_invocation_tokens`"
            }
            _ => return Ok(()),
        };
        Err(AdapterError::unsupported(format!(
            "adapter_config.json has both {pair}, which PEFT does not combine: switch one off, if the adapter was \
             trained without it"
        )))
    }

    /// The token ids that `path` has rows for, in the order of the rows.
    pub(super) fn tokens_of(&self, path: &str) -> Option<&[u32]> {
        let entry = self.tokens.iter().find(|(end, _)| path.ends_with(end.as_str()));
        entry.map(|(_, ids)| ids.as_slice())
    }

    /// Whether `modules_to_save` names the module at `path`, or one that it is part of.
    pub(super) fn saves(&self, path: &str) -> bool {
        let named = |path: &str| self.saved.iter().any(|end| path.ends_with(end.as_str()));
        wholes(path).any(named)
    }

    /// As [`Extras::saves`], beside what PEFT puts on the list of every classifier.
    pub(super) fn saves_by_choice(&self, path: &str) -> bool {
        let chosen = self.saved.iter().filter(|end| !HEADS.contains(&end.as_str()));
        let named = |path: &str| chosen.clone().any(|end| path.ends_with(end.as_str()));
        wholes(path).any(named)
    }

    /// Whether no pair goes on the module at `path`, for `modules_to_save` names it or one that it is part of. Names are
    /// whole here: `classifier` is not `pre_classifier`.
    pub(super) fn bars(&self, path: &str) -> bool {
        let names = |end: &String, path: &str| {
            path.strip_suffix(end.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        wholes(path).any(|path| self.saved.iter().any(|end| names(end, path)))
    }
}

/// What PEFT adds to `modules_to_save` of every classifier, whether or not the model has it.
const HEADS: [&str; 2] = ["classifier", "score"];

/// The module at `path`, and those that it is part of.
fn wholes(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('.').map(|(dot, _)| &path[..dot]).chain([path])
}

fn read_biases(value: Option<&Value>) -> Result<Biases, AdapterError> {
    match value {
        None | Some(Value::Null) => Ok(Biases::None),
        Some(Value::String(text)) if text == "none" => Ok(Biases::None),
        Some(Value::String(text)) if text == "lora_only" => Ok(Biases::Targeted),
        Some(Value::String(text)) if text == "all" => Ok(Biases::All),
        Some(other) => Err(wrong("bias", other, "\"none\", \"lora_only\" or \"all\"")),
    }
}

fn read_names(map: &Map<String, Value>, field: &str) -> Result<Vec<String>, AdapterError> {
    let items = match map.get(field) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong(field, other, "a list of names")),
    };
    let name = |item: &Value| match item.as_str() {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(wrong(field, item, "a module's name")),
    };
    items.iter().map(name).collect()
}

/// What families call their embedding.
const EMBEDDINGS: [&str; 3] = ["embed_tokens", "word_embeddings", "tok_embeddings"];

/// A list belongs to the embedding; an object says which module each list belongs to.
fn read_tokens(value: Option<&Value>) -> Result<Vec<(String, Vec<u32>)>, AdapterError> {
    const FIELD: &str = "trainable_token_indices";
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(entries)) => {
            let entries = entries.iter().filter(|(_, ids)| **ids != Value::Array(Vec::new()));
            entries.map(|(end, ids)| Ok((end.clone(), read_ids(FIELD, ids)?))).collect()
        }
        Some(Value::Array(items)) if items.is_empty() => Ok(Vec::new()),
        Some(list) => {
            let ids = read_ids(FIELD, list)?;
            Ok(EMBEDDINGS.map(|end| (end.to_owned(), ids.clone())).into())
        }
    }
}

fn read_ids(field: &str, value: &Value) -> Result<Vec<u32>, AdapterError> {
    let id = |item: &Value| item.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = value.as_array().and_then(|items| items.iter().map(id).collect());
    ids.ok_or_else(|| wrong(field, value, "a list of token ids"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(fields: Value) -> Result<Extras, String> {
        let Value::Object(map) = fields else { panic!("an object") };
        Extras::read(&map).map_err(|error| error.to_string())
    }

    #[test]
    fn tokens_are_a_list_or_lists_by_module() {
        let list = read(json!({"trainable_token_indices": [7, 3]})).expect("a list");
        assert_eq!(list.tokens_of("model.embed_tokens"), Some([7, 3].as_slice()));
        let words = list.tokens_of("bert.embeddings.word_embeddings");
        assert_eq!(words, Some([7, 3].as_slice()));
        assert_eq!(list.tokens_of("bert.embeddings.position_embeddings"), None);
        assert_eq!(list.tokens_of("lm_head"), None);
        let fields = json!({"trainable_token_indices": {"lm_head": [1], "embed_tokens": []}});
        let lists = read(fields).expect("lists");
        assert_eq!(lists.tokens_of("lm_head"), Some([1].as_slice()));
        assert_eq!(lists.tokens_of("model.embed_tokens"), None);
    }

    #[test]
    fn a_saved_module_saves_what_is_in_it() {
        let extras = read(json!({"modules_to_save": ["mlp", "norm"]})).expect("names");
        assert!(extras.saves("model.layers.0.mlp.up_proj"));
        assert!(extras.saves("model.layers.0.input_layernorm"));
        assert!(!extras.saves("model.layers.0.self_attn.q_proj"));
        assert!(!extras.saves("lm_head"));
    }

    #[test]
    fn a_pair_is_barred_by_whole_names_only() {
        let extras = read(json!({"modules_to_save": ["classifier", "score"]})).expect("names");
        assert!(extras.saves("pre_classifier") && !extras.bars("pre_classifier"));
        assert!(extras.bars("classifier.dense") && extras.bars("classifier"));
        assert!(!extras.saves_by_choice("classifier.dense"));
    }

    #[test]
    fn values_that_cannot_be_meant_are_refused() {
        for (fields, reason) in [
            (json!({"bias": "some"}), "lora_only"),
            (json!({"bias": true}), "lora_only"),
            (json!({"modules_to_save": "lm_head"}), "list of names"),
            (json!({"modules_to_save": [""]}), "module's name"),
            (json!({"trainable_token_indices": [-1]}), "token ids"),
            (json!({"trainable_token_indices": {"embed_tokens": 3}}), "token ids"),
            (json!({"alora_invocation_tokens": "<go>"}), "token ids"),
            (json!({"alora_invocation_tokens": [4_294_967_296_u64]}), "token ids"),
            (json!({"use_dora": true, "lora_bias": true}), "does not combine"),
            (json!({"use_dora": true, "alora_invocation_tokens": [1]}), "does not combine"),
        ] {
            let error = read(fields.clone()).expect_err(&fields.to_string());
            assert!(error.contains(reason), "{fields}: {error}");
        }
    }
}
