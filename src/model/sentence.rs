//! How a model's makers turn hidden states into embeddings: the files of sentence-transformers.
use super::{ModelError, Pooling, checkpoint::Files};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tokenizers::{NormalizedString, Normalizer, Tokenizer};

const MODULES: &str = "modules.json";
const SETTINGS: &str = "config_sentence_transformers.json";
/// What the first module's settings are called; older files name the kind of model.
const FIRST_MODULE: [&str; 6] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_albert_config.json",
];
/// sentence-transformers' older switches, one a mode, and what it now calls the mode.
const MODES: [(&str, &str); 7] = [
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_max_tokens", "max"),
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("pooling_mode_weightedmean_tokens", "weightedmean"),
    ("pooling_mode_lasttoken", "lasttoken"),
    ("pooling_mode_weightedmean", "weightedmean"),
];

/// How a model embeds texts.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingFacts {
    /// How the tokens' hidden states become one.
    pub pooling: Pooling,
    /// Whether embeddings have length 1.
    pub normalize: bool,
    /// Numbers in an embedding.
    pub dimensions: usize,
    /// Whether a shorter beginning of an embedding is one too (Matryoshka).
    pub shortens: bool,
    /// Tokens of the longest text, where the makers say so.
    pub max_tokens: Option<usize>,
    /// Texts to put before an input, by name.
    pub prompts: BTreeMap<String, String>,
    /// Which of them is put before an input that names none.
    pub default_prompt: Option<String>,
}

/// What of the model itself its embeddings depend on.
#[derive(Clone, Copy)]
pub(super) struct Embedder<'a> {
    pub(super) files: &'a Files,
    pub(super) config: &'a Value,
    pub(super) tokenizer: &'a Tokenizer,
    /// Width of a hidden state.
    pub(super) hidden: usize,
    /// Whether a token sees those before it alone.
    pub(super) is_causal: bool,
    /// The server's setting.
    pub(super) chosen: Option<Pooling>,
}

impl Embedder<'_> {
    /// `None` for a model that does not embed: a decoder whose makers do not say how.
    pub(super) fn facts(&self) -> Result<Option<EmbeddingFacts>, ModelError> {
        let modules = self.modules()?;
        if modules.is_none() && self.chosen.is_none() && self.is_causal {
            return Ok(None);
        }
        let (stated, normalize) = match &modules {
            Some(modules) => (Some(self.pooling(&modules.pooling)?), modules.normalizes),
            None => (None, true),
        };
        let pooling = match (self.chosen, stated) {
            (Some(pooling), _) | (None, Some(Stated::Served(pooling))) => pooling,
            (None, None) => Pooling::Mean,
            (None, Some(Stated::Other(mode))) => {
                return Err(self.other_mode(modules.as_ref(), &mode));
            }
        };
        if self.is_causal && pooling != Pooling::Last {
            return Err(ModelError::config(
                "pooling",
                "must be `last` for a model whose tokens see those before them alone",
            ));
        }
        let settings = self.object(SETTINGS)?;
        let (prompts, default_prompt) = self.prompts(&settings)?;
        self.prompts_are_pooled(modules.as_ref(), &prompts, pooling)?;
        let shortened = self.size(SETTINGS, &settings, "truncate_dim")?;
        if shortened.is_some_and(|dimensions| dimensions > self.hidden) {
            let detail = format!("has a `truncate_dim` above the model's width {}", self.hidden);
            return Err(self.wrong(SETTINGS, detail));
        }
        Ok(Some(EmbeddingFacts {
            pooling,
            normalize,
            dimensions: shortened.unwrap_or(self.hidden),
            shortens: shortened.is_some() || self.is_matryoshka(),
            max_tokens: self.max_tokens()?,
            prompts,
            default_prompt,
        }))
    }

    /// The chain of modules, as far as it is served: a transformer, pooling, and perhaps a normalisation.
    fn modules(&self) -> Result<Option<Modules>, ModelError> {
        let Some(listed) = self.files.json(MODULES)? else { return Ok(None) };
        let listed = listed.as_array().ok_or_else(|| self.wrong(MODULES, "is not a list"))?;
        let kinds: Vec<(&str, &str)> = listed.iter().map(kind_and_path).collect();
        let is_pooling = |kind: &str| kind == "Pooling";
        let chain = match kinds.as_slice() {
            [("Transformer", first), (kind, pooling)] if is_pooling(kind) => {
                (first, pooling, false)
            }
            [("Transformer", first), (kind, pooling), ("Normalize", _)] if is_pooling(kind) => {
                (first, pooling, true)
            }
            _ => {
                let kinds: Vec<_> = kinds.iter().map(|(kind, _)| *kind).collect();
                let detail = format!(
                    "is a chain of {}; Transformer, Pooling and Normalize, in this order, are \
                     served",
                    kinds.join(", ")
                );
                return Err(self.wrong(MODULES, detail));
            }
        };
        let (first, pooling, normalizes) = chain;
        if !first.is_empty() {
            let detail =
                format!("keeps the model in `{first}`; move its files beside modules.json");
            return Err(self.wrong(MODULES, detail));
        }
        if !is_plain(pooling) {
            let detail = format!("names `{pooling}`, which is no directory beside it");
            return Err(self.wrong(MODULES, detail));
        }
        Ok(Some(Modules { pooling: format!("{pooling}/config.json"), normalizes }))
    }

    fn pooling(&self, file: &str) -> Result<Stated, ModelError> {
        let settings = self.object(file)?;
        let width = match self.size(file, &settings, "word_embedding_dimension")? {
            None => self.size(file, &settings, "embedding_dimension")?,
            width => width,
        };
        if width.is_some_and(|width| width != self.hidden) {
            let detail = format!("pools {width:?} numbers; the model has {}", self.hidden);
            return Err(self.wrong(file, detail));
        }
        let mode = match settings.get("pooling_mode") {
            Some(Value::String(mode)) => mode.clone(),
            Some(other) if !other.is_null() => other.to_string(),
            _ => {
                let on = |key: &str| settings.get(key).and_then(Value::as_bool) == Some(true);
                let on: Vec<_> =
                    MODES.iter().filter(|(key, _)| on(key)).map(|(_, mode)| *mode).collect();
                // `Pooling`'s own default.
                if on.is_empty() { "mean".to_owned() } else { on.join("+") }
            }
        };
        Ok(match mode.as_str() {
            "cls" => Stated::Served(Pooling::First),
            "mean" => Stated::Served(Pooling::Mean),
            "lasttoken" => Stated::Served(Pooling::Last),
            _ => Stated::Other(mode),
        })
    }

    fn other_mode(&self, modules: Option<&Modules>, mode: &str) -> ModelError {
        let file = modules.map_or(MODULES, |modules| &modules.pooling);
        let detail = format!(
            "pools by `{mode}`; cls, mean and lasttoken are served, and --pooling chooses one"
        );
        self.wrong(file, detail)
    }

    /// `include_prompt` false leaves the prompt's tokens out of a mean, which is not served.
    fn prompts_are_pooled(
        &self,
        modules: Option<&Modules>,
        prompts: &BTreeMap<String, String>,
        pooling: Pooling,
    ) -> Result<(), ModelError> {
        let Some(modules) = modules else { return Ok(()) };
        let settings = self.object(&modules.pooling)?;
        let leaves_out = settings.get("include_prompt").and_then(Value::as_bool) == Some(false);
        let has_prompts = prompts.values().any(|prompt| !prompt.is_empty());
        if leaves_out && has_prompts && pooling == Pooling::Mean {
            let detail = "has `include_prompt` false; prompts that are left out of the mean are not \
                          served";
            return Err(self.wrong(&modules.pooling, detail));
        }
        Ok(())
    }

    fn prompts(
        &self,
        settings: &Map<String, Value>,
    ) -> Result<(BTreeMap<String, String>, Option<String>), ModelError> {
        let mut prompts = BTreeMap::new();
        match settings.get("prompts") {
            None | Some(Value::Null) => {}
            Some(Value::Object(named)) => {
                for (name, text) in named {
                    let text = text.as_str().ok_or_else(|| {
                        self.wrong(SETTINGS, format!("has a prompt `{name}` that is no text"))
                    })?;
                    prompts.insert(name.clone(), text.to_owned());
                }
            }
            Some(_) => return Err(self.wrong(SETTINGS, "has `prompts` that are no object")),
        }
        let default = match settings.get("default_prompt_name") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) if prompts.contains_key(name) => Some(name.clone()),
            Some(other) => {
                let detail =
                    format!("has {other} for its default prompt, which is none of its own");
                return Err(self.wrong(SETTINGS, detail));
            }
        };
        Ok((prompts, default))
    }

    /// `max_seq_length` of the first module, whose `do_lower_case` must be what the tokenizer does anyway.
    fn max_tokens(&self) -> Result<Option<usize>, ModelError> {
        let Some(file) = FIRST_MODULE.into_iter().find(|file| self.files.has(file)) else {
            return Ok(None);
        };
        let settings = self.object(file)?;
        let lowers = settings.get("do_lower_case").and_then(Value::as_bool) == Some(true);
        if lowers && !ignores_case(self.tokenizer) {
            let detail = "has `do_lower_case` true, but tokenizer.json tells cases apart; lower-case \
                          in its normalizer";
            return Err(self.wrong(file, detail));
        }
        self.size(file, &settings, "max_seq_length")
    }

    fn is_matryoshka(&self) -> bool {
        let said = |key: &str| self.config.get(key);
        let flag = said("is_matryoshka").and_then(Value::as_bool) == Some(true);
        let listed = said("matryoshka_dimensions").and_then(Value::as_array);
        flag || listed.is_some_and(|dimensions| !dimensions.is_empty())
    }

    /// An object of settings; empty where there is no such file.
    fn object(&self, file: &str) -> Result<Map<String, Value>, ModelError> {
        match self.files.json(file)? {
            None => Ok(Map::new()),
            Some(Value::Object(settings)) => Ok(settings),
            Some(_) => Err(self.wrong(file, "is not a JSON object")),
        }
    }

    fn size(
        &self,
        file: &str,
        settings: &Map<String, Value>,
        key: &str,
    ) -> Result<Option<usize>, ModelError> {
        match settings.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
                Some(size) if size > 0 => Ok(Some(size)),
                _ => Err(self.wrong(file, format!("has {value} for `{key}`; a number above zero"))),
            },
        }
    }

    fn wrong(&self, file: &str, detail: impl Into<String>) -> ModelError {
        ModelError::file(self.files.place(file), detail)
    }
}

/// The modules behind the transformer.
struct Modules {
    /// The file of the pooling's settings.
    pooling: String,
    normalizes: bool,
}

/// A mode of pooling as the files have it.
enum Stated {
    Served(Pooling),
    Other(String),
}

/// The class at the end of a module's path, whatever version wrote it.
fn kind_and_path(module: &Value) -> (&str, &str) {
    let text = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default();
    (text("type").rsplit('.').next().unwrap_or_default(), text("path"))
}

/// One name: a list of modules must not lead out of its directory.
fn is_plain(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('.') && !path.contains(['/', '\\'])
}

/// Whether both cases are the same to the tokenizer's normalizer.
fn ignores_case(tokenizer: &Tokenizer) -> bool {
    let Some(normalizer) = tokenizer.get_normalizer() else { return false };
    let normalised = |text: &str| {
        let mut text = NormalizedString::from(text);
        normalizer.normalize(&mut text).map(|()| text.get().to_owned())
    };
    matches!((normalised("ABC"), normalised("abc")), (Ok(upper), Ok(lower)) if upper == lower)
}
