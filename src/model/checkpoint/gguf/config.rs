//! The header as `config.json` would say it.
use crate::gguf::{GgufError, GgufFile, Value as Entry};
use serde_json::{Map, Value, json};

/// `general.architecture` → `architectures`, and the model's rows of queries and keys are in rotary pairs.
const ARCHITECTURES: &[(&str, &str, bool)] = &[
    ("llama", "LlamaForCausalLM", true),
    ("qwen2", "Qwen2ForCausalLM", false),
    ("qwen3", "Qwen3ForCausalLM", false),
];

/// llama.cpp writes a window into the header for models of this one.
const WITH_WINDOW: &str = "MistralForCausalLM";

/// Below the architecture's name: required, with `config.json`'s word.
const SIZES: &[(&str, &str)] = &[
    ("block_count", "num_hidden_layers"),
    ("context_length", "max_position_embeddings"),
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
];

/// Keys that are read, or that change no number.
const KNOWN: &[&str] = &[
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "vocab_size",
    "tensor_data_layout",
];

/// What the rest of the checkpoint needs to know besides `config.json`.
pub(super) struct Described {
    /// `config.json`.
    pub(super) config: Value,
    /// Query and key/value heads whose rows are in rotary pairs; `None` where they are in halves already.
    pub(super) paired_heads: Option<(usize, usize)>,
}

/// Reads the header.
pub(super) fn describe(file: &GgufFile) -> Result<Described, GgufError> {
    refuse_parts(file)?;
    let keys = Keys {
        file,
        architecture: need(file, "general.architecture", file.text("general.architecture")?)?,
    };
    let (_, class, paired) =
        *ARCHITECTURES.iter().find(|(name, ..)| *name == keys.architecture).ok_or_else(|| {
            let known: Vec<_> = ARCHITECTURES.iter().map(|(name, ..)| *name).collect();
            let known = known.join(", ");
            file.wrong(format!(
                "has the architecture `{}`; this build serves {known}",
                keys.architecture
            ))
        })?;
    let mut config = Map::new();
    for (key, word) in SIZES {
        config.insert((*word).to_owned(), keys.size(key)?.into());
    }
    let heads = keys.size("attention.head_count")?;
    let kv_heads = keys.optional_size("attention.head_count_kv")?.unwrap_or(heads);
    let window = keys.optional_size("attention.sliding_window")?;
    let class = if window.is_some() && class == "LlamaForCausalLM" { WITH_WINDOW } else { class };
    config.insert("architectures".into(), json!([class]));
    config.insert("num_key_value_heads".into(), kv_heads.into());
    if class == WITH_WINDOW {
        config.insert("sliding_window".into(), window.into());
    }
    let head_dim = head_dim(&keys, heads)?;
    config.insert("head_dim".into(), head_dim.into());
    let eps = keys.float("attention.layer_norm_rms_epsilon")?;
    config
        .insert("rms_norm_eps".into(), keys.need("attention.layer_norm_rms_epsilon", eps)?.into());
    config.insert("hidden_act".into(), "silu".into());
    config.insert("rope_parameters".into(), rope(&keys)?);
    tensors(file, class, &mut config)?;
    keys.refuse_unknown(class)?;
    let paired_heads = paired.then_some((heads as usize, kv_heads as usize));
    Ok(Described { config: Value::Object(config), paired_heads })
}

/// What only the tensors say.
fn tensors(file: &GgufFile, class: &str, config: &mut Map<String, Value>) -> Result<(), GgufError> {
    let has = |name: &str| file.tensors().contains_key(name);
    let embedding = file.tensors().get("token_embd.weight").ok_or_else(|| {
        file.wrong("has no tensor `token_embd.weight`: it is a vocabulary without a model")
    })?;
    config.insert("vocab_size".into(), embedding.shape[0].into());
    config.insert("tie_word_embeddings".into(), (!has("output.weight")).into());
    if class == "LlamaForCausalLM" || class == "Qwen3ForCausalLM" {
        config.insert("attention_bias".into(), has("blk.0.attn_q.bias").into());
    }
    if class == "LlamaForCausalLM" {
        config.insert("mlp_bias".into(), has("blk.0.ffn_up.bias").into());
    }
    Ok(())
}

/// Elements of a head, which keys and values must share, and which must be rotated as a whole.
fn head_dim(keys: &Keys<'_>, heads: u64) -> Result<u64, GgufError> {
    let even = keys.size("embedding_length")? / heads;
    let head_dim = keys.optional_size("attention.key_length")?.unwrap_or(even);
    for key in ["attention.value_length", "rope.dimension_count"] {
        match keys.optional_size(key)? {
            Some(other) if other != head_dim => {
                let detail = format!(
                    "is {other}, heads have {head_dim} elements; only equal ones are served"
                );
                return Err(keys.wrong(key, &detail));
            }
            _ => {}
        }
    }
    Ok(head_dim)
}

/// `rope_parameters`. Divisors of the frequencies are a tensor: what a scaling of Llama 3.1's kind comes to.
fn rope(keys: &Keys<'_>) -> Result<Value, GgufError> {
    let mut rope = Map::new();
    if let Some(theta) = keys.float("rope.freq_base")? {
        rope.insert("rope_theta".into(), theta.into());
    }
    let kind = keys.file.text(&keys.name("rope.scaling.type"))?;
    let factor = match keys.float("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.float("rope.scale_linear")?,
    };
    let divisors = divisors(keys.file)?;
    let scaled = match (kind, &divisors) {
        (None, Some(_)) if factor.is_some_and(|factor| factor != 0.0 && factor != 1.0) => {
            return Err(
                keys.wrong("rope.scaling.factor", "is given, and `rope_freqs.weight` is there too")
            );
        }
        (None | Some("none"), Some(divisors)) => {
            json!({"rope_type": "divisors", "divisors": divisors})
        }
        (None, None) if factor.is_none_or(|factor| factor == 0.0) => {
            json!({"rope_type": "default"})
        }
        (Some("none"), None) => json!({"rope_type": "default"}),
        (None | Some("linear"), None) => json!({"rope_type": "linear", "factor": factor}),
        (Some("linear"), Some(_)) => {
            return Err(keys
                .wrong("rope.scaling.type", "is `linear`, and `rope_freqs.weight` is there too"));
        }
        (Some(other), _) => {
            let detail =
                format!("is `{other}`; none, linear and the tensor `rope_freqs.weight` are served");
            return Err(keys.wrong("rope.scaling.type", &detail));
        }
    };
    let Value::Object(scaled) = scaled else { unreachable!("every arm writes an object") };
    rope.extend(scaled);
    Ok(Value::Object(rope))
}

/// `rope_freqs.weight`, `[head_dim / 2]`.
fn divisors(file: &GgufFile) -> Result<Option<Vec<f64>>, GgufError> {
    let Some(entry) = file.tensors().get(ROPE_DIVISORS) else { return Ok(None) };
    let wrong = |error: candle_core::Error| {
        file.wrong(format!("has tensor `{ROPE_DIVISORS}` that cannot be read: {error}"))
    };
    let tensor = entry
        .read(file)
        .and_then(|tensor| tensor.to_dtype(candle_core::DType::F32))
        .map_err(wrong)?;
    let divisors =
        tensor.flatten_all().and_then(|tensor| tensor.to_vec1::<f32>()).map_err(wrong)?;
    Ok(Some(divisors.into_iter().map(f64::from).collect()))
}

/// The tensor that is part of the configuration.
pub(super) const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// Files that are no whole model.
fn refuse_parts(file: &GgufFile) -> Result<(), GgufError> {
    if file.unsigned("split.count")?.is_some_and(|parts| parts > 1) {
        let detail = "is one part of several; put them together with `llama-gguf-split --merge`";
        return Err(file.wrong(detail));
    }
    match file.text("general.type")? {
        None | Some("model") => Ok(()),
        Some(other) => Err(file.wrong(format!("is of the type `{other}`, not a base model"))),
    }
}

fn need<T>(file: &GgufFile, key: &str, value: Option<T>) -> Result<T, GgufError> {
    value.ok_or_else(|| file.wrong(format!("has no `{key}`; convert the model again")))
}

/// The values below the architecture's name.
struct Keys<'a> {
    file: &'a GgufFile,
    architecture: &'a str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn wrong(&self, key: &str, detail: &str) -> GgufError {
        self.file.wrong(format!("has `{}`, which {detail}", self.name(key)))
    }

    fn need<T>(&self, key: &str, value: Option<T>) -> Result<T, GgufError> {
        need(self.file, &self.name(key), value)
    }

    fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.file.float(&self.name(key))
    }

    fn optional_size(&self, key: &str) -> Result<Option<u64>, GgufError> {
        match self.file.unsigned(&self.name(key))? {
            Some(0) => Err(self.wrong(key, "is 0")),
            size => Ok(size),
        }
    }

    fn size(&self, key: &str) -> Result<u64, GgufError> {
        let size = self.optional_size(key)?;
        self.need(key, size)
    }

    /// A key that nobody reads could change a number: it is refused unless it says nothing.
    fn refuse_unknown(&self, class: &str) -> Result<(), GgufError> {
        let prefix = self.name("");
        let unread_window = class != WITH_WINDOW;
        let unknown = self.file.values().iter().find(|(key, value)| {
            let Some(key) = key.strip_prefix(&prefix) else { return false };
            let read = KNOWN.contains(&key) || SIZES.iter().any(|(known, _)| *known == key);
            let read = read && !(unread_window && key == "attention.sliding_window");
            !read && !says_nothing(value)
        });
        match unknown {
            None => Ok(()),
            Some((key, _)) => Err(self
                .file
                .wrong(format!("has `{key}`, which this build does not know how to honour"))),
        }
    }
}

fn says_nothing(value: &Entry) -> bool {
    matches!(value, Entry::Bool(false)) || value.unsigned() == Some(0)
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use crate::model::{
        arch::read_spec,
        spec::{ArchSpec, AttentionBias, Head, RopeScaling, Spec, Window},
    };

    const EMBEDDING: (&str, &[usize]) = ("token_embd.weight", &[10, 8]);

    /// A file of a small llama with `more` values and tensors.
    fn file(more: &[(&str, Entry)], tensors: &[(&str, &[usize])]) -> GgufFile {
        let sizes = [
            ("block_count", 2),
            ("context_length", 64),
            ("embedding_length", 8),
            ("feed_forward_length", 16),
            ("attention.head_count", 2),
        ];
        let mut values: Vec<(String, Entry)> = sizes
            .map(|(key, size)| (format!("llama.{key}"), Entry::Unsigned(size)))
            .into_iter()
            .chain([
                ("general.architecture".to_owned(), Entry::Text("llama".into())),
                ("llama.attention.layer_norm_rms_epsilon".to_owned(), Entry::Float(1e-5)),
            ])
            .collect();
        values.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let values: Vec<_> =
            values.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        testing::file(&values, &[&[EMBEDDING], tensors].concat())
    }

    fn spec(more: &[(&str, Entry)], tensors: &[(&str, &[usize])]) -> ArchSpec {
        match read_spec(&describe(&file(more, tensors)).unwrap().config).unwrap().1 {
            Spec::Decoder(spec) => spec,
            Spec::Encoder(_) => panic!("no GGUF file describes an encoder"),
        }
    }

    fn refusal(more: &[(&str, Entry)]) -> String {
        match describe(&file(more, &[])) {
            Err(error) => error.to_string(),
            Ok(described) => read_spec(&described.config).unwrap_err().to_string(),
        }
    }

    #[test]
    fn what_the_header_leaves_out_has_its_default() {
        let spec = spec(&[], &[]);
        assert_eq!((spec.attention.kv_heads, spec.attention.head_dim), (2, 4));
        assert_eq!((spec.dims.vocab, spec.head), (10, Head::Tied));
        assert_eq!((spec.rope.scaling, spec.attention.window), (RopeScaling::None, Window::None));
    }

    #[test]
    fn tensors_tell_of_biases_and_of_a_head_of_its_own() {
        let spec = spec(&[], &[("output.weight", &[10, 8]), ("blk.0.attn_q.bias", &[8])]);
        assert_eq!((spec.head, spec.attention.bias), (Head::Own, AttentionBias::All));
    }

    #[test]
    fn a_window_makes_a_mistral_of_it() {
        let window = ("llama.attention.sliding_window", Entry::Unsigned(16));
        assert_eq!(spec(&[window], &[]).attention.window, Window::Every(16));
    }

    #[test]
    fn frequencies_are_divided_by_a_tensor_or_a_factor() {
        let divided = spec(&[], &[("rope_freqs.weight", &[2])]).rope.scaling;
        assert_eq!(divided, RopeScaling::Divisors(vec![1.0, 1.0]));
        let linear = ("llama.rope.scaling.type", Entry::Text("linear".into()));
        let factor = ("llama.rope.scaling.factor", Entry::Float(4.0));
        let scaled = spec(&[linear.clone(), factor], &[]).rope.scaling;
        assert_eq!(scaled, RopeScaling::Linear { factor: 4.0 });
        assert!(refusal(&[linear]).contains("factor"));
    }

    #[test]
    fn divisors_of_other_heads_are_refused() {
        let config = describe(&file(&[], &[("rope_freqs.weight", &[3])])).unwrap().config;
        let message = read_spec(&config).unwrap_err().to_string();
        assert!(message.contains("divisors"), "{message}");
    }

    #[test]
    fn what_this_build_cannot_honour_is_named() {
        let text = |text: &str| Entry::Text(text.into());
        let cases = [
            ("llama.rope.scaling.type", text("yarn"), "`yarn`"),
            ("llama.expert_count", Entry::Unsigned(8), "`llama.expert_count`"),
            ("llama.attention.value_length", Entry::Unsigned(6), "attention.value_length"),
            ("llama.attention.head_count_kv", text("two"), "head_count_kv"),
            ("split.count", Entry::Unsigned(3), "--merge"),
            ("general.type", text("adapter"), "`adapter`"),
        ];
        for (key, value, word) in cases {
            let message = refusal(&[(key, value)]);
            assert!(message.contains(word), "{key}: {message}");
        }
        assert!(describe(&file(&[("llama.expert_count", Entry::Unsigned(0))], &[])).is_ok());
    }
}
