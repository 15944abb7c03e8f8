//! llama.cpp's tensor names and `transformers`'.
//!
//! Of models whose layers each have a weight of their own; where some are one weight, llama.cpp calls it otherwise.

/// Outside the layers.
const TOP: &[(&str, &str)] = &[
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Within `blk.N.` and `model.layers.N.`.
const LAYER: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// `transformers`' name; `None` for a tensor of no model served here.
pub fn to_transformers(name: &str) -> Option<String> {
    if let Some((_, top)) = TOP.iter().find(|(gguf, _)| *gguf == name) {
        return Some((*top).to_owned());
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = rest.split_once('.')?;
    let (_, part) = LAYER.iter().find(|(gguf, _)| *gguf == part)?;
    let plain =
        layer.bytes().all(|byte| byte.is_ascii_digit()) && matches!(kind, "weight" | "bias");
    plain.then(|| format!("model.layers.{layer}.{part}.{kind}"))
}

/// llama.cpp's name; `None` for a tensor that it has no name for.
pub fn to_gguf(name: &str) -> Option<String> {
    if let Some((top, _)) = TOP.iter().find(|(_, transformers)| *transformers == name) {
        return Some((*top).to_owned());
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    let (part, _) = LAYER.iter().find(|(_, transformers)| *transformers == part)?;
    Some(format!("blk.{layer}.{part}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_keep_their_number_and_kind() {
        let names = [
            ("blk.12.attn_q.bias", Some("model.layers.12.self_attn.q_proj.bias")),
            ("blk.0.ffn_norm.weight", Some("model.layers.0.post_attention_layernorm.weight")),
            ("output.weight", Some("lm_head.weight")),
            ("blk.0.ffn_gate_exps.weight", None),
            ("blk.x.attn_q.weight", None),
            ("rope_freqs.weight", None),
        ];
        for (gguf, expected) in names {
            assert_eq!(to_transformers(gguf).as_deref(), expected, "{gguf}");
            if let Some(name) = expected {
                assert_eq!(to_gguf(name).as_deref(), Some(gguf), "{name}");
            }
        }
        assert_eq!(to_gguf("model.layers.0.self_attn.qkv_proj.weight"), None);
    }
}
