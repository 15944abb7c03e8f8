//! A JSON object that is read to the last key: what nobody takes is an error that names it.
use crate::model::ModelError;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// Keys that change no logit: records of training, of the tools, and defaults of text generation.
const IGNORED: &[&str] = &[
    // Read with the tokenizer, or names only.
    "bos_token_id",
    "eos_token_id",
    "model_type",
    "pad_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "tokenizer_class",
    "id2label",
    "label2id",
    "problem_type",
    "num_labels",
    "cls_token_id",
    "mask_token_id",
    "task_specific_params",
    "finetuning_task",
    "_name_or_path",
    "name_or_path",
    // Read with sentence-transformers' files.
    "is_matryoshka",
    "matryoshka_dimensions",
    // Weights say their own type; the device decides the arithmetic's.
    "dtype",
    "torch_dtype",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "attn_implementation",
    // Training.
    "attention_dropout",
    "hidden_dropout",
    "resid_pdrop",
    "initializer_range",
    "pretraining_tp",
    "router_aux_loss_coef",
    "loss_type",
    "neftune_noise_alpha",
    "gradient_checkpointing",
    "initializer_cutoff_factor",
    "attention_probs_dropout_prob",
    "hidden_dropout_prob",
    "embedding_dropout",
    "mlp_dropout",
    "classifier_dropout",
    "qa_dropout",
    "seq_classif_dropout",
    "dropout",
    "sparse_prediction",
    "sparse_pred_ignore_index",
    "repad_logits_with_grad",
    "deterministic_flash_attn",
    "reference_compile",
    // Tools.
    "transformers_version",
    "transformers.js_config",
    "unsloth_version",
    "unsloth_fixed",
    "is_llama_config",
    "use_cache",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "chunk_size_feed_forward",
    "pruned_heads",
    // Generation, which generation_config.json now says.
    "max_length",
    "max_new_tokens",
    "max_sequence_length",
    "min_length",
    "num_beams",
    "num_beam_groups",
    "num_return_sequences",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "do_sample",
    "repetition_penalty",
    "length_penalty",
    "diversity_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
];

/// The keys of one object that nobody has read yet.
#[derive(Debug)]
pub(super) struct Fields {
    path: String,
    left: Map<String, Value>,
}

impl Fields {
    /// The whole of `config.json`.
    pub(super) fn new(config: &Value) -> Result<Self, ModelError> {
        match config {
            Value::Object(map) => Ok(Self { path: String::new(), left: map.clone() }),
            _ => Err(ModelError::file("config.json", "is not a JSON object")),
        }
    }

    /// The value of `key`, now read; `null` is the same as absent.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.left.shift_remove(key).filter(|value| !value.is_null())
    }

    /// Whether `key` is there and not `null`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.left.get(key).is_some_and(|value| !value.is_null())
    }

    /// Whether `key` is there, be it `null`.
    pub(super) fn mentions(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Reads `from` under the name `to`, which stands for the same.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<(), ModelError> {
        let Some(value) = self.take(from) else { return Ok(()) };
        match self.left.get(to) {
            Some(other) if !other.is_null() && *other != value => {
                let detail = format!("is {value}, and `{to}`, which means the same, is {other}");
                Err(ModelError::config(self.name(from), detail))
            }
            _ => {
                self.left.insert(to.to_owned(), value);
                Ok(())
            }
        }
    }

    /// An error where `key` is absent, for families whose default is no rule one could guess.
    pub(super) fn must_have(&self, key: &str) -> Result<(), ModelError> {
        self.need(key, self.has(key).then_some(()))
    }

    /// A whole number in `range`.
    pub(super) fn size(
        &mut self,
        key: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        match size.filter(|size| range.contains(size)) {
            Some(size) => Ok(Some(size)),
            None => Err(self.wrong(
                key,
                &value,
                &format!("a whole number from {} to {}", range.start(), range.end()),
            )),
        }
    }

    /// A finite number above zero.
    pub(super) fn positive(&mut self, key: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_f64().filter(|number| number.is_finite() && *number > 0.0) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, &value, "a number above zero")),
        }
    }

    /// A list of finite numbers above zero.
    pub(super) fn positives(&mut self, key: &str) -> Result<Option<Vec<f64>>, ModelError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let positive = |item: &Value| item.as_f64().filter(|n| n.is_finite() && *n > 0.0);
        let numbers: Option<Vec<f64>> =
            value.as_array().and_then(|items| items.iter().map(positive).collect());
        numbers.map(Some).ok_or_else(|| self.wrong(key, &value, "a list of numbers above zero"))
    }

    /// A truth value; absent is false.
    pub(super) fn flag(&mut self, key: &str) -> Result<bool, ModelError> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(value) => Err(self.wrong(key, &value, "true or false")),
        }
    }

    /// A string.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, ModelError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.wrong(key, &value, "a string")),
        }
    }

    /// A list of strings.
    pub(super) fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>, ModelError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let texts: Option<Vec<String>> = value
            .as_array()
            .and_then(|items| items.iter().map(|item| item.as_str().map(String::from)).collect());
        texts.map(Some).ok_or_else(|| self.wrong(key, &value, "a list of strings"))
    }

    /// An object inside this one.
    pub(super) fn object(&mut self, key: &str) -> Result<Option<Self>, ModelError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Object(left)) => Ok(Some(Self { path: self.name(key) + ".", left })),
            Some(value) => Err(self.wrong(key, &value, "an object")),
        }
    }

    /// `value`, or an error that says `key` is missing.
    pub(super) fn need<T>(&self, key: &str, value: Option<T>) -> Result<T, ModelError> {
        value.ok_or_else(|| ModelError::config(self.name(key), "is missing"))
    }

    /// Ends the reading: no key may be left that could change a number.
    pub(super) fn finish(self) -> Result<(), ModelError> {
        let says_nothing = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
        let unknown: Vec<_> = self
            .left
            .iter()
            .filter(|(key, value)| !IGNORED.contains(&key.as_str()) && !says_nothing(value))
            .map(|(key, value)| format!("`{}` ({})", self.name(key), shortened(value)))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(ModelError::UnknownConfig { fields: unknown.join(", ") })
    }

    /// The key with those above it.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> ModelError {
        let detail = format!("is {}; it must be {expected}", shortened(value));
        ModelError::config(self.name(key), detail)
    }
}

/// JSON, cut so that a message stays readable.
fn shortened(value: &Value) -> String {
    const MAX_CHARS: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_nobody_reads_is_named() {
        let config = json!({"use_cache": true, "logit_cap": 30.0, "twist": "left"});
        let message = Fields::new(&config).unwrap().finish().unwrap_err().to_string();
        assert!(message.contains("`logit_cap` (30.0), `twist` (\"left\");"), "{message}");
    }

    #[test]
    fn a_key_that_is_null_or_false_passes() {
        let fields = Fields::new(&json!({"parallel_blocks": false, "logit_cap": null})).unwrap();
        assert!(fields.finish().is_ok());
    }

    #[test]
    fn a_nested_key_is_named_with_its_parents() {
        let mut fields = Fields::new(&json!({"rope": {"bent": 1}})).unwrap();
        let message = fields.object("rope").unwrap().unwrap().finish().unwrap_err().to_string();
        assert!(message.contains("`rope.bent`"), "{message}");
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        for bad in [json!(0), json!(-1), json!(1.5), json!("8"), json!(u64::MAX), json!([8])] {
            let mut fields = Fields::new(&json!({"n": bad})).unwrap();
            assert!(fields.size("n", 1..=100).is_err(), "{bad}");
        }
    }
}
