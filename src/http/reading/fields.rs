//! The fields that vLLM's routes of reading share.
use crate::{
    generation::{Keep, Priority, Truncation},
    http::{
        ApiError,
        json::JsonBody,
        openai::{priority, refused},
    },
};
use refused::{EMPTY, NEVER, Neutral};
use serde::Deserialize;

/// What is known and not served.
const REFUSED: &[(&str, Neutral)] = &[
    ("additional_data", NEVER),
    ("cache_salt", NEVER),
    ("chat_template", NEVER),
    ("embed_dtype", |value| value == "float32"),
    ("endianness", |value| value == "native" || value == "little"),
    ("messages", NEVER),
    ("mm_processor_kwargs", EMPTY),
    ("padding", |value| value == "do_not_pad"),
];

/// As they came; `null` is absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::http) struct ReadFields {
    truncate_prompt_tokens: Option<i64>,
    truncation_side: Option<Side>,
    add_special_tokens: Option<bool>,
    use_activation: Option<bool>,
    activation: Option<bool>,
    priority: Option<i64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Left,
    Right,
}

impl ReadFields {
    /// Reads them.
    ///
    /// # Errors
    /// The first field that is wrong, or known and not served.
    pub(in crate::http) fn read(body: &JsonBody) -> Result<Self, ApiError> {
        refused::check(body, REFUSED)?;
        body.read()
    }

    /// Whether the tokenizer adds its special tokens.
    pub(in crate::http) fn add_special_tokens(&self) -> bool {
        self.add_special_tokens.unwrap_or(true)
    }

    /// Whether what the head says becomes probabilities, or an embedding's length 1; an older name of the field is
    /// `activation`.
    pub(in crate::http) fn use_activation(&self) -> Option<bool> {
        self.use_activation.or(self.activation)
    }

    /// Who goes first.
    ///
    /// # Errors
    /// 501 where the request wants to go before others.
    pub(in crate::http) fn priority(&self) -> Result<Priority, ApiError> {
        priority(self.priority)
    }

    /// What becomes of long texts: -1 cuts them to what the model takes. The side is the one that is cut.
    ///
    /// # Errors
    /// 400 for a number of tokens that is none.
    pub(in crate::http) fn truncation(&self) -> Result<Truncation, ApiError> {
        let keep = match self.truncation_side {
            None | Some(Side::Right) => Keep::First,
            Some(Side::Left) => Keep::Last,
        };
        match self.truncate_prompt_tokens {
            None => Ok(Truncation { cut: None, limit: None, keep }),
            Some(-1) => Ok(Truncation { cut: Some(true), limit: None, keep }),
            Some(tokens @ 1..) => Ok(Truncation { cut: None, limit: Some(tokens as usize), keep }),
            Some(tokens) => {
                let field = "truncate_prompt_tokens";
                let message = format!("`{field}` must be -1 or at least 1, not {tokens}");
                Err(ApiError::invalid(field, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(body: &Value) -> Result<ReadFields, ApiError> {
        ReadFields::read(&JsonBody::parse(body.to_string().as_bytes())?)
    }

    #[test]
    fn long_texts_are_cut_as_the_request_says() {
        let truncation = |body| read(&body).and_then(|fields| fields.truncation()).expect("valid");
        assert_eq!(truncation(json!({})), Truncation::default());
        let cut = Truncation { cut: Some(true), limit: None, keep: Keep::Last };
        assert_eq!(
            truncation(json!({"truncate_prompt_tokens": -1, "truncation_side": "left"})),
            cut
        );
        let limit = Truncation { cut: None, limit: Some(7), keep: Keep::First };
        assert_eq!(
            truncation(json!({"truncate_prompt_tokens": 7, "truncation_side": "right"})),
            limit
        );
        let wrong = read(&json!({"truncate_prompt_tokens": 0})).expect("read").truncation();
        assert_eq!(wrong.expect_err("refused").reason(), "invalid_value");
    }

    #[test]
    fn what_is_known_and_not_served_is_refused_by_name_unless_it_changes_nothing() {
        for (field, value) in [
            ("embed_dtype", json!("float16")),
            ("endianness", json!("big")),
            ("messages", json!([])),
            ("padding", json!("max_length")),
            ("cache_salt", json!("x")),
        ] {
            let error = read(&json!({field: value})).expect_err("refused").openai();
            assert_eq!(
                (&error["error"]["code"], &error["error"]["param"]),
                (&json!(501), &json!(field))
            );
        }
        let neutral = json!({"embed_dtype": "float32", "endianness": "native", "padding": "do_not_pad",
                             "messages": null, "mm_processor_kwargs": {}});
        assert!(read(&neutral).is_ok());
    }

    #[test]
    fn the_older_name_of_a_field_is_read_too() {
        let activation = |body| read(&body).expect("valid").use_activation();
        assert_eq!(activation(json!({"activation": false})), Some(false));
        assert_eq!(activation(json!({"activation": false, "use_activation": true})), Some(true));
        assert_eq!(activation(json!({})), None);
    }
}
