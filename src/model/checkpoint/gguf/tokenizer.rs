//! The header's vocabulary as `tokenizer.json` would say it.
use super::{pre::PreTokenizer, spm};
use crate::gguf::{GgufError, GgufFile};
use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

/// What `SentencePiece` writes for a space.
const SPACE: &str = "\u{2581}";

/// A vocabulary and what its tokens are for.
pub(super) struct Vocabulary<'a> {
    pub(super) tokens: Vec<&'a str>,
    pub(super) roles: Vec<Role>,
    /// Prepended to prompts; `None` where prompts begin with their own first token.
    pub(super) leading: Option<u32>,
}

/// `tokenizer.ggml.token_type`
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// The two kinds of vocabulary.
enum Model {
    /// Bytes written as letters, joined by merges.
    ByteLevel(&'static PreTokenizer),
    /// Pieces with scores, unknown letters as bytes.
    SentencePiece,
}

impl<'a> Vocabulary<'a> {
    /// Reads the vocabulary and makes a tokenizer of it.
    pub(super) fn read(file: &'a GgufFile) -> Result<(Self, Tokenizer), GgufError> {
        let model = Model::read(file)?;
        let tokens = need(file, "tokens", file.texts("tokenizer.ggml.tokens")?)?;
        let roles = roles(file, tokens.len())?;
        let bos = token_id(file, "bos_token_id", tokens.len())?;
        let leading =
            if model.adds_bos(file)? { Some(need(file, "bos_token_id", bos)?) } else { None };
        let vocabulary = Self { tokens, roles, leading };
        let json = vocabulary.json(file, &model)?;
        let tokenizer = serde_json::from_value(json).map_err(|error| {
            file.wrong(format!("has a vocabulary that makes no tokenizer: {error}"))
        })?;
        Ok((vocabulary, tokenizer))
    }

    fn json(&self, file: &GgufFile, model: &Model) -> Result<Value, GgufError> {
        let strip = flag(file, "add_space_prefix")?.unwrap_or(true);
        let (normalizer, pre_tokenizer, decoder) = match model {
            Model::ByteLevel(pre) => {
                let compose = pre.compose.then(|| json!({"type": "NFC"}));
                (compose, Some(pre.json()), byte_level_decoder())
            }
            Model::SentencePiece => (Some(spaces_to_marks(strip)), None, marks_to_spaces(strip)),
        };
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": self.added_tokens(),
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
            "post_processor": self.post_processor(), "decoder": decoder,
            "model": self.model(file, model)?,
        }))
    }

    fn model(&self, file: &GgufFile, model: &Model) -> Result<Value, GgufError> {
        let (merges, unknown, ignore_merges) = match model {
            Model::ByteLevel(pre) => (written_merges(file)?, None, pre.ignore_merges),
            Model::SentencePiece => {
                let unknown = token_id(file, "unknown_token_id", self.tokens.len())?;
                let unknown = unknown.map(|id| self.tokens[id as usize]);
                (self.scored_merges(file)?, unknown, false)
            }
        };
        let by_bytes = matches!(model, Model::SentencePiece);
        Ok(json!({
            "type": "BPE", "dropout": null, "unk_token": unknown,
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": by_bytes, "byte_fallback": by_bytes, "ignore_merges": ignore_merges,
            "vocab": self.ids(file)?, "merges": merges,
        }))
    }

    /// Token → id, without the places that only fill up the table.
    fn ids(&self, file: &GgufFile) -> Result<Map<String, Value>, GgufError> {
        let mut ids = Map::new();
        for (id, (token, role)) in self.tokens.iter().zip(&self.roles).enumerate() {
            if *role != Role::Unused && ids.insert((*token).to_owned(), id.into()).is_some() {
                return Err(file.wrong(format!("has the token `{}` twice", token.escape_debug())));
            }
        }
        Ok(ids)
    }

    fn scored_merges(&self, file: &GgufFile) -> Result<Vec<Value>, GgufError> {
        let scores = need(file, "scores", file.numbers("tokenizer.ggml.scores")?)?;
        same_length(file, "scores", scores.len(), self.tokens.len())?;
        let joinable = |role: Role| matches!(role, Role::Normal | Role::UserDefined);
        let pieces: Vec<_> = (self.tokens.iter().zip(scores).zip(&self.roles))
            .filter(|(_, role)| joinable(**role))
            .map(|((text, score), _)| spm::Piece { text, score })
            .collect();
        Ok(spm::merges(&pieces).into_iter().map(|(a, b)| json!([a, b])).collect())
    }

    /// Tokens that are cut out of a text before anything else.
    fn added_tokens(&self) -> Vec<Value> {
        let token = |(id, (token, role)): (usize, (&&str, &Role))| {
            let special = match role {
                Role::Control | Role::Unknown => true,
                Role::UserDefined => false,
                Role::Normal | Role::Unused | Role::Byte => return None,
            };
            Some(json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": special}))
        };
        self.tokens.iter().zip(&self.roles).enumerate().filter_map(token).collect()
    }

    /// Puts the leading token before a text.
    fn post_processor(&self) -> Option<Value> {
        let id = self.leading?;
        let token = self.tokens[id as usize];
        let special = json!({"SpecialToken": {"id": token, "type_id": 0}});
        let text = |name| json!({"Sequence": {"id": name, "type_id": 0}});
        let described = json!({"id": token, "ids": [id], "tokens": [token]});
        let special_tokens = Map::from_iter([(token.to_owned(), described)]);
        Some(json!({
            "type": "TemplateProcessing", "single": [special, text("A")],
            "pair": [special, text("A"), special, text("B")], "special_tokens": special_tokens,
        }))
    }
}

impl Model {
    fn read(file: &GgufFile) -> Result<Self, GgufError> {
        if flag(file, "add_eos_token")? == Some(true) {
            let detail =
                "ends every prompt with EOS (`tokenizer.ggml.add_eos_token`), which is not served";
            return Err(file.wrong(detail));
        }
        match need(file, "model", file.text("tokenizer.ggml.model")?)? {
            "gpt2" => {
                let pre = need(file, "pre", file.text("tokenizer.ggml.pre")?)?;
                PreTokenizer::named(pre).map(Self::ByteLevel).map_err(|detail| file.wrong(detail))
            }
            "llama" if flag(file, "remove_extra_whitespaces")? == Some(true) => {
                let key = "tokenizer.ggml.remove_extra_whitespaces";
                Err(file.wrong(format!("has `{key}`, which is not served")))
            }
            "llama" => Ok(Self::SentencePiece),
            other => {
                let detail =
                    format!("has a vocabulary of the kind `{other}`; gpt2 and llama are served");
                Err(file.wrong(detail))
            }
        }
    }

    fn adds_bos(&self, file: &GgufFile) -> Result<bool, GgufError> {
        let default = match self {
            Self::ByteLevel(pre) => pre.add_bos,
            Self::SentencePiece => true,
        };
        Ok(flag(file, "add_bos_token")?.unwrap_or(default))
    }
}

/// The id under `tokenizer.ggml.<key>`, within the vocabulary.
pub(super) fn token_id(
    file: &GgufFile,
    key: &str,
    tokens: usize,
) -> Result<Option<u32>, GgufError> {
    let key = format!("tokenizer.ggml.{key}");
    let Some(id) = file.unsigned(&key)? else { return Ok(None) };
    match u32::try_from(id) {
        Ok(small) if (small as usize) < tokens => Ok(Some(small)),
        _ => Err(file.wrong(format!("has `{key}` {id}, but only {tokens} tokens"))),
    }
}

fn roles(file: &GgufFile, tokens: usize) -> Result<Vec<Role>, GgufError> {
    let numbers = need(file, "token_type", file.numbers("tokenizer.ggml.token_type")?)?;
    same_length(file, "token_type", numbers.len(), tokens)?;
    let role = |number: f64| match number as i64 {
        1 => Ok(Role::Normal),
        2 => Ok(Role::Unknown),
        3 => Ok(Role::Control),
        4 => Ok(Role::UserDefined),
        5 => Ok(Role::Unused),
        6 => Ok(Role::Byte),
        other => Err(file.wrong(format!("has a token of the unknown type {other}"))),
    };
    numbers.into_iter().map(role).collect()
}

fn same_length(file: &GgufFile, key: &str, got: usize, tokens: usize) -> Result<(), GgufError> {
    if got == tokens {
        return Ok(());
    }
    Err(file.wrong(format!("has {tokens} tokens but {got} entries in `tokenizer.ggml.{key}`")))
}

fn flag(file: &GgufFile, key: &str) -> Result<Option<bool>, GgufError> {
    file.flag(&format!("tokenizer.ggml.{key}"))
}

fn need<T>(file: &GgufFile, key: &str, value: Option<T>) -> Result<T, GgufError> {
    value.ok_or_else(|| {
        file.wrong(format!("has no `tokenizer.ggml.{key}`; convert the model again"))
    })
}

/// `[left, right]`, in order.
fn written_merges(file: &GgufFile) -> Result<Vec<Value>, GgufError> {
    let merges = need(file, "merges", file.texts("tokenizer.ggml.merges")?)?;
    merges
        .iter()
        .map(|merge| match merge.split_once(' ') {
            Some((a, b)) if !a.is_empty() && !b.is_empty() => Ok(json!([a, b])),
            _ => {
                let merge = merge.escape_debug();
                Err(file.wrong(format!("has the merge `{merge}`, which is not two tokens")))
            }
        })
        .collect()
}

fn byte_level_decoder() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true})
}

fn spaces_to_marks(prefix: bool) -> Value {
    let prepend = prefix.then(|| json!({"type": "Prepend", "prepend": SPACE}));
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let steps: Vec<_> = prepend.into_iter().chain([replace]).collect();
    json!({"type": "Sequence", "normalizers": steps})
}

fn marks_to_spaces(prefix: bool) -> Value {
    let replace = json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "});
    let mut steps = vec![replace, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if prefix {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": steps})
}
