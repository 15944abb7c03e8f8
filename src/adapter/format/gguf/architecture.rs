//! The architectures whose adapters are read and written, and how llama.cpp's words differ among them.
use crate::{
    adapter::AdapterError,
    gguf::{to_gguf, to_transformers},
    lora::HeadCounts,
};

/// One value of `general.architecture`.
#[derive(Debug)]
pub(super) struct Architecture {
    /// As the file says it.
    pub(super) name: &'static str,
    /// `config.json`'s words for models that become it.
    classes: &'static [&'static str],
    /// Whether the rows of queries and keys are in rotary pairs.
    rotary_pairs: bool,
    /// Layers that are one weight here: llama.cpp's name in a block, and `transformers`'.
    fused: &'static [(&'static str, &'static str)],
    /// Layers that the fused ones stand for, under llama.cpp's names.
    absent: &'static [&'static str],
}

const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        name: "llama",
        classes: &["LlamaForCausalLM", "MistralForCausalLM"],
        rotary_pairs: true,
        fused: &[],
        absent: &[],
    },
    Architecture {
        name: "qwen2",
        classes: &["Qwen2ForCausalLM"],
        rotary_pairs: false,
        fused: &[],
        absent: &[],
    },
    Architecture {
        name: "qwen3",
        classes: &["Qwen3ForCausalLM"],
        rotary_pairs: false,
        fused: &[],
        absent: &[],
    },
    Architecture {
        name: "phi3",
        classes: &["Phi3ForCausalLM"],
        rotary_pairs: false,
        fused: &[("attn_qkv", "self_attn.qkv_proj"), ("ffn_up", "mlp.gate_up_proj")],
        absent: &["attn_q", "attn_k", "attn_v", "ffn_gate"],
    },
];

const WEIGHT: &str = ".weight";

impl Architecture {
    /// # Errors
    /// When no model of it is served.
    pub(super) fn named(name: &str) -> Result<&'static Self, AdapterError> {
        ARCHITECTURES.iter().find(|known| known.name == name).ok_or_else(|| {
            let known: Vec<_> = ARCHITECTURES.iter().map(|known| known.name).collect();
            AdapterError::unsupported(format!(
                "the GGUF file has `general.architecture` = `{}`; adapters of {} are served",
                name.escape_debug(),
                known.join(", ")
            ))
        })
    }

    /// What llama.cpp makes of a model whose `config.json` says `class`.
    ///
    /// # Errors
    /// When this build does not know.
    pub(super) fn of_class(class: &str) -> Result<&'static Self, AdapterError> {
        ARCHITECTURES.iter().find(|known| known.classes.contains(&class)).ok_or_else(|| {
            AdapterError::unsupported(format!(
                "the base is a {class}: this build does not know what llama.cpp calls its layers"
            ))
        })
    }

    /// The module in `transformers` whose weight llama.cpp calls `stored`.
    pub(super) fn module(&self, stored: &str) -> Option<String> {
        let plain = stored.strip_suffix(WEIGHT)?;
        if let Some((layer, part)) = block(plain) {
            if let Some((_, module)) = self.fused.iter().find(|(gguf, _)| *gguf == part) {
                return Some(format!("model.layers.{layer}.{module}"));
            }
            if self.absent.contains(&part) {
                return None;
            }
        }
        Some(to_transformers(stored)?.strip_suffix(WEIGHT)?.to_owned())
    }

    /// The inverse of [`Architecture::module`].
    pub(super) fn stored(&self, module: &str) -> Option<String> {
        let fused = self.fused.iter().find_map(|(gguf, transformers)| {
            let layer = module.strip_suffix(transformers)?.strip_prefix("model.layers.")?;
            Some(format!("blk.{layer}{gguf}{WEIGHT}"))
        });
        let stored = fused.or_else(|| to_gguf(&format!("{module}{WEIGHT}")))?;
        (self.module(&stored)? == module).then_some(stored)
    }

    /// Heads by which rows of a module's output are in rotary pairs; `None` where they are in halves, as in
    /// `transformers`.
    pub(super) fn paired(&self, module: &str) -> Option<fn(HeadCounts) -> usize> {
        match module.rsplit('.').next()? {
            "q_proj" if self.rotary_pairs => Some(|heads| heads.query),
            "k_proj" if self.rotary_pairs => Some(|heads| heads.key_value),
            _ => None,
        }
    }
}

/// `blk.N.part` → N, part.
fn block(plain: &str) -> Option<(&str, &str)> {
    plain.strip_prefix("blk.")?.split_once('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_translated_there_and_back() {
        for (architecture, stored, module) in [
            ("llama", "blk.3.attn_q.weight", Some("model.layers.3.self_attn.q_proj")),
            ("llama", "token_embd.weight", Some("model.embed_tokens")),
            ("llama", "output.weight", Some("lm_head")),
            ("llama", "blk.3.attn_qkv.weight", None),
            ("qwen2", "blk.0.ffn_up.weight", Some("model.layers.0.mlp.up_proj")),
            ("phi3", "blk.0.ffn_up.weight", Some("model.layers.0.mlp.gate_up_proj")),
            ("phi3", "blk.0.attn_qkv.weight", Some("model.layers.0.self_attn.qkv_proj")),
            ("phi3", "blk.0.ffn_down.weight", Some("model.layers.0.mlp.down_proj")),
            ("phi3", "blk.0.attn_q.weight", None),
            ("phi3", "blk.0.attn_q.bias", None),
        ] {
            let known = Architecture::named(architecture).expect("a known one");
            assert_eq!(known.module(stored).as_deref(), module, "{architecture} {stored}");
            if let Some(module) = module {
                assert_eq!(known.stored(module).as_deref(), Some(stored), "{module}");
            }
        }
        let phi3 = Architecture::of_class("Phi3ForCausalLM").expect("a known one");
        assert_eq!(phi3.stored("model.layers.0.self_attn.q_proj"), None);
        assert!(Architecture::named("bloom").is_err());
    }
}
