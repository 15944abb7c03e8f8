//! How a byte-level vocabulary's training split text into words, by the name llama.cpp gives it.
use serde_json::{Value, json};

/// The rules of one family of byte-level tokenizers.
pub(super) struct PreTokenizer {
    /// `tokenizer.ggml.pre`
    names: &'static [&'static str],
    split: Split,
    /// A word that is a token is that token, whatever the merges would make of it.
    pub(super) ignore_merges: bool,
    /// Text is composed (NFC) first.
    pub(super) compose: bool,
    /// Prompts begin with BOS where the header does not say.
    pub(super) add_bos: bool,
}

/// Where words end.
enum Split {
    /// As GPT-2 does.
    Gpt2,
    /// Each digit on its own, then as GPT-2 does.
    DigitsThenGpt2,
    /// At each match of these patterns, one after the other.
    Patterns(&'static [&'static str]),
}

/// One line a family.
const FAMILIES: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["gpt-2", "phi-2"],
        split: Split::Gpt2,
        ignore_merges: false,
        compose: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        split: Split::DigitsThenGpt2,
        ignore_merges: false,
        compose: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3"],
        split: Split::Patterns(&[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ]),
        ignore_merges: true,
        compose: false,
        add_bos: true,
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen"],
        split: Split::Patterns(&[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ]),
        ignore_merges: false,
        compose: true,
        add_bos: false,
    },
    PreTokenizer {
        names: &["tekken"],
        split: Split::Patterns(&[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ]),
        ignore_merges: true,
        compose: false,
        add_bos: true,
    },
    PreTokenizer {
        names: &["default"],
        split: Split::Patterns(&[
            r"[\p{P}\$\+<=>\^~\|]+",
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
            r"\p{N}+",
            r"[0-9][0-9][0-9]",
        ]),
        ignore_merges: false,
        compose: false,
        add_bos: false,
    },
];

impl PreTokenizer {
    /// The family of this name.
    ///
    /// # Errors
    /// When it is not known: another family's rules would give other tokens without a word.
    pub(super) fn named(name: &str) -> Result<&'static Self, String> {
        FAMILIES.iter().find(|family| family.names.contains(&name)).ok_or_else(|| {
            let known: Vec<_> = FAMILIES.iter().flat_map(|family| family.names).copied().collect();
            format!(
                "has the pre-tokenizer `{name}`; this build knows {}. Serve the model from its Hugging Face \
                 directory instead",
                known.join(", ")
            )
        })
    }

    /// As `tokenizer.json` says it.
    pub(super) fn json(&self) -> Value {
        let byte_level = |use_regex| {
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": use_regex})
        };
        let split = |pattern: &&str| {
            json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
                "invert": false})
        };
        let steps: Vec<Value> = match &self.split {
            Split::Gpt2 => vec![byte_level(true)],
            Split::DigitsThenGpt2 => {
                vec![json!({"type": "Digits", "individual_digits": true}), byte_level(true)]
            }
            Split::Patterns(patterns) => {
                patterns.iter().map(split).chain([byte_level(false)]).collect()
            }
        };
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_one_family() {
        let mut names: Vec<_> = FAMILIES.iter().flat_map(|family| family.names).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(names.iter().all(|name| PreTokenizer::named(name).is_ok()));
    }

    #[test]
    fn an_unknown_family_is_named() {
        let message = PreTokenizer::named("viking").err().unwrap();
        assert!(message.contains("`viking`") && message.contains("smollm"), "{message}");
    }
}
